"""Two sets of results against each other: ratios, differences, limits, unlike conditions."""

import dataclasses

import numpy as np
import pytest
from unit.make import accuracy, cost, latency, results

from sepcbench.errors import UsageError
from sepcbench.records import Failure, Recall, Row
from sepcbench.report.compare import compare, unlike
from sepcbench.report.compare_table import broken, compare_table, environment_changes, read_limit

ROUNDS = 30


def timed(factor=1.0, noise=0.01, rounds=ROUNDS, seed=0, **more):
    rng = np.random.default_rng(seed)
    samples = 0.1 * factor * (1 + noise * rng.standard_normal((rounds, 3)))
    record = dataclasses.replace(latency(), samples_s=tuple(map(tuple, samples.tolist())))
    return dataclasses.replace(record, median_s=float(np.median(samples)), **more)


def scored(ap, images=100, seed=0, own=0.001, where="here"):
    shared = np.random.default_rng(0).standard_normal(500)
    drawn = ap + 0.03 * shared + own * np.random.default_rng(seed).standard_normal(500)
    return dataclasses.replace(
        accuracy("v", ap), images=images, draws=tuple(drawn.tolist()), drawn_from=where
    )


def one(name="a", **records):
    return Row(name, f"Row {name}", "v", **records)


def suite(*rows, **more):
    return dataclasses.replace(results(), rows=rows, **more)


def change(first, second, quantity):
    """The change of a row between two sets that hold it alone."""
    return dict(compare(suite(first), suite(second)).rows[0].changes)[quantity]


def test_a_ratio_of_latencies_lies_in_an_interval_that_holds_the_true_one():
    found = change(one(latency=timed(1.0)), one(latency=timed(1.1, seed=1)), "latency")
    assert found.value == pytest.approx(1.1, rel=0.01)
    assert found.ci95[0] < 1.1 < found.ci95[1]
    assert found.resolved


def test_the_interval_holds_the_true_ratio_in_about_95_of_100_pairs_of_runs():
    held = 0
    for i in range(100):
        pair = one(latency=timed(1.0, 0.05, seed=i)), one(latency=timed(1.02, 0.05, seed=1000 + i))
        low, high = change(*pair, "latency").ci95
        held += low < 1.02 < high
    assert held >= 88  # 3 standard deviations below 95


def test_the_same_speed_is_not_resolved():
    found = change(one(latency=timed(seed=1)), one(latency=timed(seed=2)), "latency")
    assert not found.resolved
    assert found.ci95[0] < 1 < found.ci95[1]


def test_few_rounds_resolve_nothing():
    pair = one(latency=timed(rounds=5)), one(latency=timed(2.0, rounds=5))
    found = change(*pair, "latency")
    assert (found.resolved, found.enough) == (False, False)


def test_counts_are_exact():
    first, second = one(cost=cost(total=100_000)), one(cost=cost(total=100_004))
    assert change(first, second, "macs").value == pytest.approx(1.00004)
    assert change(first, second, "macs").resolved
    assert not change(first, second, "params").resolved
    cells = compare_table(compare(suite(first), suite(second)), ()).rows[0]
    assert cells == ("Row a", "1.0000", "=")


def test_a_difference_of_ap_is_paired():
    """0.5 points are shown, though AP itself spreads by 6 points both ways."""
    found = change(one(accuracy=scored(0.3)), one(accuracy=scored(0.305, seed=1)), "ap")
    assert found.value == pytest.approx(0.5)
    assert 0 < found.ci95[0] < 0.5 < found.ci95[1] < 1
    assert found.resolved


def test_a_difference_without_draws_or_on_other_images_has_no_interval():
    bare = dataclasses.replace(scored(0.4), draws=())
    other = scored(0.4, where="elsewhere")
    for second in (bare, other):
        found = change(one(accuracy=scored(0.3)), one(accuracy=second), "ap")
        assert (found.value, found.ci95, found.resolved) == (pytest.approx(10), None, False)


def test_recall_and_masks_are_compared_too():
    proposals = Recall("v", "val", 100, 9, None, 0.4, 0.5, 0.2, 0.4, 0.6)
    more = dataclasses.replace(proposals, ar1000=0.52)
    masks = dataclasses.replace(scored(0.2), task="segm")
    found = compare(
        suite(one(recall=proposals), one("b", masks=masks)),
        suite(one(recall=more), one("b", masks=dataclasses.replace(masks, ap=0.21))),
    )
    assert dict(found.rows[0].changes)["ar1000"].value == pytest.approx(2)
    assert dict(found.rows[1].changes)["mask_ap"].value == pytest.approx(1)


def test_the_mean_over_rows_is_geometric_and_sharper_than_a_row():
    first = suite(*(one(n, latency=timed(seed=i)) for i, n in enumerate("abcd")))
    second = suite(*(one(n, latency=timed(f, seed=9 + i)) for i, (n, f) in enumerate(FACTORS)))
    found = compare(first, second)
    mean = dict(found.mean)["latency"]
    assert mean.value == pytest.approx((2 * 0.5 * 1.1 * 1.1) ** 0.25, rel=0.01)
    widths = [np.subtract(*dict(r.changes)["latency"].ci95[::-1]) for r in found.rows]
    assert np.subtract(*mean.ci95[::-1]) < min(widths[2:])


FACTORS = (("a", 2.0), ("b", 0.5), ("c", 1.1), ("d", 1.1))


def test_rows_of_one_set_alone_are_named_and_published_ones_left_out():
    first = suite(one("a", cost=cost()), one("b", cost=cost()), Row("r", "R", ""))
    second = suite(one("a", cost=cost()), one("c", cost=cost()))
    found = compare(first, second)
    assert (found.only_first, found.only_second) == (("b",), ("c",))
    assert [row.row for row in found.rows] == ["a"]
    notes = compare_table(found, ()).notes
    assert "Only in the first set: b." in notes
    assert "Only in the second set: c." in notes


# --- limits ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "factor", "outcome"),
    [
        ("latency>1.03", 1.10, [True]),
        ("latency>1.03", 1.031, [False]),  # beyond, but its interval is not
        ("latency>1.03", 1.00, []),
        ("latency<0.95", 0.80, [True]),
        (" latency > 1.03 ", 1.10, [True]),
    ],
)
def test_a_row_breaks_a_limit_with_its_whole_interval(text, factor, outcome):
    pair = suite(one(latency=timed(seed=1))), suite(one(latency=timed(factor, 0.02, seed=1)))
    assert [item.resolved for item in broken(compare(*pair), read_limit(text))] == outcome


def test_limits_of_counts_and_of_ap():
    first = suite(one(cost=cost(total=100_000), accuracy=scored(0.3)))
    second = suite(one(cost=cost(total=100_001), accuracy=scored(0.29, seed=1)))
    found = compare(first, second)
    assert [b.resolved for b in broken(found, read_limit("macs>1"))] == [True]
    assert broken(found, read_limit("params>1")) == []
    assert [b.resolved for b in broken(found, read_limit("ap<-0.5"))] == [True]
    assert broken(found, read_limit("ap<-2")) == []


def test_ap_without_draws_or_of_few_images_never_breaks_a_limit_for_sure():
    for second in (dataclasses.replace(scored(0.2), draws=()), scored(0.2, images=20)):
        pair = suite(one(accuracy=scored(0.3, second.images))), suite(one(accuracy=second))
        assert [b.resolved for b in broken(compare(*pair), read_limit("ap<-0.5"))] == [False]


def test_a_measure_that_failed_in_the_second_set_breaks_its_limit():
    second = suite(one(failures=(Failure("v", "latency", "out of memory"),), cost=cost()))
    found = compare(suite(one(latency=timed(), cost=cost())), second)
    assert [b.resolved for b in broken(found, read_limit("latency>9"))] == [True]
    assert broken(found, read_limit("macs>9")) == []
    table = compare_table(found, ())
    assert "failed" in table.rows[0]
    assert any("out of memory" in note for note in table.notes)


def test_a_limit_that_guards_nothing_is_refused():
    found = compare(suite(one(cost=cost())), suite(one(cost=cost())))
    with pytest.raises(UsageError, match="no row of both sets has this quantity"):
        broken(found, read_limit("latency>1.03"))


@pytest.mark.parametrize("text", ["latency", "latency>", "latency=1", ">1", "latency>fast", ""])
def test_what_is_no_limit_is_refused(text):
    with pytest.raises(UsageError, match="is not QUANTITY>NUMBER"):
        read_limit(text)


def test_an_unknown_quantity_names_the_nearest():
    with pytest.raises(UsageError, match="latency"):
        read_limit("latencies>1")


# --- conditions --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value", "work"),
    [
        ("shape", (64, 64), True),
        ("batch", 8, True),
        ("dtype", "fp16", True),
        ("scope", "neck", True),
        ("variant", "w", True),
        ("device_name", "another", False),
        ("engine", "compiled", False),
    ],
)
def test_unlike_latencies_are_found(field, value, work):
    second = suite(one(latency=timed(**{field: value})))
    found = unlike(suite(one(latency=timed())), second)
    assert [(item.row, item.work) for item in found] == [("a", work)]
    assert field.replace("_", " ") in found[0].what
    notes = compare_table(compare(suite(one(latency=timed())), second), found).notes
    assert any(note.startswith("Unlike: ") for note in notes)


def test_unlike_counting_and_data_are_found():
    first = one(cost=cost(), accuracy=scored(0.3))
    exact = dataclasses.replace(cost(), exact=True)
    assert [u.what for u in unlike(suite(first), suite(one(cost=exact)))] == ["cost's exact"]
    elsewhere = one(accuracy=scored(0.3, where="elsewhere"))
    assert [u.work for u in unlike(suite(first), suite(elsewhere))] == [True]
    older = one(accuracy=accuracy("v", 0.3))
    assert unlike(suite(first), suite(older)) == ()
    assert unlike(suite(first), suite(first)) == ()


def test_environments_are_told_apart():
    before = results().environment
    after = dataclasses.replace(before, threads=8, versions=(("torch", "1"),), git_commit="abc")
    (line,) = environment_changes(before, after)
    assert "threads 2 -> 8" in line
    assert "torch 0 -> 1" in line
    assert "git commit None -> abc" in line
    assert environment_changes(before, before) == []
    assert environment_changes(None, before) == []
