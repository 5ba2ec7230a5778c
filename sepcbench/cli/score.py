"""`sepcbench score`: saved detections against a data set, without a model and without torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from sepcbench.cli import options
from sepcbench.codec import encode
from sepcbench.records import Accuracy, Failure
from sepcbench.report.table import Table

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

PerClass = Annotated[bool, typer.Option("--per-class", help="Add a table of AP per class.")]


def score(
    detections: Annotated[Path, typer.Argument(metavar="DETECTIONS.json", help="COCO results.")],
    data: Annotated[Path | None, typer.Option("--data", help="Data folder in COCO layout.")] = None,
    split: Annotated[str | None, typer.Option(help="Which annotation file; else val.")] = None,
    annotations: Annotated[Path | None, typer.Option(help="The annotation file.")] = None,
    per_class: PerClass = False,
    fmt: options.Format = "table",
) -> None:
    """Score detections that `eval --save-detections` or another program wrote.

    Example: sepcbench score detections.json --data coco/
    Example: sepcbench score detections.json --data coco/ --per-class --format md
    """
    options.check_format(fmt)
    from sepcbench.data.coco import open_data
    from sepcbench.measures.scoring import read_detections
    from sepcbench.measures.scoring import score as score_detections

    truth = open_data(data, split, annotations)
    found = read_detections(detections, truth)
    record = score_detections(truth, found, variant=detections.stem)
    names = [detections.name]
    options.emit(fmt, tables(names, [record], per_class), [encode(record)])


def tables(
    names: Sequence[str], records: Sequence[Accuracy | Failure], per_class: bool
) -> list[Table]:
    """The twelve numbers of each record, and AP per class if wanted."""
    scored = [(name, record) for name, record in zip(names, records)]
    made = [_numbers(scored)]
    if per_class:
        made.append(_classes([(n, r) for n, r in scored if isinstance(r, Accuracy)]))
    return made


def _numbers(scored: Sequence[tuple[str, Accuracy | Failure]]) -> Table:
    rows, notes = [], []
    for name, record in scored:
        if isinstance(record, Failure):
            rows.append((name, record.variant, *["failed"] * len(HEADERS)))
            notes.append(f"{name}: {record.reason}")
        else:
            values = (percent(getattr(record, field)) for field in HEADERS)
            rows.append((name, record.variant, *values))
            notes.append(
                f"{name}: {record.images} images of {record.dataset}, {record.detections} boxes"
            )
    headers = ("file", "variant", *(f"{text} %" for text in HEADERS.values()))
    return Table("COCO box AP and AR, %, higher is better", headers, tuple(rows), tuple(notes))


def _classes(scored: Sequence[tuple[str, Accuracy]]) -> Table:
    headers = ("class", *(f"{name} AP %" for name, _ in scored))
    classes = dict.fromkeys(cls for _, record in scored for cls, _ in record.per_class)
    values = [dict(record.per_class) for _, record in scored]
    rows = tuple((cls, *(percent(column.get(cls)) for column in values)) for cls in classes)
    return Table("AP per class, %, higher is better", headers, rows)


def percent(fraction: float | None) -> str:
    """A fraction as a percentage with one digit; "-" where there is nothing to score."""
    return "-" if fraction is None else f"{100 * fraction:.1f}"
