"""What became of a quantity between two sets of results, and of latencies in two ways.

Two machines differ in every absolute time. What is like for like is how many times slower a row is
than the first one of its own set: the ratio of those ratios says whether a row lost or gained
against the others. Rounds of a set are drawn together for a row and the one it is compared to.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from sepcbench.records import Latency, Results
from sepcbench.report.further import MORE, conditions, written
from sepcbench.stats import MIN_ROUNDS, Interval, interval, median_draws, round_medians


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
class Timed:
    """A latency, and all of its set by the names that ratios call them."""

    record: Latency
    others: Mapping[str, Latency]


def by_case(results: Results) -> dict[str, Latency]:
    """All latencies of a set: "fpn", and "fpn@folded-fp32-1" under further conditions."""
    found = {row.name: row.latency for row in results.rows if row.latency}
    for row in results.rows:
        for record in row.timings:
            found[f"{row.name}{MORE}{written(conditions(record))}"] = record
    return found


def latency_change(before: Latency, after: Latency) -> Change:
    """How many times as long the second takes."""
    value = _centre(after) / _centre(before)
    return _with_interval(value, latency_draws(before, after), _rounds(before, after))


def latency_draws(before: Latency, after: Latency) -> np.ndarray:
    """The ratio on draws of the rounds of each, (draws,)."""
    drawn: np.ndarray = median_draws(after.samples_s, 1) / median_draws(before.samples_s, 0)
    return drawn


def ratio_change(before: Timed, after: Timed) -> Change | None:
    """How many times as large the second's ratio to its first row is.

    None where one of them has no ratio, or it is to another row.
    """
    one, other = before.record.ratio, after.record.ratio
    if one is None or other is None or one.to != other.to:
        return None
    value = other.median / one.median
    drawn = ratio_draws(before, after)
    if drawn is None:
        return Change(value, None, False, enough=False)
    return _with_interval(value, drawn, _rounds(before.record, after.record))


def ratio_draws(before: Timed, after: Timed) -> np.ndarray | None:
    """The ratio of ratios on draws of the rounds of each, (draws,); None without paired rounds."""
    ratios = [_round_ratios(one) for one in (before, after)]
    if ratios[0] is None or ratios[1] is None:
        return None
    first, second = (
        median_draws(values[:, None].tolist(), seed)
        for seed, values in enumerate(ratios)
        if values is not None
    )
    return np.asarray(second / first)


def _round_ratios(timed: Timed) -> np.ndarray | None:
    """The ratio to the first row, round by round; None where that one's rounds are not the same.

    They are other ones where it was measured again on its own.
    """
    record, ratio = timed.record, timed.record.ratio
    reference = timed.others.get(ratio.to) if ratio else None
    if ratio is None or reference is None or len(reference.samples_s) != len(record.samples_s):
        return None
    values = round_medians(record.samples_s) / round_medians(reference.samples_s)
    same = math.isclose(float(np.median(values)), ratio.median, rel_tol=1e-6)
    return values if same else None


def _with_interval(value: float, drawn: np.ndarray, rounds: int) -> Change:
    low, high = interval(drawn)
    enough = rounds >= MIN_ROUNDS
    return Change(value, (low, high), enough and not low <= 1 <= high, enough)


def _rounds(*records: Latency) -> int:
    return min(len(record.samples_s) for record in records)


def _centre(record: Latency) -> float:
    return float(np.median(round_medians(record.samples_s)))
