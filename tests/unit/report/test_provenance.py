"""Where a cell comes from: its record, its published source, and the command that measures it."""

import dataclasses

import pytest
from unit.make import ENVIRONMENT, accuracy, cost, latency, results, seeded, timed

from sepcbench.cli.app import run
from sepcbench.errors import UsageError
from sepcbench.records import Origin, Published, Ratio, Row, Training
from sepcbench.report.cells import find_cell, find_row, row_cells
from sepcbench.report.columns import used_columns
from sepcbench.report.provenance import provenance, provenance_tables, source
from sepcbench.results import assemble, keep_suite
from sepcbench.specs import Recipe
from sepcbench.store import Store, Stored
from sepcbench.suites import load, twin

TRAINING = Training("va", "coco", 9, 2, 2, 0, "sgd", 0.01, ((1, 1.0),))


def why(of, cell):
    return provenance(of, *find_cell(of, cell))


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        ("a.app", "did you mean 'ap'"),
        ("e.ap", "unknown row of suite 's' 'e'; known: a, b, c, d"),
        ("a.mask_ap", "unknown column of suite 's' 'mask_ap'"),
        ("ap", "is not ROW.COLUMN; write it like a.params"),
        (".ap", "is not ROW.COLUMN"),
        ("", "is not ROW.COLUMN"),
    ],
)
def test_a_wrong_cell_is_one_line_with_the_nearest_name(cell, words):
    with pytest.raises(UsageError) as caught:
        find_cell(results(), cell)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_published_value_comes_with_its_source_note_and_tolerance():
    given = Published(35.7, "the paper", "1x schedule", 0.1)
    row = dataclasses.replace(results().rows[0], published=(("ap", given),))
    facts = dict(why(dataclasses.replace(results(), rows=(row,)), "a.ap").published)
    assert facts == {
        "value": "35.7",
        "source": "the paper",
        "note": "1x schedule",
        "tolerance of the claim": "0.1",
        "measured minus published": "+0.3",
    }


def test_a_blank_published_cell_says_why():
    assert dict(why(results(), "b.ap").published) == {"value": "not at hand"}
    rows = tuple(dataclasses.replace(row, not_published=("ap",)) for row in results().rows[1:])
    known = dataclasses.replace(results(), rows=(results().rows[0], *rows))
    assert dict(why(known, "b.ap").published) == {"value": "not published"}
    assert why(results(), "a.macs").published == ()  # published for no row at all


def test_conditions_are_the_record_with_units():
    facts = dict(why(results(), "b.latency_ratio").source.conditions)
    assert facts["median, ms"] == "100"
    assert facts["ci95, ms"] == "95 to 105"
    assert facts["shape"] == "800x1344"
    assert facts["warmup settled"] == "yes"
    assert "median 1.07; ci95 1.05 to 1.09" in facts["ratio"]
    assert "samples" not in facts
    assert "100,000,000,000" in dict(why(results(), "a.macs").source.conditions)["macs"]


def test_samples_have_four_significant_digits_in_milliseconds():
    times = ((0.012345678, 0.1), (1.23456789, 0.00001234567))
    row = dataclasses.replace(
        results().rows[0], latency=dataclasses.replace(latency("va"), samples_s=times)
    )
    of = dataclasses.replace(results(), rows=(row,))
    assert source(of, row, "latency").samples_ms == (12.35, 100.0, 1235.0, 0.01235)


def test_a_failure_keeps_its_reason():
    found = why(results(), "d.macs")
    assert found.measured == "failed"
    assert found.failure == "CountError: no formula"
    assert ("failed", "CountError: no formula") in provenance_tables(found)[0].rows


def test_the_record_of_a_cell_has_its_own_environment():
    elsewhere = dataclasses.replace(ENVIRONMENT, machine="other", git_commit="c0ffee")
    origin = Origin("a", "cost", "2026-01-02T03:04:05+00:00", elsewhere)
    found = source(dataclasses.replace(results(), origins=(origin,)), results().rows[0], "cost")
    assert (found.commit, found.created) == ("c0ffee", origin.created)
    assert ("machine", "other") in found.environment
    assert ("torch", "0") in found.environment


def command(row, kind, **changes):
    rows = tuple(row if one.name == row.name else one for one in results().rows)
    of = dataclasses.replace(results(), **{"rows": rows, "run_as": "s", **changes})
    return source(of, row, kind).command


def test_cost_and_first_measurements():
    a, c = results().rows[0], results().rows[2]
    assert command(a, "cost") == "sepcbench run s --only a --measures cost --results again"
    assert command(c, "cost") == "sepcbench run s --only c --measures cost"
    twin = command(a, "cost", run_as="s --data shapes")
    assert twin.startswith("sepcbench run s --data shapes --only a")


def test_latency_is_measured_with_the_rows_it_was_interleaved_with():
    def timed(*others, device="cpu"):
        ratio = Ratio("a", 1.0, (1.0, 1.0), 1.0, (1.0, 1.0), False)
        record = dataclasses.replace(latency("vb", device, ratio), interleaved_with=others)
        return dataclasses.replace(results().rows[1], latency=record)

    start, end = "sepcbench run s", "--measures latency"
    assert command(timed("a"), "latency") == f"{start} --only a --only b {end} --results again"
    assert command(timed("a", "c", "d"), "latency") == f"{start} {end} --results again"
    assert "--device cuda:0 --results" in command(timed("a", "c", "d", device="cuda:0"), "latency")


def test_accuracy_needs_the_users_files_or_is_trained_again():
    a = results().rows[0]
    given = command(a, "accuracy")
    assert "--data DIR --checkpoint a=FILE --results again" in given
    trained = command(a, "accuracy", generated_data=True)
    assert trained.endswith("--measures accuracy --work again/work --results again")
    fixed = command(dataclasses.replace(a, variant="fast_rcnn_tiny_fpn"), "accuracy")
    assert "--data DIR --checkpoint a=FILE --proposals FILE --results again" in fixed
    here = dataclasses.replace(a, training=TRAINING)
    assert "--train --data DIR --work again/work --results again" in command(here, "accuracy")
    gpu = Origin("a", "accuracy", "", dataclasses.replace(ENVIRONMENT, gpu="a card"))
    assert "--device cuda" in command(a, "accuracy", origins=(gpu,))


def test_another_recipe_than_the_suites_is_in_the_command():
    a = dataclasses.replace(results().rows[0], training=TRAINING)
    same = Recipe(iterations=2, batch=2, optimizer="sgd", learning_rate=0.01)
    told = {"generated_data": True, "recipes": (("a", same),)}
    assert "--recipe" not in command(a, "accuracy", **told)
    other = Recipe(iterations=3, batch=4, optimizer="adamw", learning_rate=0.02, amp="bf16")
    words = command(a, "accuracy", generated_data=True, recipes=(("a", other),))
    for word in ("iterations=2", "batch=2", "optimizer=sgd", "amp=none", "learning_rate=0.01"):
        assert f"--recipe {word}" in words
    assert command(a, "accuracy").count("--recipe") == 0  # not known
    scaled = Recipe(epochs=0.5, batch=4, optimizer="sgd", learning_rate=0.02, reference_batch=4)
    words = command(a, "accuracy", recipes=(("a", scaled),))
    assert "--train --data DIR --recipe batch=2 --work" in words  # 0.5 * 9 images / 2 are 2
    longer = dataclasses.replace(scaled, epochs=9.0)
    words = command(a, "accuracy", recipes=(("a", longer),))
    assert "--recipe batch=2 --recipe iterations=2 --work" in words  # takes the place of epochs


def test_another_recipe_is_a_note_of_the_conditions():
    a = dataclasses.replace(results().rows[0], training=TRAINING)
    of = dataclasses.replace(results(), rows=(a,), recipes=(("a", Recipe()),))
    note = "trained with other options than the suite's: see training"
    assert ("note", note) in source(of, a, "accuracy").conditions
    assert ("note", note) not in source(of, a, "cost").conditions


def test_a_row_with_published_values_only_has_no_record():
    row = Row("x", "X", "", (("ap", Published(1.0, "s")),))
    found = why(dataclasses.replace(results(), rows=(row,)), "x.ap")
    assert found.source is None
    assert found.published


def test_every_cell_of_a_table_has_a_provenance():
    for row in results(gpu=True).rows:
        for name in used_columns(results(gpu=True)):
            tables = provenance_tables(why(results(gpu=True), f"{row.name}.{name}"), "results/s")
            assert tables
            assert all(len(pair) == 2 for table in tables for pair in table.rows)


# --- further conditions and seeds ---------------------------------------------------------------


def test_a_latency_under_further_conditions():
    origin = Origin("a", "latency@folded-fp32-1", "2026-01-02T03:04:05+00:00", ENVIRONMENT)
    of = dataclasses.replace(timed(gpu=True), origins=(origin,))
    found = why(of, "a.latency_ratio@folded-fp32-1")
    assert found.measured == "0.500 [0.490, 0.510]"
    assert found.source.file == "records/a.latency@folded-fp32-1.json"
    assert found.source.created == origin.created
    facts = dict(found.source.conditions)
    assert (facts["engine"], facts["launches"]) == ("folded", "120")
    assert found.published == ()
    assert found.further == ("latency_ratio@folded-bf16-8",)
    assert why(of, "a.latency@folded-bf16-8").measured == "100.000"
    assert dict(why(of, "a.latency").source.conditions)["engine"] == "eager"


def test_the_suites_own_conditions_are_the_plain_cell():
    assert find_cell(timed(gpu=True), "a.latency@eager-fp32-1")[1] == "latency"
    assert find_cell(seeded(), "a.ap@0")[1] == "ap"


def test_on_a_cpu_a_latency_is_a_ratio():
    assert find_cell(timed(), "a.latency@folded-fp32-1")[1] == "latency_ratio@folded-fp32-1"


def test_a_latency_that_failed_under_further_conditions():
    found = why(timed(), "b.latency@graphed-fp32-1")
    assert (found.measured, found.failure) == ("failed", "EngineError: no CUDA device here")
    assert found.source.command.endswith("--measures latency")


def test_a_further_seed_is_trained_with_as_many():
    of = dataclasses.replace(seeded(), generated_data=True, run_as="s --data shapes")
    found = why(of, "b.ap@2")
    assert found.measured == "36.0"
    assert found.source.file == "records/b.accuracy@2.json"
    assert found.source.command.startswith("sepcbench run s --data shapes --only b")
    assert "--measures accuracy --seeds 3 --work again/work" in found.source.command
    assert found.further == ("ap@1",)


def test_rows_timed_under_further_conditions_are_named_once():
    record = dataclasses.replace(latency("va"), interleaved_with=("a@folded-fp32-1", "b", "b@x"))
    row = dataclasses.replace(results().rows[0], latency=record)
    assert "--only a --only b --measures" in command(row, "latency")


def test_a_plain_cell_names_the_further_ones():
    head = dict(provenance_tables(why(seeded(), "a.ap"))[0].rows)
    assert head["see also"] == "a.ap@1, a.ap@2"
    assert "see also" not in dict(provenance_tables(why(results(), "a.ap"))[0].rows)


@pytest.mark.parametrize(
    ("of", "cell", "words"),
    [
        (timed(), "a.latency@graphed-fp32-1", "there is latency (eager-fp32-1), latency@folded-"),
        (timed(), "a.lattency@folded-fp32-1", "did you mean 'latency"),
        (timed(), "a.ap@1", "unknown column of suite 's' 'ap'"),
        (seeded(), "a.ap@7", "has no accuracy@7; there is accuracy (0), accuracy@1, accuracy@2"),
        (results(), "a.macs@1", "has no cost@1: there is only cost itself"),
        (results(), "a.ap@1", "has no accuracy@1: there is only accuracy itself (0)"),
        (results(), "d.ap@1", "row 'd' has no accuracy@1: there is none"),
        (seeded(), "a.ap@", "is not ROW.COLUMN"),
    ],
)
def test_what_there_is_not_under_further_conditions_is_one_line(of, cell, words):
    with pytest.raises(UsageError) as caught:
        find_cell(of, cell)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


SUITE = """
title = "Small"
[[row]]
name = "fpn"
label = "FPN"
variant = "retinanet_tiny_fpn"
[row.published.ap]
value = 35.7
source = "the paper"
"""


@pytest.fixture
def stored(tmp_path, monkeypatch):
    """A suite file with two stored records."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.toml").write_text(SUITE)
    suite = load("small.toml")
    store = Store(tmp_path / "results/small/machine")
    keep_suite(store, suite)
    spec = suite.rows[0].spec
    for kind, record in (("cost", cost(spec.name)), ("accuracy", accuracy(spec.name))):
        store.write(Stored("fpn", kind, "key", "2026-01-02T03:04:05", record, spec, ENVIRONMENT))
    return tmp_path


@pytest.mark.parametrize(
    ("suite", "words"),
    [
        (load("quick"), "quick"),
        (twin(load("bn")), "bn --data shapes"),
        (dataclasses.replace(load("quick"), name="mine"), "mine.toml"),
    ],
)
def test_results_know_how_their_suite_is_run(suite, words, tmp_path):
    assert assemble(suite, Store(tmp_path)).run_as == words


def test_the_command_line_says_why(stored, capsys):
    before = sorted(stored.rglob("*"))
    assert run(["report", "small.toml", "--why", "fpn.ap", "--format", "csv"]) == 0
    out = capsys.readouterr().out
    assert "record,results/small/machine/records/fpn.accuracy.json" in out
    assert "created,2026-01-02T03:04:05" in out
    assert "sepcbench run small.toml --only fpn --measures accuracy" in out
    assert "source,the paper" in out
    assert sorted(stored.rglob("*")) == before  # it only says; nothing is written


def test_the_command_that_is_printed_is_one_that_runs(stored, capsys):
    assert run(["report", "small.toml", "--why", "fpn.macs", "--format", "csv"]) == 0
    out = capsys.readouterr().out
    line = next(line for line in out.splitlines() if line.startswith("measure again,"))
    words = line.removeprefix("measure again,").split()
    assert words[0] == "sepcbench"
    assert run(words[1:]) == 0
    assert list((stored / "again").rglob("fpn.cost.json"))


def test_an_unknown_cell_is_a_usage_error(stored, capsys):
    assert run(["report", "small.toml", "--why", "fpn.app"]) == 2
    assert "did you mean 'ap'" in capsys.readouterr().err
    assert run(["report", "results", "--why", "fnp.ap"]) == 2
    assert "did you mean 'fpn'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("of", "cell", "found"),
    [
        (results(), "A.AP", ("a", "ap")),
        (results(), "b.latency", ("b", "latency_ratio")),  # a CPU's
        (results(gpu=True), "b.latency", ("b", "latency")),
        (timed(), "row b.latency@folded-fp32", ("b", "latency_ratio@folded-fp32-1")),
        (timed(), "a.latency@eager", ("a", "latency_ratio")),
    ],
)
def test_a_cell_may_be_written_as_the_table_heads_it(of, cell, found):
    row, column = find_cell(of, cell)
    assert (row.name, column) == found


def test_conditions_that_are_spelt_wrong_have_a_nearest_name():
    with pytest.raises(UsageError) as caught:
        find_cell(timed(), "a.latency@fold-fp32-1")
    assert "did you mean 'latency@folded-fp32-1'?" in str(caught.value)


def test_two_rows_of_one_label_are_not_guessed_between():
    twice = tuple(dataclasses.replace(row, label="Same") for row in results().rows)
    assert find_row(dataclasses.replace(results(), rows=twice), "same") is None


def test_the_cells_of_a_row_are_named_with_what_they_say():
    table = row_cells(seeded(), find_row(seeded(), "b"))
    assert table.headers == ("cell", "column", "measured", "further")
    assert ("b.ap", "AP, % (higher is better)", "32.0", "@1, @2") in table.rows
    for line in table.rows:
        assert find_cell(seeded(), line[0])[0].name == "b"


def test_the_command_line_lists_the_cells_of_a_row_and_says_how_to_ask(stored, capsys):
    assert run(["report", "small.toml", "--why", "fpn", "--format", "csv"]) == 0
    assert "fpn.ap," in capsys.readouterr().out
    assert run(["report", "small.toml"]) == 0
    told = capsys.readouterr().err
    asked = told.rpartition("which cells a row has: sepcbench ")[2].split()
    assert run(asked) == 0
    assert f"{asked[-1]}.macs" in capsys.readouterr().out
