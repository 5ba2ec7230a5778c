"""The Pareto front of a suite's rows in AP, latency and MACs, and how sure each place on it is.

AP has draws of the images, latency draws of the rounds, both the same for every row; counts are
exact. A row is as surely on the front as the share of draws in which no other row beats it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from sepcbench.differences import Scored, scored_value
from sepcbench.records import Results, Row
from sepcbench.report.columns import latency_ratio
from sepcbench.stats import MIN_IMAGES, MIN_ROUNDS, RESAMPLES, round_medians

# Which record rows are told apart by: the first that two rows or more have.
_SCORES = {"AP": "accuracy", "AR at 1000": "recall", "mask AP": "masks"}
SURE = 0.95


@dataclass(frozen=True)
class Axis:
    """One quantity of the rows on the front.

    Attributes:
        name: as in "AP" or "latency".
        higher: whether more is better.
        values: (rows,).
        draws: (rows, draws); None where the values are exact, or nothing is known of their spread.
        exact: whether they are counts.
        enough: whether there are enough images or rounds for intervals of 95 %.
    """

    name: str
    higher: bool
    values: np.ndarray
    draws: np.ndarray | None
    exact: bool = False
    enough: bool = True


@dataclass(frozen=True)
class Place:
    """Where a row stands.

    Attributes:
        row: the row.
        on_front: whether no row beats it by the measured values.
        share: of draws in which no row beats it; None where nothing has draws.
        beaten_by: the row that beats it, by the measured values and in most draws; empty if none.
        beaten_share: of draws in which that one does.
    """

    row: Row
    on_front: bool
    share: float | None
    beaten_by: str
    beaten_share: float | None


@dataclass(frozen=True)
class Front:
    """The places of all rows that have every axis; `left_out` are names of the others."""

    axes: tuple[Axis, ...]
    places: tuple[Place, ...]
    left_out: tuple[str, ...]

    @property
    def rows(self) -> tuple[Row, ...]:
        """The rows that have a place."""
        return tuple(place.row for place in self.places)

    def axis(self, name: str) -> Axis | None:
        """The axis of a name, if the rows have it."""
        return next((axis for axis in self.axes if axis.name == name), None)


def front(results: Results) -> Front | None:
    """The front of the rows that were measured here.

    Published AP stands in where none was measured. None where fewer than two rows have both a
    score and a price.
    """
    rows = [row for row in results.rows if row.variant]
    score = _score_axis(rows)
    prices = [(name, read) for name, read in _PRICES.items() if _several(rows, read)]
    if score is None or not prices:
        return None
    name, read, draw = score
    readers = [read, *(read for _, read in prices)]
    kept = [row for row in rows if all(one(row) is not None for one in readers)]
    if len(kept) < 2:
        return None
    axes = (draw(name, kept), *(_price_axis(name, read, kept) for name, read in prices))
    left = tuple(row.name for row in results.rows if row not in kept)
    return Front(axes, _places(kept, axes), left)


Reader = Callable[[Row], float | None]


def _several(rows: list[Row], read: Reader) -> bool:
    return sum(read(row) is not None for row in rows) > 1


def _macs(row: Row) -> float | None:
    return dict(row.cost.macs).get("total") if row.cost else None


_PRICES: dict[str, Reader] = {"latency": latency_ratio, "MACs": _macs}


# --- axes ----------------------------------------------------------------------------------------


def _score_axis(rows: list[Row]) -> tuple[str, Reader, Callable[[str, list[Row]], Axis]] | None:
    for name, kind in _SCORES.items():
        read = _scored(kind)
        if _several(rows, read):
            return name, read, lambda title, kept, kind=kind: _measured(title, kind, kept)
    if _several(rows, _published):
        return "published AP", _published, _published_axis
    return None


def _scored(kind: str) -> Reader:
    def read(row: Row) -> float | None:
        record = getattr(row, kind)
        value = scored_value(record) if record else None
        return None if value is None else 100 * value

    return read


def _published(row: Row) -> float | None:
    found = dict(row.published).get("ap")
    return found.value if found else None


def _published_axis(name: str, rows: list[Row]) -> Axis:
    return Axis(name, True, np.array([_published(row) for row in rows], dtype=float), None)


def _measured(name: str, kind: str, rows: list[Row]) -> Axis:
    records: list[Scored] = [getattr(row, kind) for row in rows]
    values = np.array([100 * (scored_value(one) or 0.0) for one in records])
    alike = len({(len(one.draws), one.drawn_from) for one in records}) == 1
    if not alike or not records[0].draws:
        return Axis(name, True, values, None)
    drawn = 100 * np.array([one.draws for one in records])
    # the draws of each row are biased; their mean belongs on the value
    drawn += (values - drawn.mean(axis=1))[:, None]
    return Axis(name, True, values, drawn, enough=records[0].images >= MIN_IMAGES)


def _price_axis(name: str, read: Reader, rows: list[Row]) -> Axis:
    values = np.array([read(row) for row in rows], dtype=float)
    if name == "MACs":
        return Axis(name, False, values, None, exact=True)
    rounds = [row.latency.samples_s if row.latency else () for row in rows]
    counts = {len(one) for one in rounds}
    if len(counts) > 1 or 0 in counts:
        return Axis(name, False, values, None)
    medians = np.array([round_medians(one) for one in rounds])  # (rows, rounds)
    # round by round over the mean of all rows: the machine's mood drops out
    relative = medians / np.exp(np.log(medians).mean(axis=0))
    rng = np.random.default_rng(1)
    picks = rng.integers(0, medians.shape[1], size=(RESAMPLES, medians.shape[1]))
    drawn = np.median(relative[:, picks], axis=2)
    drawn *= (values / np.median(relative, axis=1))[:, None]
    return Axis(name, False, values, drawn, enough=medians.shape[1] >= MIN_ROUNDS)


# --- places --------------------------------------------------------------------------------------


def _places(rows: list[Row], axes: tuple[Axis, ...]) -> tuple[Place, ...]:
    by_value = _beats([_upward(axis, axis.values[:, None]) for axis in axes])[:, :, 0]
    draws = [axis.draws.shape[1] for axis in axes if axis.draws is not None]
    shares = None
    if draws:
        count = min(draws)
        shares = _beats([_upward(axis, _drawn(axis, count)) for axis in axes])
    return tuple(_place(rows, i, by_value, shares) for i in range(len(rows)))


def _upward(axis: Axis, values: np.ndarray) -> np.ndarray:
    return values if axis.higher else -values


def _drawn(axis: Axis, count: int) -> np.ndarray:
    """(rows, count)."""
    if axis.draws is None:
        return np.repeat(axis.values[:, None], count, axis=1)
    return axis.draws[:, :count]


def _beats(axes: list[np.ndarray]) -> np.ndarray:
    """(rows, draws) for each axis -> (rows, rows, draws): whether the first beats the second.

    It is nowhere worse and somewhere better.
    """
    no_worse = np.all([one[:, None] >= one[None] for one in axes], axis=0)
    better = np.any([one[:, None] > one[None] for one in axes], axis=0)
    return np.asarray(no_worse & better)


def _place(rows: list[Row], i: int, by_value: np.ndarray, shares: np.ndarray | None) -> Place:
    """The place of row i; of those that beat it a row on the front is named, if it can be."""
    beaters = np.flatnonzero(by_value[:, i])
    unbeaten = beaters[~by_value[:, beaters].any(axis=0)]
    beaters = unbeaten if unbeaten.size else beaters
    on_front = beaters.size == 0
    if shares is None:
        by = rows[beaters[0]].name if beaters.size else ""
        return Place(rows[i], on_front, None, by, None)
    share = float(1 - shares[:, i].any(axis=0).mean())
    each = shares[:, i].mean(axis=1)
    among = beaters if beaters.size else np.arange(len(rows))
    best = among[np.argmax(each[among])]
    if not beaters.size and each[best] <= 1 - SURE:
        return Place(rows[i], on_front, share, "", None)
    return Place(rows[i], on_front, share, rows[best].name, float(each[best]))
