"""Statistics of timing samples and of draws of images: medians, spread, intervals, paired or not.

Samples come in rounds; rounds are the unit that is resampled, because samples of one round share
the machine's mood. numpy only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

Rounds = Sequence[Sequence[float]]
Interval = tuple[float, float]

RESAMPLES = 2000
# With fewer rounds even their whole range covers the median less than 95 % of the time
# (2 / 2^5 of all draws of five lie on one side of it), so no difference is called resolved.
MIN_ROUNDS = 6
# With fewer images the drawn ones are too much like the set for 95 % to be 95 %, so no difference
# of scores is called resolved.
MIN_IMAGES = 30


@dataclass(frozen=True)
class Summary:
    """Location and spread of all samples, in the samples' unit."""

    median: float
    p10: float
    p90: float
    p99: float
    mad: float
    ci95: Interval


def summarise(rounds: Rounds, seed: int = 0) -> Summary:
    """Summarise samples taken in rounds.

    The 95 % interval is that of the median of the round medians, by bootstrap over rounds.

    Raises:
        ValueError: there is no sample.
    """
    samples = np.concatenate([np.asarray(r, dtype=float) for r in rounds] or [np.empty(0)])
    if samples.size == 0:
        raise ValueError("no samples")
    median = float(np.median(samples))
    p10, p90, p99 = (float(p) for p in np.percentile(samples, [10, 90, 99]))
    return Summary(
        median=median,
        p10=p10,
        p90=p90,
        p99=p99,
        mad=float(np.median(np.abs(samples - median))),
        ci95=bootstrap(round_medians(rounds), np.median, seed),
    )


def round_medians(rounds: Rounds) -> np.ndarray:
    """The median of each round, (rounds,)."""
    return np.array([np.median(r) for r in rounds])


def spread(values: np.ndarray) -> float:
    """Relative spread of values: half the 10-90 percentile range over the median."""
    low, mid, high = np.percentile(values, [10, 50, 90])
    return float((high - low) / 2 / mid) if mid > 0 else 0.0


def bootstrap(values: np.ndarray, statistic: Callable[..., np.ndarray], seed: int = 0) -> Interval:
    """95 % percentile interval of a statistic over the first axis of `values`.

    Args:
        values: (rounds, ...), resampled along the first axis.
        statistic: a function with an `axis` argument, such as `numpy.median`.
        seed: of the resampling.
    """
    rng = np.random.default_rng(seed)
    picks = rng.integers(0, len(values), size=(RESAMPLES, len(values)))
    low, high = np.percentile(statistic(values[picks], axis=1), [2.5, 97.5])
    return float(low), float(high)


@dataclass(frozen=True)
class Comparison:
    """A ratio of two variants with its interval.

    `resolved` when the interval leaves out 1 and comes from at least `MIN_ROUNDS` rounds.
    """

    median: float
    ci95: Interval
    p20: float
    p20_ci95: Interval
    resolved: bool


def compare(rounds: Rounds, reference: Rounds, seed: int = 0) -> Comparison:
    """Compare two variants that were timed in the same rounds.

    The main figure is the median over rounds of the ratio of round medians. The cross-check is
    the ratio of the 20th percentiles of all samples, with a paired bootstrap over rounds.

    Raises:
        ValueError: the two do not have the same number of rounds.
    """
    if len(rounds) != len(reference) or not rounds:
        raise ValueError("a comparison needs the same rounds of both")
    ratios = round_medians(rounds) / round_medians(reference)
    low, high = bootstrap(ratios, np.median, seed)
    return Comparison(
        median=float(np.median(ratios)),
        ci95=(low, high),
        p20=_p20(rounds) / _p20(reference),
        p20_ci95=_p20_interval(rounds, reference, seed),
        resolved=len(ratios) >= MIN_ROUNDS and not low <= 1.0 <= high,
    )


def _p20(rounds: Rounds) -> float:
    return float(np.percentile(np.concatenate([np.asarray(r) for r in rounds]), 20))


def _p20_interval(rounds: Rounds, reference: Rounds, seed: int) -> Interval:
    """Rounds of unequal length are cut to the shortest, so that resampling stays rectangular."""
    width = min(len(r) for r in (*rounds, *reference))
    ours = np.array([list(r)[:width] for r in rounds])
    theirs = np.array([list(r)[:width] for r in reference])
    rng = np.random.default_rng(seed)
    picks = rng.integers(0, len(ours), size=(RESAMPLES, len(ours)))

    def p20(values: np.ndarray) -> np.ndarray:
        return np.asarray(np.percentile(values[picks].reshape(RESAMPLES, -1), 20, axis=1))

    low, high = np.percentile(p20(ours) / p20(theirs), [2.5, 97.5])
    return float(low), float(high)


def centred(drawn: np.ndarray, value: float) -> Interval | None:
    """The middle 95 % of draws, moved so that their mean lies on the value itself.

    A score of drawn images is biased, since some of them are the same; its spread is not.

    Args:
        drawn: (resamples,); NaN where a draw has no value, which is left out.
        value: on the whole set; NaN if there is none, and then there is no interval.
    """
    known = drawn[~np.isnan(drawn)]
    if known.size == 0 or np.isnan(value):
        return None
    low, high = np.percentile(known, [2.5, 97.5]) - known.mean() + value
    return float(low), float(high)


def median_draws(rounds: Rounds, seed: int = 0) -> np.ndarray:
    """The median of the round medians on draws of the rounds, (RESAMPLES,).

    The same seed draws the same rounds for every variant that was timed in as many.
    """
    values = round_medians(rounds)
    rng = np.random.default_rng(seed)
    picks = rng.integers(0, len(values), size=(RESAMPLES, len(values)))
    return np.asarray(np.median(values[picks], axis=1))


def interval(drawn: np.ndarray) -> Interval:
    """The middle 95 % of draws."""
    low, high = np.percentile(drawn, [2.5, 97.5])
    return float(low), float(high)
