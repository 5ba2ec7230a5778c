"""Two sets of results row by row: ratios of latency and cost, differences of AP, with intervals.

Two runs share no rounds: the interval of a latency ratio is over the rounds of each run, drawn
apart from each other. What changed between the runs (clocks, temperature, neighbours) is not in it.
Detections on the same set share its images: the interval of an AP difference is over the same
draws of both.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sepcbench.differences import difference
from sepcbench.records import Failure, Latency, Results, Row
from sepcbench.stats import MIN_IMAGES, MIN_ROUNDS, Interval, interval, median_draws, round_medians

# What is compared: a ratio second over first, or a difference in percentage points.
RATIOS = ("latency", "macs", "params")
DIFFERENCES = {"ap": "accuracy", "mask_ap": "masks", "ar1000": "recall"}
QUANTITIES = (*RATIOS, *DIFFERENCES)
MEASURES = {"latency": "latency", "macs": "cost", "params": "cost", **DIFFERENCES}


@dataclass(frozen=True)
class Change:
    """One quantity of one row, second against first.

    Attributes:
        value: a ratio, or a difference in percentage points.
        ci95: None where there is none: counts are exact, and some scores have no draws.
        resolved: a change is shown: the interval leaves out no change, or counts differ.
        enough: there are enough rounds or images for the interval to be one.
        failed: why the second set has no value where the first has; empty otherwise.
    """

    value: float | None
    ci95: Interval | None = None
    resolved: bool = False
    enough: bool = True
    failed: str = ""


@dataclass(frozen=True)
class RowChange:
    """All quantities of a row that is in both sets."""

    row: str
    label: str
    changes: tuple[tuple[str, Change], ...]


@dataclass(frozen=True)
class Compared:
    """Two sets of results, side by side.

    Attributes:
        first: the set that the other is compared to.
        second: the set whose change is told.
        rows: those that are in both.
        mean: over rows, geometric of ratios and arithmetic of differences, with their intervals.
        only_first: names of rows that the second set lacks.
        only_second: names of rows that the first set lacks.
    """

    first: str
    second: str
    rows: tuple[RowChange, ...]
    mean: tuple[tuple[str, Change], ...]
    only_first: tuple[str, ...] = ()
    only_second: tuple[str, ...] = ()


def compare(first: Results, second: Results) -> Compared:
    """Compare the rows of the same name; whether they compare is said by `unlike`."""
    ours = {row.name: row for row in second.rows if row.variant}
    theirs = {row.name: row for row in first.rows if row.variant}
    pairs = [(row, ours[name]) for name, row in theirs.items() if name in ours]
    changes = [(after, _changes(before, after)) for before, after in pairs]
    return Compared(
        first=_name(first),
        second=_name(second),
        rows=tuple(RowChange(row.name, row.label, found) for row, found in changes if found),
        mean=_means(pairs, [dict(found) for _, found in changes]),
        only_first=tuple(name for name in theirs if name not in ours),
        only_second=tuple(name for name in ours if name not in theirs),
    )


def _name(results: Results) -> str:
    commit = results.environment.git_commit if results.environment else None
    return f"{results.suite} ({results.machine}{f', {commit[:12]}' if commit else ''})"


def _changes(before: Row, after: Row) -> tuple[tuple[str, Change], ...]:
    found = []
    for name in QUANTITIES:
        lost = _lost(name, before, after)
        change = Change(None, failed=lost) if lost else _change(name, before, after)
        if change is not None:
            found.append((name, change))
    return tuple(found)


def _lost(name: str, before: Row, after: Row) -> str:
    """Why a quantity that the first set has is missing in the second: it failed there."""
    kind = MEASURES[name]
    if getattr(before, kind) is None or getattr(after, kind) is not None:
        return ""
    failures: list[Failure] = [f for f in after.failures if f.measure == kind]
    return failures[0].reason if failures else ""


def _change(name: str, before: Row, after: Row) -> Change | None:
    if name == "latency":
        if before.latency is None or after.latency is None:
            return None
        return _latency(before.latency, after.latency)
    if name in RATIOS:
        return _cost(name, before, after)
    kind = DIFFERENCES[name]
    reference, ours = getattr(before, kind), getattr(after, kind)
    made = difference(ours, reference, before.name) if reference and ours else None
    if made is None:
        return None
    ends = None if made.ci95 is None else (100 * made.ci95[0], 100 * made.ci95[1])
    enough = ends is not None and min(ours.images, reference.images) >= MIN_IMAGES
    return Change(100 * made.delta, ends, made.resolved, enough)


def _latency(before: Latency, after: Latency) -> Change:
    value = _centre(after) / _centre(before)
    low, high = interval(_ratio_draws(before, after))
    enough = min(len(before.samples_s), len(after.samples_s)) >= MIN_ROUNDS
    return Change(value, (low, high), enough and not low <= 1 <= high, enough)


def _centre(record: Latency) -> float:
    return float(np.median(round_medians(record.samples_s)))


def _ratio_draws(before: Latency, after: Latency) -> np.ndarray:
    drawn: np.ndarray = median_draws(after.samples_s, 1) / median_draws(before.samples_s, 0)
    return drawn


def _cost(name: str, before: Row, after: Row) -> Change | None:
    """Counts are exact: any difference is one."""
    if before.cost is None or after.cost is None:
        return None
    one, other = (
        row.cost.params if name == "params" else dict(row.cost.macs)["total"]
        for row in (before, after)
        if row.cost
    )
    return Change(other / one, None, one != other) if one else None


# --- means over rows ---------------------------------------------------------------------------


def _means(
    pairs: list[tuple[Row, Row]], changes: list[dict[str, Change]]
) -> tuple[tuple[str, Change], ...]:
    found = []
    for name in QUANTITIES:
        chosen = [
            (pair, one[name])
            for pair, one in zip(pairs, changes)
            if name in one and one[name].value is not None
        ]
        if len(chosen) > 1:
            found.append((name, _mean(name, [p for p, _ in chosen], [c for _, c in chosen])))
    return tuple(found)


def _mean(name: str, pairs: list[tuple[Row, Row]], changes: list[Change]) -> Change:
    """The mean of a quantity over rows; the rows of a set share their rounds and their images."""
    values = np.array([change.value for change in changes], dtype=float)
    ratio = name in RATIOS
    value = float(np.exp(np.log(values).mean())) if ratio else float(values.mean())
    drawn = _mean_draws(name, pairs)
    if drawn is None:
        return Change(value, None, any(change.resolved for change in changes) and ratio)
    if not ratio:
        drawn = drawn - drawn.mean() + value
    low, high = interval(drawn)
    enough = all(change.enough for change in changes)
    return Change(value, (low, high), enough and not low <= int(ratio) <= high, enough)


def _mean_draws(name: str, pairs: list[tuple[Row, Row]]) -> np.ndarray | None:
    """Draws of the mean; None where there are none."""
    if name == "latency":
        logs = [
            np.log(_ratio_draws(a.latency, b.latency)) for a, b in pairs if a.latency and b.latency
        ]
        return np.asarray(np.exp(np.mean(logs, axis=0)))
    if name not in DIFFERENCES:
        return None
    kind = DIFFERENCES[name]
    records = [(getattr(a, kind), getattr(b, kind)) for a, b in pairs]
    if len({(len(r.draws), r.drawn_from) for pair in records for r in pair}) > 1:
        return None
    drawn = [100 * np.subtract(b.draws, a.draws) for a, b in records]
    return np.mean(drawn, axis=0) if drawn[0].size else None


# --- whether they compare ----------------------------------------------------------------------


@dataclass(frozen=True)
class Unlike:
    """A condition that is not the same in both sets.

    `work` says that the two did not do the same work, so that a ratio of them means nothing; else
    it is where they ran: what may be asked about.
    """

    what: str
    row: str
    first: str
    second: str
    work: bool


# Conditions of each kind of record: the work itself, and where it was done.
_WORK = {
    "latency": ("variant", "scope", "shape", "batch", "dtype"),
    "cost": ("variant", "shape", "convention", "exact", "rois"),
    "accuracy": ("variant", "dataset", "images", "drawn_from"),
    "masks": ("variant", "dataset", "images", "drawn_from"),
    "recall": ("variant", "dataset", "images", "drawn_from"),
}
_PLACE = {"latency": ("device_name", "engine")}


def unlike(first: Results, second: Results) -> tuple[Unlike, ...]:
    """The conditions that differ between the rows of the same name, those of the work first."""
    ours = {row.name: row for row in second.rows}
    found = []
    for before in first.rows:
        after = ours.get(before.name)
        for kind in _WORK if after else ():
            records = getattr(before, kind), getattr(after, kind)
            if None not in records:
                found += _differing(before.name, kind, *records)
    return tuple(sorted(found, key=lambda item: not item.work))


def _differing(row: str, kind: str, before: object, after: object) -> list[Unlike]:
    found = []
    for work, names in ((True, _WORK[kind]), (False, _PLACE.get(kind, ()))):
        for name in names:
            one, other = getattr(before, name), getattr(after, name)
            # an older record does not say where its draws are from
            if one != other and not (name == "drawn_from" and "" in (one, other)):
                what = f"{kind}'s {name.replace('_', ' ')}"
                found.append(Unlike(what, row, _text(one), _text(other), work))
    return found


def _text(value: object) -> str:
    return "x".join(map(str, value)) if isinstance(value, tuple) else str(value)
