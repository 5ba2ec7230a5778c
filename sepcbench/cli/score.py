"""`sepcbench score`: saved detections against a data set, without a model and without torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from sepcbench.cli import options
from sepcbench.codec import encode
from sepcbench.records import Accuracy, Failure, Recall
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


def score(
    detections: Annotated[Path, typer.Argument(metavar="DETECTIONS.json", help="COCO results.")],
    data: Annotated[Path | None, typer.Option("--data", help="Data folder in COCO layout.")] = None,
    split: Annotated[str | None, typer.Option(help="Which annotation file; else val.")] = None,
    annotations: Annotated[Path | None, typer.Option(help="The annotation file.")] = None,
    task: Annotated[
        str, typer.Option(help="bbox, segm (masks) or proposals (recall without classes).")
    ] = "bbox",
    per_class: PerClass = False,
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
    options.emit(fmt, tables([(detections.name, record)], per_class), [encode(record)])


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
    return Table(f"COCO {table.what}, %, higher is better", headers, tuple(rows), tuple(notes))


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


def percent(fraction: float | None) -> str:
    """A fraction as a percentage with one digit; "-" where there is nothing to score."""
    return "-" if fraction is None else f"{100 * fraction:.1f}"
