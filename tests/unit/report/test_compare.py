"""Two sets of results against each other: ratios, differences, limits, unlike conditions."""

import dataclasses

import numpy as np
import pytest
from unit.make import accuracy, cost, latency, results

from sepcbench import stats
from sepcbench.errors import UsageError
from sepcbench.records import Failure, Ratio, Recall, Row
from sepcbench.report.compare import compare, unlike
from sepcbench.report.compare_table import (
    broken,
    compare_table,
    environment_changes,
    read_limit,
    timing_table,
)

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


# --- two machines ------------------------------------------------------------------------------


def record_of(samples, ratio_to=None, **more):
    made = dataclasses.replace(timed(**more), samples_s=tuple(map(tuple, samples.tolist())))
    if ratio_to is None:
        return made
    found = stats.compare(samples.tolist(), ratio_to.tolist())
    ratio = Ratio("a", found.median, found.ci95, found.p20, found.p20_ci95, found.resolved)
    return dataclasses.replace(made, ratio=ratio)


def machine(speed, slower, seed=0, mood=0.2, noise=0.01, name="m", **more):
    """Row b takes `slower` times as long as a; the mood of a round is both's, noise each's own."""
    rng = np.random.default_rng(seed)
    shared = speed * (1 + mood * rng.random((ROUNDS, 1)))
    a, b = (shared * f * (1 + noise * rng.standard_normal((ROUNDS, 3))) for f in (1, slower))
    first = record_of(a, device_name=name, **more)
    rows = one("a", latency=first), one("b", latency=record_of(b, a, device_name=name, **more))
    return suite(*rows, machine=name)


def relative(first, second):
    return dict(compare(first, second).rows[1].changes).get("latency_ratio")


def test_of_two_machines_the_ratios_to_their_first_rows_compare():
    slow, fast = machine(1.0, 1.1, 0), machine(0.05, 1.21, 1, name="n")
    found = compare(slow, fast)
    assert "latency_ratio" not in dict(found.rows[0].changes)  # it is what ratios are to
    change = dict(found.rows[1].changes)["latency_ratio"]
    assert change.value == pytest.approx(1.1, rel=0.01)
    assert change.ci95[0] < 1.1 < change.ci95[1]
    assert change.resolved
    absolute = dict(found.rows[1].changes)["latency"]
    assert absolute.value == pytest.approx(0.055, rel=0.1)
    # the moods of rounds are in the times and not in the ratios
    widths = [(c.ci95[1] - c.ci95[0]) / c.value for c in (change, absolute)]
    assert widths[0] < widths[1] / 3
    assert [b.resolved for b in broken(found, read_limit("latency_ratio>1.03"))] == [True]


def test_the_same_ratio_on_two_machines_is_not_resolved():
    change = relative(machine(1.0, 1.1, 2), machine(0.05, 1.1, 3))
    assert not change.resolved
    assert change.ci95[0] < 1 < change.ci95[1]


def test_the_interval_holds_the_true_ratio_of_ratios_in_about_95_of_100_pairs():
    held = 0
    for i in range(100):
        low, high = relative(machine(1, 1.1, i), machine(0.1, 1.133, 1000 + i)).ci95
        held += low < 1.03 < high
    assert held >= 88  # 3 standard deviations below 95


def test_a_ratio_whose_first_row_was_measured_again_has_no_interval():
    """Its rounds are other ones than those that the ratio is of."""
    first, second = machine(1.0, 1.1, 0), machine(1.0, 1.2, 1)
    again = dataclasses.replace(second, rows=(machine(1.0, 1.2, 5).rows[0], second.rows[1]))
    change = relative(first, again)
    assert change.value == pytest.approx(1.2 / 1.1, rel=0.01)
    assert (change.ci95, change.resolved, change.enough) == (None, False, False)
    mean = dict(compare(first, second).mean)
    assert "latency" in mean
    assert "latency_ratio" not in mean  # of one row


def test_ratios_to_other_rows_do_not_compare():
    first, second = machine(1.0, 1.1, 0), machine(1.0, 1.2, 1)
    record = second.rows[1].latency
    to_other = dataclasses.replace(record, ratio=dataclasses.replace(record.ratio, to="c"))
    rows = (second.rows[0], dataclasses.replace(second.rows[1], latency=to_other))
    assert relative(first, dataclasses.replace(second, rows=rows)) is None


def test_other_machines_and_tf32_are_flagged():
    first, second = machine(1.0, 1.1, tf32=False), machine(1.0, 1.1, name="n", tf32=True)
    found = unlike(first, second)
    assert {item.what for item in found if item.row == "b"} == {
        "latency's machine",
        "latency's device name",
        "latency's tf32",
    }
    assert not any(item.work for item in found)
    notes = compare_table(compare(first, second), found).notes
    assert "Unlike: latency's machine is n, not m, of row a, b." in notes
    assert any("of two machines, this is what compares" in note for note in notes)
    assert unlike(machine(1.0, 1.1), machine(1.0, 1.1, tf32=True)) == ()  # an older record


# --- further engines, dtypes and batches --------------------------------------------------------


def with_timings(of, *records, failures=()):
    row = dataclasses.replace(of.rows[1], timings=records, failures=failures)
    return dataclasses.replace(of, rows=(of.rows[0], row))


def folded(of, factor, **more):
    """Row b folded, in the same rounds: `factor` times its own time."""
    samples = factor * np.array(of.rows[1].latency.samples_s)
    ratio_to = np.array(of.rows[0].latency.samples_s)
    return record_of(samples, ratio_to, engine="folded", device_name=of.machine, **more)


def test_timings_are_matched_by_engine_dtype_and_batch():
    first, second = machine(1.0, 1.1, 0), machine(0.5, 1.1, 1)
    first = with_timings(first, folded(first, 0.8), folded(first, 0.7, dtype="bf16"))
    second = with_timings(second, folded(second, 0.4, batch=8), folded(second, 0.6))
    found = compare(first, second)
    (change,) = found.timings
    assert (change.name, change.label) == ("b@folded-fp32-1", "Row b")
    times = dict(change.changes)
    assert times["latency"].value == pytest.approx(0.5 * 0.6 / 0.8, rel=0.1)
    assert times["latency_ratio"].value == pytest.approx(0.6 / 0.8, rel=0.01)
    assert times["latency_ratio"].resolved
    (cells,) = timing_table(found).rows
    assert cells[:4] == ("Row b", "folded", "fp32", "1")
    assert [b.row for b in broken(found, read_limit("latency_ratio<0.9"))] == ["b@folded-fp32-1"]
    assert timing_table(compare(machine(1.0, 1.1), machine(1.0, 1.1))) is None


def test_what_one_set_has_as_its_own_is_matched_with_what_the_other_has_further():
    first = machine(1.0, 1.1, 0)
    first = with_timings(first, folded(first, 0.8))
    second = machine(1.0, 0.88, 1, engine="folded")
    assert {item.what for item in unlike(first, second)} == {"latency's engine"}
    (change,) = compare(first, second).timings
    assert change.name == "b@folded-fp32-1"
    assert dict(change.changes)["latency"].value == pytest.approx(1, rel=0.1)


def test_a_timing_that_failed_in_the_second_set_says_why():
    first, second = machine(1.0, 1.1, 0), machine(1.0, 1.1, 1)
    first = with_timings(first, folded(first, 0.8))
    failure = Failure("v", "latency@folded-fp32-1", "EngineError: out of memory")
    found = compare(first, with_timings(second, failures=(failure,)))
    table = timing_table(found)
    assert "failed" in table.rows[0]
    assert table.notes == ("Failed: b@folded-fp32-1: EngineError: out of memory",)
    assert [b.resolved for b in broken(found, read_limit("latency>9"))] == [True]


def test_unlike_timings_are_flagged_by_their_name():
    first, second = machine(1.0, 1.1, 0), machine(1.0, 1.1, 1)
    first = with_timings(first, folded(first, 0.8))
    second = with_timings(second, folded(second, 0.8, shape=(64, 64)))
    (item,) = unlike(first, second)
    assert (item.row, item.what, item.work) == ("b@folded-fp32-1", "latency's shape", True)


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
