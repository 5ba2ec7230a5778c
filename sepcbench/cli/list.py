"""`sepcbench list`: the names that other commands take. No torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, get_args

import typer

from sepcbench import specs, suites
from sepcbench.cli import options
from sepcbench.report.table import Table
from sepcbench.variants import VARIANTS


def _first_line(documented: object) -> str:
    return (documented.__doc__ or "").strip().splitlines()[0]


def _types(types: dict[str, type]) -> list[tuple[str, str]]:
    return [(name, _first_line(cls)) for name, cls in types.items()]


_NORM_NOTES: dict[str, str] = {
    "none": "no norm",
    "single": "one BN, statistics of each level on its own",
    "independent": "a BN per level",
    "integrated": "iBN: one BN, statistics over all levels together",
    "gn": "group norm",
    "frozen": "fixed statistics and affine",
}
_ENGINE_NOTES: dict[str, str] = {"eager": "the module as it is"}


def _suite_rows() -> list[tuple[str, str]]:
    return [(name, suites.load(name).file.title) for name in suites.names()]


def _variant_rows() -> list[tuple[str, str]]:
    return [(name, " + ".join(_parts(spec))) for name, spec in VARIANTS.items()]


def _parts(spec: specs.VariantSpec) -> list[str]:
    backbone = f"{spec.backbone.TYPE} {getattr(spec.backbone, 'depth', '')}".strip()
    return [backbone, *(_neck(neck) for neck in spec.necks), f"{spec.head.TYPE} head"]


def _neck(neck: specs.NeckSpec) -> str:
    """A neck's type with what tells it from its kin."""
    marks = [getattr(neck, name, "none") for name in ("deform", "norm")]
    told = ", ".join(mark for mark in marks if mark != "none")
    return f"{neck.TYPE} ({told})" if told else neck.TYPE


LISTS: dict[str, Callable[[], list[tuple[str, str]]]] = {
    "variants": _variant_rows,
    "necks": lambda: _types(specs.NECK_TYPES),
    "norms": lambda: [(name, _NORM_NOTES[name]) for name in get_args(specs.Norm)],
    "heads": lambda: _types(specs.HEAD_TYPES),
    "backbones": lambda: _types(specs.BACKBONE_TYPES),
    "suites": _suite_rows,
    "engines": lambda: [(name, _ENGINE_NOTES[name]) for name in get_args(specs.EngineName)],
}


def list_names(
    what: Annotated[str, typer.Argument(help=", ".join(LISTS) + ".")] = "variants",
    fmt: options.Format = "table",
) -> None:
    """List what there is: variants, necks, norms, heads, backbones, suites or engines.

    Example: sepcbench list variants
    Example: sepcbench list suites --format json
    """
    options.check_format(fmt)
    options.check_choice("list", what, LISTS)
    rows = LISTS[what]()
    table = Table(what, ("name", "what it is"), tuple(rows))
    options.emit(fmt, [table], [{"name": name, "about": about} for name, about in rows])
