"""Statistics: known answers, and intervals that cover the truth."""

import numpy as np
import pytest

from sepcbench.stats import (
    bootstrap,
    compare,
    over_seeds,
    round_medians,
    seed_difference,
    spread,
    summarise,
    t_quantile,
)


def test_summary_of_known_samples():
    samples = list(range(1, 102))  # 1..101
    found = summarise([samples[:50], samples[50:]])
    assert found.median == 51
    assert (found.p10, found.p90, found.p99) == (11, 91, 100)
    assert found.mad == 25
    assert found.ci95[0] <= found.ci95[1]


def test_summary_of_one_sample():
    found = summarise([[2.0]])
    assert (found.median, found.p10, found.p99, found.mad) == (2, 2, 2, 0)
    assert found.ci95 == (2, 2)


@pytest.mark.parametrize("rounds", [[], [[]]])
def test_no_samples_is_an_error(rounds):
    with pytest.raises(ValueError, match="no samples"):
        summarise(rounds)


def test_outliers_do_not_move_the_median():
    calm = [[1.0, 1.0, 1.0]] * 9
    assert summarise([*calm, [1.0, 1.0, 100.0]]).median == 1
    assert summarise([*calm, [1.0, 1.0, 100.0]]).ci95 == (1, 1)


def test_round_medians():
    assert round_medians([[1, 2, 9], [4, 6]]).tolist() == [2, 5]


def test_spread():
    assert spread(np.array([2.0, 2.0, 2.0])) == 0
    assert spread(np.linspace(90, 110, 101)) == pytest.approx(0.08)  # (108 - 92) / 2 / 100


def test_bootstrap_is_repeatable_and_follows_the_seed():
    values = np.random.default_rng(0).normal(size=40)
    assert bootstrap(values, np.median, 1) == bootstrap(values, np.median, 1)
    assert bootstrap(values, np.median, 1) != bootstrap(values, np.median, 2)


def test_bootstrap_of_the_mean_matches_the_normal_interval():
    values = np.random.default_rng(3).normal(10, 2, size=400)
    low, high = bootstrap(values, np.mean)
    half = 1.96 * values.std() / 20
    assert low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert high == pytest.approx(values.mean() + half, abs=0.1 * half)


def test_ratio_to_itself_is_one_and_unresolved():
    rounds = [[1.0, 2.0], [3.0, 5.0], [2.0, 2.0]]
    found = compare(rounds, rounds)
    assert (found.median, found.ci95, found.p20, found.p20_ci95) == (1, (1, 1), 1, (1, 1))
    assert not found.resolved


def test_ratio_of_known_samples():
    reference = [[1.0, 1.0], [2.0, 2.0], [4.0, 4.0]] * 2
    double = [[2 * x for x in taken] for taken in reference]
    found = compare(double, reference)
    assert (found.median, found.ci95, found.p20) == (2, (2, 2), 2)
    assert found.resolved


@pytest.mark.parametrize(("rounds", "resolved"), [(1, False), (5, False), (6, True)])
def test_few_rounds_resolve_nothing(rounds, resolved):
    assert compare([[2.0]] * rounds, [[1.0]] * rounds).resolved == resolved


def test_rounds_of_unequal_length_are_compared():
    found = compare([[2.0, 2.0, 2.0], [2.0]], [[1.0], [1.0, 1.0]])
    assert (found.median, found.p20, found.p20_ci95) == (2, 2, (2, 2))


@pytest.mark.parametrize("reference", [[], [[1.0]]])
def test_different_rounds_are_an_error(reference):
    with pytest.raises(ValueError, match="same rounds"):
        compare([[1.0], [1.0]] if reference else [], reference)


def machine(rng, rounds, samples, ratio, interleaved):
    """Two variants on a machine whose speed drifts by 30 % and has bursts of load."""
    steps = 2 * rounds
    drift = np.exp(np.cumsum(rng.normal(0, 0.03, steps)))
    drift *= 1 + 0.5 * (rng.random(steps) < 0.1)
    if interleaved:
        first, second = drift[0::2], drift[1::2]
    else:
        first, second = drift[:rounds], drift[rounds:]
    noise = rng.lognormal(0, 0.05, (2, rounds, samples))
    return ratio * second[:, None] * noise[0], first[:, None] * noise[1]


def coverage(interleaved, trials=100, ratio=1.03):
    rng = np.random.default_rng(7)
    hits = 0
    for trial in range(trials):
        ours, theirs = machine(rng, 50, 5, ratio, interleaved)
        low, high = compare(ours.tolist(), theirs.tolist(), seed=trial).ci95
        hits += low <= ratio <= high
    return hits / trials


def test_interval_covers_the_truth_when_interleaved():
    assert coverage(interleaved=True) >= 0.88


def test_interval_misses_the_truth_when_timed_one_after_the_other():
    """Why rounds are interleaved: the same noise, in sequence, is taken for a difference."""
    assert coverage(interleaved=False) < 0.6


# From printed tables of Student's t (two-sided 95 %).
@pytest.mark.parametrize(
    ("freedom", "quantile"),
    [(1, 12.706), (2, 4.303), (4, 2.776), (9, 2.262), (29, 2.045), (40, 2.021), (60, 2.000),
     (120, 1.980), (10**9, 1.960)],
)  # fmt: skip
def test_t_quantiles_are_those_of_printed_tables(freedom, quantile):
    assert t_quantile(freedom) == pytest.approx(quantile, abs=5e-4)


def test_t_quantiles_fall_smoothly_from_the_table_to_the_formula():
    values = [t_quantile(n) for n in range(25, 40)]
    steps = np.diff(values)
    assert (steps < 0).all()
    assert (np.diff(steps) > 0).all()
    with pytest.raises(ValueError, match="degree of freedom"):
        t_quantile(0)


def test_the_mean_over_seeds_has_students_interval():
    """Student's sleep data (1908), drug 2: mean 2.33, standard deviation 2.002."""
    sleep = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]
    found = over_seeds(dict(enumerate(sleep)))
    assert (found.mean, found.seeds) == (pytest.approx(2.33), 10)
    assert found.ci95 == pytest.approx((0.8976775, 3.7623225))
    assert over_seeds({0: 0.4}).ci95 is None
    with pytest.raises(ValueError, match="no seeds"):
        over_seeds({})


def test_a_difference_is_taken_seed_by_seed():
    """Student's sleep data, paired: 1.58, interval 0.7001 to 2.4599."""
    first = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
    second = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]
    found = seed_difference(dict(enumerate(second)), dict(enumerate(first)))
    assert found.delta == pytest.approx(1.58)
    assert found.ci95 == pytest.approx((0.7001142, 2.4598858))
    assert found.resolved
    assert not seed_difference({0: 0.4, 1: 0.41}, {0: 0.3, 1: 0.39, 2: 0.2}).resolved
    alone = seed_difference({0: 0.4, 2: 0.5}, {0: 0.3, 1: 0.2})
    assert (alone.seeds, alone.ci95, alone.resolved) == (1, None, False)
    with pytest.raises(ValueError, match="no seeds"):
        seed_difference({0: 0.1}, {1: 0.1})
