"""`sepcbench inspect`: what a checkpoint is, what its weights need, and what says so."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sepcbench.cli import options
from sepcbench.codec import encode
from sepcbench.report.table import Table

if TYPE_CHECKING:
    from sepcbench.checkpoints.inspection import Inspection

# rows shown of one kind of key; `--format json` has all
_MOST_SHOWN = 40

Variant = Annotated[
    str | None, typer.Option("--variant", help="Compare with this variant, not with all.")
]
Conventions = Annotated[
    str | None,
    typer.Option("--conventions", help="mmdet1, mmdet2, torchvision, detectron2 or native."),
]
Trust = Annotated[
    bool, typer.Option("--trust", help="Unpickle whatever the file names; it may run any code.")
]


def inspect(
    checkpoint: Annotated[Path, typer.Argument(metavar="CHECKPOINT", help="Of any format.")],
    variant: Variant = None,
    conventions: Conventions = None,
    sets: options.Set = None,
    trust: Trust = False,
    fmt: options.Format = "table",
) -> None:
    """Say what a checkpoint is: format, producer, variant, conventions and why, and keys.

    Exit code 1 if `eval` could not load it as it is.

    Example: sepcbench inspect retinanet_sepc.pth
    Example: sepcbench inspect model_final.pkl --variant retinanet_r50_fpn --format json
    """
    options.check_format(fmt)
    overrides = tuple(options.parse_sets(sets).items())
    from sepcbench.checkpoints.loading import inspect as inspect_file
    from sepcbench.checkpoints.matching import Wishes

    found = inspect_file(checkpoint, Wishes(variant, conventions, overrides), trust)
    tables = [_summary(found)]
    if found.reasons:
        tables.append(_reasons(found))
    if found.missing or found.unexpected or found.other_shapes:
        tables.append(_keys(found))
    options.emit(fmt, tables, encode(found))
    if found.problem or found.ambiguous:
        raise typer.Exit(1)


def _summary(found: Inspection) -> Table:
    changed = ", ".join(f"{field} = {value}" for field, value in found.conventions_changed)
    conventions = (found.conventions or "not known") + (f" with {changed}" if changed else "")
    dtypes = ", ".join(f"{count} {name}" for name, count in found.dtypes)
    rows = [
        ("format", found.format or "not known"),
        ("producer", found.producer),
        ("variant", found.variant or "not known"),
        ("fits", ", ".join(found.fits) or "no named variant"),
        ("conventions", conventions),
        ("classes", _classes(found)),
        ("parameters", f"{found.parameters:,} in {found.tensors} tensors ({dtypes})"),
        ("missing keys", str(len(found.missing))),
        ("keys left over", str(len(found.unexpected))),
        ("keys of other shape", str(len(found.other_shapes))),
        ("tensors with NaN or infinity", _few(found.not_finite)),
        *(("note", note) for note in found.notes),
    ]
    if found.ambiguous:
        rows.append(("ambiguous", found.ambiguous))
    if found.problem:
        rows.append(("problem", found.problem))
    return Table(found.file, ("what", "found"), tuple(rows))


def _classes(found: Inspection) -> str:
    if found.num_classes is None:
        return "not known"
    if not found.class_names:
        return f"{found.num_classes}, names unknown"
    more = ", ..." if len(found.class_names) > 3 else ""
    return f"{found.num_classes}: {', '.join(found.class_names[:3])}{more}"


def _few(keys: tuple[str, ...]) -> str:
    return f"{len(keys)}: {', '.join(keys[:3])}" if keys else "0"


def _reasons(found: Inspection) -> Table:
    rows = tuple((reason.what, reason.why) for reason in found.reasons)
    return Table("what was concluded, and why", ("conclusion", "because"), rows)


def _keys(found: Inspection) -> Table:
    shapes = [
        (other.key, f"{list(other.in_file)} in the file, {list(other.in_variant)} in the variant")
        for other in found.other_shapes
    ]
    rows = [
        *_shown("missing", [(key, "") for key in found.missing]),
        *_shown("left over", [(key, "") for key in found.unexpected]),
        *_shown("other shape", shapes),
    ]
    return Table(
        f"keys beside those of {found.compared_with}", ("kind", "key", "shape"), tuple(rows)
    )


def _shown(kind: str, keys: list[tuple[str, str]]) -> Iterable[tuple[str, str, str]]:
    yield from ((kind, *key) for key in keys[:_MOST_SHOWN])
    if len(keys) > _MOST_SHOWN:
        yield (kind, f"and {len(keys) - _MOST_SHOWN} more (--format json has all)", "")
