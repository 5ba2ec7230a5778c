"""Two sets of results row by row: ratios of latency and cost, differences of AP, with intervals.

Two runs share no rounds: the interval of a latency ratio is over the rounds of each run, drawn
apart from each other. What changed between the runs (clocks, temperature, neighbours) is not in it.
Detections on the same set share its images: the interval of an AP difference is over the same
draws of both.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from sepcbench.differences import difference
from sepcbench.records import Failure, Latency, Results, Row
from sepcbench.report.changes import (
    Change,
    Timed,
    by_case,
    latency_change,
    latency_draws,
    ratio_change,
    ratio_draws,
)
from sepcbench.report.further import MORE, Conditions, conditions, further, written
from sepcbench.report.timing_tables import place
from sepcbench.report.trainings import FIELDS, value_text
from sepcbench.stats import MIN_IMAGES, interval

# What is compared: a ratio second over first, or a difference in percentage points.
RATIOS = ("latency", "latency_ratio", "macs", "params")
DIFFERENCES = {"ap": "accuracy", "mask_ap": "masks", "ar1000": "recall"}
QUANTITIES = (*RATIOS, *DIFFERENCES)
TIMES = ("latency", "latency_ratio")
MEASURES = {**dict.fromkeys(TIMES, "latency"), "macs": "cost", "params": "cost", **DIFFERENCES}


@dataclass(frozen=True)
class RowChange:
    """All quantities of a row that is in both sets."""

    row: str
    label: str
    changes: tuple[tuple[str, Change], ...]


@dataclass(frozen=True)
class TimingChange:
    """The latency of a row under conditions that both sets have, beside those of the suite."""

    row: str
    label: str
    engine: str
    dtype: str
    batch: int
    changes: tuple[tuple[str, Change], ...]

    @property
    def name(self) -> str:
        """As its record's file: "fpn@folded-fp32-1"."""
        return f"{self.row}{MORE}{written((self.engine, self.dtype, self.batch))}"


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
        timings: latencies under further conditions, matched by engine, dtype and batch.
    """

    first: str
    second: str
    rows: tuple[RowChange, ...]
    mean: tuple[tuple[str, Change], ...]
    only_first: tuple[str, ...] = ()
    only_second: tuple[str, ...] = ()
    timings: tuple[TimingChange, ...] = ()


@dataclass(frozen=True)
class _Pair:
    """A row of both sets, and all latencies of each, to which ratios are taken."""

    before: Row
    after: Row
    latencies: tuple[Mapping[str, Latency], Mapping[str, Latency]]

    @property
    def timed(self) -> tuple[Timed, Timed] | None:
        one, other = self.before.latency, self.after.latency
        return None if one is None or other is None else self.of(one, other)

    def of(self, one: Latency, other: Latency) -> tuple[Timed, Timed]:
        return Timed(one, self.latencies[0]), Timed(other, self.latencies[1])


def compare(first: Results, second: Results) -> Compared:
    """Compare the rows of the same name; whether they compare is said by `unlike`."""
    ours = {row.name: row for row in second.rows if row.variant}
    theirs = {row.name: row for row in first.rows if row.variant}
    latencies = by_case(first), by_case(second)
    pairs = [_Pair(row, ours[name], latencies) for name, row in theirs.items() if name in ours]
    changes = [(pair.after, _changes(pair)) for pair in pairs]
    return Compared(
        first=_name(first),
        second=_name(second),
        rows=tuple(RowChange(row.name, row.label, found) for row, found in changes if found),
        mean=_means(pairs, [dict(found) for _, found in changes]),
        only_first=tuple(name for name in theirs if name not in ours),
        only_second=tuple(name for name in ours if name not in theirs),
        timings=tuple(change for pair in pairs for change in _timings(pair)),
    )


def _name(results: Results) -> str:
    commit = results.environment.git_commit if results.environment else None
    return f"{results.suite} ({results.machine}{f', {commit[:12]}' if commit else ''})"


def _changes(pair: _Pair) -> tuple[tuple[str, Change], ...]:
    found = []
    for name in QUANTITIES:
        lost = _lost(name, pair.before, pair.after)
        change = Change(None, failed=lost) if lost else _change(name, pair)
        if change is not None:
            found.append((name, change))
    return tuple(found)


def _lost(name: str, before: Row, after: Row) -> str:
    """Why a quantity that the first set has is missing in the second: it failed there."""
    kind = MEASURES[name]
    if getattr(before, kind) is None or getattr(after, kind) is not None:
        return ""
    if name == "latency_ratio" and before.latency and before.latency.ratio is None:
        return ""
    failures: list[Failure] = [f for f in after.failures if f.measure == kind]
    return failures[0].reason if failures else ""


def _change(name: str, pair: _Pair) -> Change | None:
    if name in TIMES:
        return _time(name, *pair.timed) if pair.timed else None
    before, after = pair.before, pair.after
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


def _time(name: str, before: Timed, after: Timed) -> Change | None:
    if name == "latency":
        return latency_change(before.record, after.record)
    return ratio_change(before, after)


def _times(before: Timed, after: Timed) -> tuple[tuple[str, Change], ...]:
    found = ((name, _time(name, before, after)) for name in TIMES)
    return tuple((name, change) for name, change in found if change is not None)


def _timings(pair: _Pair) -> Iterator[TimingChange]:
    """Latencies under conditions that both have, but for the pair that `_changes` compares."""
    failed = further(pair.after, "latency")
    for under, (one, other) in matched_timings(pair.before, pair.after).items():
        failure = failed.get(written(under))
        changes: tuple[tuple[str, Change], ...] = ()
        if other is not None:
            changes = _times(*pair.of(one, other))
        elif isinstance(failure, Failure):
            changes = (("latency", Change(None, failed=failure.reason)),)
        if changes:
            yield TimingChange(pair.after.name, pair.after.label, *under, changes)


def matched_timings(before: Row, after: Row) -> dict[Conditions, tuple[Latency, Latency | None]]:
    """The first's latencies by engine, dtype and batch, each with the second's or None.

    Without those that are what the suite says in both sets.
    """
    theirs, ours = (
        {conditions(one): one for one in (row.latency, *row.timings) if one}
        for row in (before, after)
    )
    own = [row.latency and conditions(row.latency) for row in (before, after)]
    ordered = sorted(theirs.items(), key=lambda item: (item[1].batch, place(item[1])))
    return {
        under: (record, ours.get(under))
        for under, record in ordered
        if not under == own[0] == own[1]
    }


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


def _means(pairs: list[_Pair], changes: list[dict[str, Change]]) -> tuple[tuple[str, Change], ...]:
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


def _mean(name: str, pairs: list[_Pair], changes: list[Change]) -> Change:
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


def _mean_draws(name: str, pairs: list[_Pair]) -> np.ndarray | None:
    """Draws of the mean; None where there are none."""
    if name in TIMES:
        found = [_time_draws(name, *pair.timed) for pair in pairs if pair.timed]
        known = [np.log(drawn) for drawn in found if drawn is not None]
        return np.asarray(np.exp(np.mean(known, axis=0))) if len(known) == len(found) else None
    if name not in DIFFERENCES:
        return None
    kind = DIFFERENCES[name]
    records = [(getattr(pair.before, kind), getattr(pair.after, kind)) for pair in pairs]
    if len({(len(r.draws), r.drawn_from) for pair in records for r in pair}) > 1:
        return None
    drawn = [100 * np.subtract(b.draws, a.draws) for a, b in records]
    return np.mean(drawn, axis=0) if drawn[0].size else None


def _time_draws(name: str, before: Timed, after: Timed) -> np.ndarray | None:
    if name == "latency":
        return latency_draws(before.record, after.record)
    return ratio_draws(before, after)


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
_PLACE = {"latency": ("device_name", "engine", "tf32")}
# What older records do not say is not another condition.
_UNSAID = {"drawn_from": "", "tf32": None}


def unlike(first: Results, second: Results) -> tuple[Unlike, ...]:
    """The conditions that differ between the rows of the same name, those of the work first."""
    ours = {row.name: row for row in second.rows}
    found = []
    for before in first.rows:
        after = ours.get(before.name)
        if after is None:
            continue
        for kind in _WORK:
            records = getattr(before, kind), getattr(after, kind)
            if None not in records:
                found += _differing(before.name, kind, *records)
        found += _trained(before, after)
        for under, (one, other) in matched_timings(before, after).items():
            if other is not None:
                found += _differing(f"{before.name}{MORE}{written(under)}", "latency", one, other)
        if before.latency and after.latency and first.machine != second.machine:
            what = "latency's machine"
            found.append(Unlike(what, before.name, first.machine, second.machine, False))
    return tuple(sorted(found, key=lambda item: not item.work))


def _trained(before: Row, after: Row) -> list[Unlike]:
    """In what the trainings behind two scores differ: it may be asked about, and is said."""
    one, other = before.training, after.training
    scored = any(getattr(before, kind) and getattr(after, kind) for kind in DIFFERENCES.values())
    if one is None or other is None or not scored:
        return []
    found = []
    for name in FIELDS:
        was, now = getattr(one, name), getattr(other, name)
        if was != now:
            what = f"training's {name.replace('_', ' ')}"
            found.append(Unlike(what, before.name, value_text(was), value_text(now), False))
    return found


def _differing(row: str, kind: str, before: object, after: object) -> list[Unlike]:
    found = []
    for work, names in ((True, _WORK[kind]), (False, _PLACE.get(kind, ()))):
        for name in names:
            one, other = getattr(before, name), getattr(after, name)
            if one != other and not (name in _UNSAID and _UNSAID[name] in (one, other)):
                what = f"{kind}'s {name.replace('_', ' ')}"
                found.append(Unlike(what, row, _text(one), _text(other), work))
    return found


def _text(value: object) -> str:
    return "x".join(map(str, value)) if isinstance(value, tuple) else str(value)
