"""The columns of a suite's table: what is read off a row, its unit, and its published twin."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sepcbench.records import Accuracy, Results, Row, ScoreDifference
from sepcbench.report.trainings import trained_unlike
from sepcbench.stats import MIN_IMAGES
from sepcbench.units import format_shape

BLANK = ""
# A published cell without a number: nobody published it, or no source of it is at hand.
NOT_PUBLISHED, NOT_AT_HAND = "not published", "not at hand"
# Published on another machine, batch and scope: only ratios compare, so no difference is printed.
INCOMPARABLE = ("latency_ms",)
FAILED = "failed"

# Set down once under every table with a blank cell.
BLANK_NOTE = (
    "An empty cell was not measured here. A published number is 'not at hand' where no source that "
    "could be read has it."
)


@dataclass(frozen=True)
class Column:
    """One measured quantity of a row.

    Attributes:
        header: with the unit and the direction.
        value: reads it off a row, None where it was not measured.
        digits: after the decimal point.
        published: the key of the published value, if papers print this quantity.
        measure: the measure it comes from; its failure shows in this column.
        text: writes the cell where it is not just the value.
        ranked: whether one row is the best of the column.
    """

    header: str
    value: Callable[[Row], float | None]
    digits: int
    measure: str
    published: str | None = None
    text: Callable[[Row], str] | None = None
    ranked: bool = True


def _macs(part: str) -> Callable[[Row], float | None]:
    def read(row: Row) -> float | None:
        value = dict(row.cost.macs).get(part) if row.cost else None
        return value / 1e9 if value else None  # a two-stage head has no towers

    return read


def _score(name: str, kind: str = "accuracy") -> Callable[[Row], float | None]:
    """A fraction of a record of the row, in percent."""

    def read(row: Row) -> float | None:
        record = getattr(row, kind)
        value = getattr(record, name) if record else None
        return None if value is None else 100 * float(value)

    return read


def _recall(header: str, name: str) -> Column:
    """Average recall of class-agnostic proposals."""
    return Column(header, _score(name, "recall"), 1, "recall", name)


def _intervals(header: str, kind: str) -> dict[str, Column]:
    """The interval of a score, and its difference to the first row; by the end of their names."""

    def low(row: Row) -> float | None:
        record = getattr(row, kind)
        return 100 * float(record.ap_ci95[0]) if record and record.ap_ci95 else None

    def interval(row: Row) -> str:
        return "[{:z.1f}, {:z.1f}]".format(*(100 * end for end in getattr(row, kind).ap_ci95))

    def delta(row: Row) -> float | None:
        found = dict(row.differences).get(kind)
        return 100 * found.delta if found else None

    def difference(row: Row) -> str:
        return difference_cell(dict(row.differences)[kind])

    name = f"{header} 95 % interval, %"
    return {
        "ci95": Column(name, low, 1, kind, text=interval, ranked=False),
        "difference": Column(
            f"{header} difference to the first row, points", delta, 2, kind, text=difference
        ),
    }


def difference_cell(found: ScoreDifference) -> str:
    """A difference in percentage points with its 95 % interval, "~" where that includes 0."""
    text = f"{100 * found.delta:+z.2f}"
    if found.ci95 is None:
        return text
    low, high = (100 * end for end in found.ci95)
    return f"{text} [{low:+z.2f}, {high:+z.2f}]{'' if found.resolved else ' ~'}"


def _params(row: Row) -> float | None:
    return row.cost.params / 1e6 if row.cost else None


def _sampling(row: Row) -> float | None:
    return row.cost.sampling_macs / 1e9 if row.cost and row.cost.sampling_macs else None


def latency_ms(row: Row) -> float | None:
    """Median milliseconds; only a GPU's: a CPU's absolute times say nothing to others."""
    on_gpu = row.latency is not None and row.latency.device.startswith("cuda")
    return row.latency.median_s * 1e3 if on_gpu and row.latency else None


def latency_ratio(row: Row) -> float | None:
    """Times slower than the first row, paired round by round; 1 for the first row itself."""
    if row.latency is None:
        return None
    if row.latency.ratio:
        return row.latency.ratio.median
    return 1.0 if row.latency.reference == row.name else None


COLUMNS: dict[str, Column] = {
    "params": Column("params, M (lower is better)", _params, 3, "cost", "params_m"),
    "macs": Column("total, GMAC (lower is better)", _macs("total"), 3, "cost", "gmacs"),
    "neck_macs": Column("neck, GMAC", _macs("neck"), 3, "cost"),
    "head_macs": Column("head, GMAC", _macs("head"), 3, "cost"),
    "tower_macs": Column("towers, GMAC", _macs("tower"), 3, "cost"),
    "sampling_macs": Column("sampling, GMAC", _sampling, 3, "cost"),
    "latency": Column("latency, ms (lower is better)", latency_ms, 3, "latency", "latency_ms"),
    "latency_ratio": Column("latency, times the first row", latency_ratio, 3, "latency"),
    "ap": Column("AP, % (higher is better)", _score("ap"), 1, "accuracy", "ap"),
    **{f"ap_{key}": column for key, column in _intervals("AP", "accuracy").items()},
    "ap50": Column("AP50, %", _score("ap50"), 1, "accuracy", "ap50"),
    "ap75": Column("AP75, %", _score("ap75"), 1, "accuracy", "ap75"),
    "ap_small": Column("AP small, %", _score("ap_small"), 1, "accuracy", "ap_small"),
    "ap_medium": Column("AP medium, %", _score("ap_medium"), 1, "accuracy", "ap_medium"),
    "ap_large": Column("AP large, %", _score("ap_large"), 1, "accuracy", "ap_large"),
    "mask_ap": Column("mask AP, %", _score("ap", "masks"), 1, "masks", "mask_ap"),
    **{f"mask_ap_{key}": column for key, column in _intervals("mask AP", "masks").items()},
    "mask_ap50": Column("mask AP50, %", _score("ap50", "masks"), 1, "masks"),
    "ar100": _recall("AR at 100, %", "ar100"),
    "ar1000": _recall("AR at 1000, %", "ar1000"),
    **{f"ar1000_{key}": column for key, column in _intervals("AR at 1000", "recall").items()},
    "ar1000_small": _recall("AR small, %", "ar1000_small"),
    "ar1000_medium": _recall("AR medium, %", "ar1000_medium"),
    "ar1000_large": _recall("AR large, %", "ar1000_large"),
}


def used_columns(results: Results) -> list[str]:
    """The columns in which some row has a value, a failure or a published value."""
    return [name for name, column in COLUMNS.items() if _used(column, results.rows)]


def _used(column: Column, rows: tuple[Row, ...]) -> bool:
    published = any(column.published in dict(row.published) for row in rows)
    return published or any(column.value(row) is not None for row in rows)


def measured_cell(column: Column, row: Row) -> str:
    """The measured value as text; "failed" where the measure failed; empty where there is none.

    A latency ratio carries its 95 % interval, and "~" where that includes 1; a difference of AP
    where it includes 0.
    """
    value = column.value(row)
    if value is None:
        failed = any(failure.measure == column.measure for failure in row.failures)
        return FAILED if failed else BLANK
    if column.text is not None:
        return column.text(row)
    # a small model's counts would be lost in a large one's digits
    text = f"{value:.3g}" if 0 < abs(value) < 0.1 else f"{value:z,.{column.digits}f}"
    if column.value is latency_ratio and row.latency and row.latency.ratio:
        low, high = row.latency.ratio.ci95
        mark = "" if row.latency.ratio.resolved else " ~"
        return f"{text} [{low:.3f}, {high:.3f}]{mark}"
    return text


def published_cells(column: Column, row: Row) -> tuple[str, str]:
    """The published value and measured minus published, as text."""
    published = dict(row.published).get(column.published or "")
    if published is None:
        given = column.published in row.not_published
        return NOT_PUBLISHED if given else NOT_AT_HAND, BLANK
    value = None if column.published in INCOMPARABLE else column.value(row)
    difference = BLANK if value is None else f"{value - published.value:+z,.{column.digits}f}"
    return published_text(published.value, column), difference


def published_text(value: float, column: Column) -> str:
    """A published value with the digits it has, scores with at least one: 37.0 beside 37.8."""
    text = f"{value:,g}"
    return f"{text}.0" if higher_is_better(column) and float(value).is_integer() else text


def _mixed(rows: tuple[Row, ...]) -> list[str]:
    """A warning where latencies were not measured under the same conditions."""
    times = {
        (t.scope, t.device_name, t.dtype, t.engine, t.batch, t.shape)
        for t in (row.latency for row in rows)
        if t
    }
    if len(times) < 2:
        return []
    line = "rows were measured under different conditions and do not compare; run again"
    return [f"Latency: {line}."]


def counted_as(row: Row) -> str:
    """Input and convention of a row's cost, such as "800x1344, mac"."""
    return f"{format_shape(row.cost.shape)}, {row.cost.convention}" if row.cost else BLANK


def counted_alike(rows: tuple[Row, ...]) -> bool:
    """Whether all costs are for the same input under the same convention."""
    return len({counted_as(row) for row in rows if row.cost}) < 2


def _cost_conditions(rows: tuple[Row, ...]) -> list[str]:
    costs = [row.cost for row in rows if row.cost]
    if not costs:
        return []
    lines = [
        f"Cost: one {format_shape(costs[0].shape)} image; MAC = one multiply-add; "
        f"convention '{costs[0].convention}'."
    ]
    if not counted_alike(rows):
        lines = ["Cost: MAC = one multiply-add; rows differ in input or convention as they say."]
    where = "in" if costs[0].convention == "paper" else "not in"
    if any(cost.sampling_macs for cost in costs):
        lines.append(f"The sampling of deformable convs is {where} the total.")
    rois = sorted({cost.rois for cost in costs if cost.rois})
    if rois:
        counts = " or ".join(f"{count:,}" for count in rois)
        lines.append(f"The heads of two-stage detectors are counted on {counts} RoIs.")
    return lines


def higher_is_better(column: Column) -> bool:
    """Whether more is better, as with AP and AR; all else is a price."""
    return column.measure in ("accuracy", "masks", "recall")


def comparable(column: Column, rows: tuple[Row, ...]) -> bool:
    """Whether the rows of a column were measured under the same conditions."""
    if column.measure == "cost":
        return counted_alike(rows)
    return column.measure != "latency" or not _mixed(rows)


def _drawn(rows: tuple[Row, ...]) -> list[str]:
    """Where intervals of scores come from."""
    records = [r for row in rows for r in (row.accuracy, row.recall) if r and r.draws]
    if not records:
        return []
    line = f"[95 % intervals] of scores: over {len(records[0].draws):,} draws of the images"
    if any(row.differences for row in rows):
        few = f" or there are fewer than {MIN_IMAGES} images"
        line += f", the same ones for every row; ~ where a difference's includes 0{few}"
    return [f"{line}."]


def _test_time(rows: tuple[Row, ...]) -> list[str]:
    """What rows were scored with beyond one pass per image."""
    scored = [(row.label, row.accuracy.test_time) for row in rows if row.accuracy]
    used = {how for _, how in scored}
    if not any(used):
        return []
    if len(used) == 1:
        return [f"Test time, all rows: {scored[0][1]}."]
    one_pass = " Other rows: one pass per image." if "" in used else ""
    of_rows = "; ".join(f"{label}: {how}" for label, how in scored if how)
    return [f"Test time differs: {of_rows}.{one_pass}"]


def conditions(results: Results) -> list[str]:
    """What the numbers hold for, one line per measure."""
    lines = _cost_conditions(results.rows)
    timed = next((row.latency for row in results.rows if row.latency), None)
    if timed:
        lines.append(
            f"Latency: {timed.device_name}, {timed.dtype}, {timed.engine}, batch {timed.batch}, "
            f"{format_shape(timed.shape)}, scope {timed.scope}, {timed.rounds} interleaved rounds "
            f"of {timed.samples_per_round}; [95 % interval], ~ where it includes 1."
        )
    lines += _mixed(results.rows) + _told(results.rows)
    scored = next((r for row in results.rows if (r := row.accuracy or row.recall)), None)
    if scored:
        which = "the generated set, not COCO" if results.generated_data else scored.dataset
        what = "AP" if isinstance(scored, Accuracy) else "AR"
        lines.append(f"{what}: {which}, {scored.images} images ({scored.dataset}).")
    lines += _test_time(results.rows) + _drawn(results.rows) + _refereed(results.rows)
    return lines + trained_unlike(results.rows)


def _told(rows: tuple[Row, ...]) -> list[str]:
    """What timings say of themselves, once for all rows of the same words."""
    timed = [(row.label, row.latency) for row in rows if row.latency]
    stopped = [label for label, record in timed if record.stopped == "time limit"]
    found = {"sampling ended at its time limit": stopped} if stopped else {}
    for label, record in timed:
        for note in record.notes:
            found.setdefault(note, []).append(label)
    return [
        f"Latency of {'all rows' if len(labels) == len(timed) else ', '.join(labels)}: {note}."
        for note, labels in found.items()
    ]


def _refereed(rows: tuple[Row, ...]) -> list[str]:
    """Whether another program agrees on the scores."""
    records = [r for row in rows for r in (row.accuracy, row.masks, row.recall) if r]
    if not records or not all(record.refereed for record in records):
        return []
    return ["Scores: pycocotools gives the same numbers for the same detections."]
