"""The points of a plot of what is bought over its price, and which of them are worth their price.

Nothing here draws: a point is a row's quality (AP, AR) over its price (MACs, latency), measured,
published, or published at a price that was also published.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from sepcbench.records import Results, Row
from sepcbench.report.columns import COLUMNS, comparable, latency_ms, latency_ratio

Interval = tuple[float, float]
Reader = Callable[[Row], float | None]
Kind = Literal["measured", "published", "elsewhere"]
# The order in which kinds stand for a row that has several.
KINDS: dict[Kind, str] = {
    "measured": "measured",
    "elsewhere": "published, at the published latency",
    "published": "published, at what is measured here",
}


@dataclass(frozen=True)
class Quality:
    """What is bought: a column in percent, and the record that it and its interval come from."""

    name: str
    column: str
    record: str


QUALITIES: dict[str, Quality] = {
    "ap": Quality("AP", "ap", "accuracy"),
    "mask_ap": Quality("mask AP", "mask_ap", "masks"),
    "ar": Quality("AR at 1000", "ar1000", "recall"),
}


@dataclass(frozen=True)
class Price:
    """What is paid, and in `elsewhere` what papers say is paid, by row, in the same unit."""

    label: str
    value: Reader
    interval: Callable[[Row], Interval | None]
    elsewhere: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Mark:
    """One point, with 95 % intervals where there are any."""

    row: Row
    kind: Kind
    x: float
    y: float
    x_interval: Interval | None = None
    y_interval: Interval | None = None


def macs_price(results: Results) -> Price | None:
    """GMAC; None where rows were not counted alike, and so do not compare."""
    if not comparable(COLUMNS["macs"], results.rows):
        return None
    return Price("cost, GMAC", COLUMNS["macs"].value, lambda row: None)


def latency_price(results: Results) -> Price | None:
    """Latency of a GPU in ms, else in multiples of the first row; None where rows differ in how.

    Published latencies are of another card: where there are any, only multiples of the first row
    stand side by side.
    """
    if not comparable(COLUMNS["latency"], results.rows):
        return None
    elsewhere = _published_times(results)
    if not elsewhere and any(latency_ms(row) is not None for row in results.rows):
        return Price("latency, ms", latency_ms, _ms_interval)
    label = f"latency, times {results.rows[0].label}"
    return Price(label, latency_ratio, _ratio_interval, elsewhere)


PRICES: dict[str, Callable[[Results], Price | None]] = {
    "macs": macs_price,
    "latency": latency_price,
}


def _ms_interval(row: Row) -> Interval | None:
    if row.latency is None:
        return None
    low, high = row.latency.ci95_s
    return 1e3 * low, 1e3 * high


def _ratio_interval(row: Row) -> Interval | None:
    return row.latency.ratio.ci95 if row.latency and row.latency.ratio else None


def _published_times(results: Results) -> dict[str, float]:
    """Published latency of rows in multiples of the first row's."""
    published = {row.name: dict(row.published).get("latency_ms") for row in results.rows}
    first = published[results.rows[0].name]
    return {name: time.value / first.value for name, time in published.items() if time and first}


def published_ratios(results: Results) -> dict[str, float]:
    """Published latency of rows that also have a published AP, in multiples of the first row's."""
    with_ap = {row.name for row in results.rows if "ap" in dict(row.published)}
    return {name: time for name, time in _published_times(results).items() if name in with_ap}


def quality_interval(row: Row, quality: Quality) -> Interval | None:
    """The 95 % interval of a measured quality over resampled images, in percent."""
    interval = getattr(getattr(row, quality.record), "ap_ci95", None)
    return (100 * interval[0], 100 * interval[1]) if interval else None


def scored_on(results: Results, quality: Quality) -> str:
    """The images that a quality is of."""
    if results.generated_data:
        return "generated set"
    records = [getattr(row, quality.record) for row in results.rows]
    return next((one.dataset for one in records if one), "COCO, as published")


def marks(results: Results, quality: Quality, price: Price) -> list[Mark]:
    """All points of the rows, by row.

    A published quality stands at its published price; at the measured price too only where that
    is all there is to see of what was measured.
    """
    column = COLUMNS[quality.column]
    found: list[Mark] = []
    for row in results.rows:
        x, measured = price.value(row), column.value(row)
        published = dict(row.published).get(column.published or "")
        if x is not None and measured is not None:
            across, up = price.interval(row), quality_interval(row, quality)
            found.append(Mark(row, "measured", x, measured, across, up))
        elsewhere = price.elsewhere.get(row.name)
        if elsewhere is not None and published:
            found.append(Mark(row, "elsewhere", elsewhere, published.value))
        if x is not None and published and (measured is None or elsewhere is None):
            found.append(Mark(row, "published", x, published.value, price.interval(row)))
    return found


def ranked(found: Sequence[Mark]) -> list[Mark]:
    """The points that may be ranked against each other: all of one kind, measured ones first."""
    for kind in KINDS:
        alike = [mark for mark in found if mark.kind == kind]
        if len(alike) > 1:
            return alike
    return []


def front(found: Sequence[Mark]) -> list[Mark]:
    """The Pareto front: points that no other one equals or betters at the same price or less."""
    kept: list[Mark] = []
    for mark in sorted(found, key=lambda mark: (mark.x, -mark.y)):
        if not kept or mark.y > kept[-1].y:
            kept.append(mark)
    return kept


def named(found: Sequence[Mark]) -> list[Mark]:
    """One point of every row, to stand its name beside: of the first of its kinds."""
    order = list(KINDS)
    first: dict[str, Mark] = {}
    for mark in sorted(found, key=lambda mark: order.index(mark.kind)):
        first.setdefault(mark.row.name, mark)
    return list(first.values())
