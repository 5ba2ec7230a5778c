"""Statistics of timing samples, of draws of images and of seeds: location, spread, intervals.

Samples come in rounds; rounds are the unit that is resampled, because samples of one round share
the machine's mood. numpy only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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


# --- over seeds ------------------------------------------------------------------------------

# 97.5 % quantiles of Student's t with 1 to 30 degrees of freedom (any table of them).
_T = (
    12.706205, 4.302653, 3.182446, 2.776445, 2.570582, 2.446912, 2.364624, 2.306004, 2.262157,
    2.228139, 2.200985, 2.178813, 2.160369, 2.144787, 2.131450, 2.119905, 2.109816, 2.100922,
    2.093024, 2.085963, 2.079614, 2.073873, 2.068658, 2.063899, 2.059539, 2.055529, 2.051831,
    2.048407, 2.045230, 2.042272,
)  # fmt: skip
_NORMAL = 1.959963984540054  # the same quantile of the normal distribution


@dataclass(frozen=True)
class SeedMean:
    """A score over seeds: mean, 95 % t interval of it (None for one seed), and how many seeds."""

    mean: float
    ci95: Interval | None
    seeds: int


@dataclass(frozen=True)
class SeedDifference:
    """How far one row's score is above another's over the seeds that both have.

    `resolved` says whether the 95 % interval leaves out 0.
    """

    delta: float
    ci95: Interval | None
    seeds: int
    resolved: bool


def t_quantile(freedom: int) -> float:
    """97.5 % quantile of Student's t; beyond the table by Abramowitz and Stegun, 26.7.5.

    Raises:
        ValueError: less than one degree of freedom.
    """
    if freedom < 1:
        raise ValueError("a t quantile needs at least one degree of freedom")
    if freedom <= len(_T):
        return _T[freedom - 1]
    x, n = _NORMAL, freedom
    first = (x**3 + x) / 4
    second = (5 * x**5 + 16 * x**3 + 3 * x) / 96
    third = (3 * x**7 + 19 * x**5 + 17 * x**3 - 15 * x) / 384
    return x + first / n + second / n**2 + third / n**3


def t_interval(values: Sequence[float]) -> Interval | None:
    """95 % interval of the mean of values drawn independently; None for fewer than two."""
    if len(values) < 2:
        return None
    mean, sigma = float(np.mean(values)), float(np.std(values, ddof=1))
    half = t_quantile(len(values) - 1) * sigma / len(values) ** 0.5
    return mean - half, mean + half


def over_seeds(scores: Mapping[int, float]) -> SeedMean:
    """The mean of a score over seeds and its interval.

    Args:
        scores: by seed.

    Raises:
        ValueError: there is none.
    """
    if not scores:
        raise ValueError("no seeds")
    values = list(scores.values())
    return SeedMean(float(np.mean(values)), t_interval(values), len(values))


def seed_difference(ours: Mapping[int, float], theirs: Mapping[int, float]) -> SeedDifference:
    """The mean difference of two rows, seed by seed, and its interval.

    Rows of one seed share the order of images and the flips, so their scores are paired.

    Raises:
        ValueError: no seed is in both.
    """
    deltas = {seed: ours[seed] - theirs[seed] for seed in sorted(ours.keys() & theirs.keys())}
    found = over_seeds(deltas)
    resolved = found.ci95 is not None and not found.ci95[0] <= 0 <= found.ci95[1]
    return SeedDifference(found.mean, found.ci95, found.seeds, resolved)
