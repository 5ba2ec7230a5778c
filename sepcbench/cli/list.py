"""`sepcbench list`: the names that other commands take. No torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, get_args

import typer

from sepcbench import specs, suites
from sepcbench.cli import options
from sepcbench.codec import encode
from sepcbench.named_backbones import NAMED_BACKBONES, TIMM
from sepcbench.report.table import Table
from sepcbench.variants import DETECTORS, VARIANTS

VARIANT_NOTE = (
    "A variant is DETECTOR_BACKBONE_NECK: see `sepcbench list detectors` (with their necks) and "
    "`list backbones`."
)


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


def _detector_rows() -> list[tuple[str, str]]:
    return [(name, f"with {', '.join(made.necks)}") for name, made in DETECTORS.items()]


def _backbone_rows() -> list[tuple[str, str]]:
    named = [(name, _describe(spec)) for name, spec in NAMED_BACKBONES.items()]
    return [*named, (f"{TIMM}NAME", "any features_only backbone of timm, with maps to stride 32")]


def _describe(spec: specs.BackboneSpec) -> str:
    """A backbone's kind and the fields in which it differs from the plain one of its kind."""
    fields = encode(spec, sparse=True)
    told = ", ".join(f"{key} {value}" for key, value in fields.items() if key != "type")
    return f"{_first_line(type(spec))} {f'({told})' if told else ''}".strip()


def _parts(spec: specs.VariantSpec) -> list[str]:
    return [part.label for part in (spec.backbone, *spec.necks, spec.head)]


LISTS: dict[str, Callable[[], list[tuple[str, str]]]] = {
    "variants": _variant_rows,
    "detectors": _detector_rows,
    "necks": lambda: _types(specs.NECK_TYPES),
    "norms": lambda: [(name, _NORM_NOTES[name]) for name in get_args(specs.Norm)],
    "heads": lambda: _types(specs.HEAD_TYPES),
    "backbones": _backbone_rows,
    "suites": _suite_rows,
    "engines": lambda: [(name, _ENGINE_NOTES[name]) for name in get_args(specs.EngineName)],
}


def list_names(
    what: Annotated[str, typer.Argument(help=", ".join(LISTS) + ".")] = "variants",
    containing: Annotated[
        str, typer.Argument(metavar="[TEXT]", help="Only names with this in them.")
    ] = "",
    fmt: options.Format = "table",
) -> None:
    """List what there is: variants, detectors, backbones, necks, heads, norms, suites, engines.

    A variant is DETECTOR_BACKBONE_NECK: any backbone goes with any detector and its necks, also
    those that are not listed as variants.

    Example: sepcbench list variants sepc
    Example: sepcbench list suites --format json
    """
    options.check_format(fmt)
    options.check_choice("list", what, LISTS)
    rows = [row for row in LISTS[what]() if containing in row[0]]
    notes = (VARIANT_NOTE,) if what == "variants" else ()
    table = Table(what, ("name", "what it is"), tuple(rows), notes)
    options.emit(fmt, [table], [{"name": name, "about": about} for name, about in rows])
