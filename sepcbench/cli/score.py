"""`sepcbench score`: saved detections against a data set, without a model and without torch."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from sepcbench.cli import options
from sepcbench.codec import encode
from sepcbench.errors import UsageError
from sepcbench.records import Accuracy, Failure, Recall, SizeBand
from sepcbench.report.levels_table import level_shares
from sepcbench.report.table import Table

Scored = Accuracy | Recall | Failure
TASKS = ("bbox", "segm", "proposals")

# header of each of the twelve numbers
HEADERS = {
    "ap": "AP",
    "ap50": "AP50",
    "ap75": "AP75",
    "ap_small": "AP S",
    "ap_medium": "AP M",
    "ap_large": "AP L",
    "ar1": "AR 1",
    "ar10": "AR 10",
    "ar100": "AR 100",
    "ar_small": "AR S",
    "ar_medium": "AR M",
    "ar_large": "AR L",
}
# and of proposals
RECALL_HEADERS = {
    "ar100": "AR 100",
    "ar1000": "AR 1k",
    "ar1000_small": "AR 1k S",
    "ar1000_medium": "AR 1k M",
    "ar1000_large": "AR 1k L",
}

PerClass = Annotated[bool, typer.Option("--per-class", help="Add a table of AP per class.")]
BySize = Annotated[
    bool,
    typer.Option(
        "--by-size", help="Add tables of AP by finer sizes, and of which level found what."
    ),
]


def score(
    detections: Annotated[Path, typer.Argument(metavar="DETECTIONS.json", help="COCO results.")],
    data: Annotated[Path | None, typer.Option("--data", help="Data folder in COCO layout.")] = None,
    split: Annotated[str | None, typer.Option(help="Which annotation file; else val.")] = None,
    annotations: Annotated[Path | None, typer.Option(help="The annotation file.")] = None,
    task: Annotated[
        str, typer.Option(help="bbox, segm (masks) or proposals (recall without classes).")
    ] = "bbox",
    per_class: PerClass = False,
    by_size: BySize = False,
    proposals: Annotated[Path | None, typer.Option("--proposals", hidden=True)] = None,
    referee: options.Referee = False,
    fmt: options.Format = "table",
) -> None:
    """Score detections that `eval --save-detections` or another program wrote.

    Example: sepcbench score detections.json --data coco/
    Example: sepcbench score detections.json --data coco/ --per-class --format md
    Example: sepcbench score proposals.json --data coco/ --task proposals
    """
    options.check_format(fmt)
    options.check_choice("task", task, TASKS)
    if proposals is not None:
        raise UsageError(
            "--proposals is an option of eval, for what works on given proposals; to score "
            f"proposals: sepcbench score {proposals} --task proposals"
        )
    from sepcbench.data.coco import open_data
    from sepcbench.measures import scoring

    truth = open_data(data, split, annotations)
    found = scoring.read_detections(detections, truth, task)  # type: ignore[arg-type]
    record: Scored
    if task == "proposals":
        record = scoring.recall(truth, found, variant=detections.stem, referee=referee)
    else:
        about: dict[str, Any] = {"variant": detections.stem, "task": task}
        record = scoring.score(truth, found, **about, referee=referee)
    if task == "bbox":
        _notice_proposals(found, len(truth.categories), detections)
    rows = [(detections.name, record)]
    more = size_tables(rows) if by_size else []
    options.emit(fmt, [*tables(rows, per_class), *more], [encode(record)])


def _notice_proposals(found: Sequence[dict[str, Any]], classes: int, path: Path) -> None:
    """Say so where detections look like proposals: all of the one category that those have."""
    if classes > 1 and found and all(item["category_id"] == 1 for item in found):
        print(
            f"sepcbench: all {len(found)} detections of '{path}' are of category 1, and the set "
            f"has {classes}; if they are an RPN's proposals, add --task proposals",
            file=sys.stderr,
        )


def tables(scored: Sequence[tuple[str, Scored]], per_class: bool) -> list[Table]:
    """The numbers of each record, in a table for boxes, masks and proposals each.

    A failure is a row of the table that its measure belongs to. With `per_class`, AP per class
    of boxes and of masks too.
    """
    made = []
    for table in _TABLES:
        rows = [(name, record) for name, record in scored if _kind(record) == table.kind]
        if rows:
            made.append(_numbers(table, rows))
        classes = [(name, record) for name, record in rows if isinstance(record, Accuracy)]
        if per_class and classes:
            made.append(_classes(table, classes))
    return made


class _Numbers(NamedTuple):
    """One table: the kind of its records, its title, and the header of each number."""

    kind: str
    what: str
    headers: dict[str, str]


_TABLES = (
    _Numbers("accuracy", "box AP and AR", HEADERS),
    _Numbers("masks", "mask AP and AR", HEADERS),
    _Numbers("recall", "proposals' class-agnostic AR", RECALL_HEADERS),
)


def _kind(record: Scored) -> str:
    if isinstance(record, Failure):
        return record.measure
    if isinstance(record, Recall):
        return "recall"
    return "masks" if record.task == "segm" else "accuracy"


def _numbers(table: _Numbers, scored: Sequence[tuple[str, Scored]]) -> Table:
    rows, notes = [], []
    for name, record in scored:
        if isinstance(record, Failure):
            rows.append((name, record.variant, *["failed"] * len(table.headers)))
            notes.append(f"{name}: {record.reason}")
        else:
            values = (percent(getattr(record, field)) for field in table.headers)
            rows.append((name, record.variant, *values))
            notes.append(f"{name}: {record.images} images of {record.dataset}, {_count(record)}")
    headers = ("file", "variant", *(f"{text} %" for text in table.headers.values()))
    return Table(
        f"COCO {table.what}, %, higher is better", headers, tuple(rows), tuple(notes), keys=2
    )


def _count(record: Accuracy | Recall) -> str:
    if isinstance(record, Recall):
        return f"{record.proposals} proposals"
    return f"{record.detections} {'masks' if record.task == 'segm' else 'boxes'}"


def _classes(table: _Numbers, scored: Sequence[tuple[str, Accuracy]]) -> Table:
    headers = ("class", *(f"{name} AP %" for name, _ in scored))
    classes = dict.fromkeys(cls for _, record in scored for cls, _ in record.per_class)
    values = [dict(record.per_class) for _, record in scored]
    rows = tuple((cls, *(percent(column.get(cls)) for column in values)) for cls in classes)
    what = "AP per class" if table.kind == "accuracy" else "mask AP per class"
    return Table(f"{what}, %, higher is better", headers, rows)


def size_tables(scored: Sequence[tuple[str, Scored]]) -> list[Table]:
    """AP by finer sizes of objects, and what each pyramid level found, where records have them."""
    boxes = [
        (name, record)
        for name, record in scored
        if isinstance(record, Accuracy) and record.task == "bbox"
    ]
    made = [_bands(kind, boxes) for kind in ("pixels", "relative")]
    levels = level_shares(boxes, "Which pyramid level found what")
    return [*(table for table in made if table.rows), *([levels] if levels else [])]


def _bands(kind: str, scored: Sequence[tuple[str, Accuracy]]) -> Table:
    """One row per band of sizes, one column of AP per record."""
    shown: dict[tuple[float, float | None], dict[str, SizeBand]] = {}
    for name, record in scored:
        for band in record.bands:
            if band.kind == kind:
                shown.setdefault((band.low, band.high), {})[name] = band
    rows = tuple(
        (
            _band(kind, low, high),
            str(max(band.objects for band in of.values())),
            *(percent(of[name].ap) if name in of else "-" for name, _ in scored),
        )
        for (low, high), of in shown.items()
    )
    headers = ("size", "objects", *(f"{name} AP %" for name, _ in scored))
    what = "root of the area in pixels" if kind == "pixels" else "part of the image's size"
    return Table(f"AP by size ({what}), %, higher is better", headers, rows)


def _band(kind: str, low: float, high: float | None) -> str:
    unit = (lambda size: f"{size:g}") if kind == "pixels" else _octave
    return f"{unit(low)}-{'' if high is None else unit(high)}"


def _octave(part: float) -> str:
    return f"{part:g}" if part in (0, 1) else f"1/{1 / part:g}"


def percent(fraction: float | None) -> str:
    """A fraction as a percentage with one digit; "-" where there is nothing to score."""
    return "-" if fraction is None else f"{100 * fraction:.1f}"
