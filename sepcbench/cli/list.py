"""`sepcbench list`: the names that other commands take. No torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Annotated, Any, get_args

import typer

from sepcbench import recipes, specs, suites
from sepcbench.cli import options
from sepcbench.codec import encode
from sepcbench.named_backbones import NAMED_BACKBONES, TIMM
from sepcbench.report.table import Table
from sepcbench.specs.engines import ENGINE_NOTES
from sepcbench.variants import DETECTORS, VARIANTS

VARIANT_NOTE = (
    "A variant is DETECTOR_BACKBONE_NECK: see `sepcbench list detectors` (with their necks) and "
    "`list backbones`."
)

Rows = list[tuple[str, str]]


def _first_line(documented: object) -> str:
    return (documented.__doc__ or "").strip().splitlines()[0]


def _types(types: dict[str, type]) -> Rows:
    return [(name, _first_line(cls)) for name, cls in types.items()]


def _neck_names() -> dict[str, tuple[str, ...]]:
    """Per neck, what it is called in the names of variants that have it as their last one."""
    found: dict[str, dict[str, None]] = {}
    for made in DETECTORS.values():
        for name, neck in made.necks.items():
            found.setdefault(neck.necks(made.fpn)[-1].TYPE, {})[name] = None
    return {kind: tuple(names) for kind, names in found.items()}


_NORM_NOTES: dict[str, str] = {
    "none": "no norm",
    "single": "one BN, statistics of each level on its own",
    "independent": "a BN per level",
    "integrated": "iBN: one BN, statistics over all levels together",
    "gn": "group norm",
    "frozen": "fixed statistics and affine",
}


def _suite_rows() -> Rows:
    return [(name, suites.load(name).file.title) for name in suites.names()]


def _variant_rows() -> Rows:
    return [(name, " + ".join(_parts(spec))) for name, spec in VARIANTS.items()]


def _detector_rows() -> Rows:
    return [(name, f"with {', '.join(made.necks)}") for name, made in DETECTORS.items()]


def _backbone_rows() -> Rows:
    named = [(name, _describe(spec)) for name, spec in NAMED_BACKBONES.items()]
    return [*named, (f"{TIMM}NAME", "any features_only backbone of timm, with maps to stride 32")]


def _describe(spec: specs.BackboneSpec) -> str:
    """A backbone's kind and the fields in which it differs from the plain one of its kind."""
    fields = encode(spec, sparse=True)
    told = ", ".join(f"{key} {value}" for key, value in fields.items() if key != "type")
    return f"{_first_line(type(spec))} {f'({told})' if told else ''}".strip()


def _parts(spec: specs.VariantSpec) -> list[str]:
    return [part.label for part in (spec.backbone, *spec.necks, spec.head)]


LISTS: dict[str, Callable[[], Rows]] = {
    "variants": _variant_rows,
    "detectors": _detector_rows,
    "necks": lambda: _types(specs.NECK_TYPES),
    "norms": lambda: [(name, _NORM_NOTES[name]) for name in get_args(specs.Norm)],
    "heads": lambda: _types(specs.HEAD_TYPES),
    "backbones": _backbone_rows,
    "suites": _suite_rows,
    "engines": lambda: [(name, note.line) for name, note in ENGINE_NOTES.items()],
    "recipes": lambda: [(name, recipes.title(name)) for name in recipes.names()],
}


def _recipe_notes() -> list[str]:
    fields = encode(specs.Recipe())
    told = ", ".join(f"{name}={_written(value)}" for name, value in fields.items())
    return [f"Fields for --recipe FIELD=VALUE, with their values where none is given: {told}."]


def _written(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value).replace(" ", "")


NOTES: dict[str, Callable[[], list[str]]] = {
    "variants": lambda: [VARIANT_NOTE],
    "recipes": _recipe_notes,
}


def list_names(
    what: Annotated[str, typer.Argument(help=", ".join(LISTS) + ".")] = "variants",
    containing: Annotated[
        str, typer.Argument(metavar="[TEXT]", help="Only what has this in its name or description.")
    ] = "",
    fmt: options.Format = "table",
) -> None:
    """List what there is: variants, detectors, backbones, necks, heads, norms, suites and more.

    A variant is DETECTOR_BACKBONE_NECK: any backbone goes with any detector and its necks, also
    those that are not listed as variants.

    Example: sepcbench list variants sepc
    Example: sepcbench list necks pconv
    Example: sepcbench list suites --format json
    """
    options.check_format(fmt)
    options.check_choice("list", what, LISTS)
    called = _neck_names() if what == "necks" else {}
    rows = [
        (name, about)
        for name, about in LISTS[what]()
        if _has(containing, (name, about, *called.get(name, ())))
    ]
    options.emit(fmt, [_table(what, containing, rows, called)], _values(rows, called))


def _has(text: str, texts: Iterable[str]) -> bool:
    return any(text.lower() in one.lower() for one in texts)


def _table(what: str, containing: str, rows: Rows, called: dict[str, tuple[str, ...]]) -> Table:
    notes = list(NOTES.get(what, list)())
    if not rows:
        notes.append(f"Nothing here has '{containing}' in it: `sepcbench list {what}` shows all.")
    if not called:
        return Table(what, ("name", "what it is"), tuple(rows), tuple(notes))
    cells = tuple((name, ", ".join(called.get(name, ())), about) for name, about in rows)
    return Table(what, ("name", "in names of variants", "what it is"), cells, tuple(notes))


def _values(rows: Rows, called: dict[str, tuple[str, ...]]) -> list[dict[str, Any]]:
    return [
        {"name": name, "about": about} | ({"names": list(called.get(name, ()))} if called else {})
        for name, about in rows
    ]
