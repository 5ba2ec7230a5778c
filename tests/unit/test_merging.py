"""Several results folders become one table, and what is left out of it is said."""

import json
from dataclasses import replace

import pytest
from unit.make import ENVIRONMENT, accuracy, cost, latency

from sepcbench.cli.app import run
from sepcbench.errors import UsageError
from sepcbench.merging import merge
from sepcbench.records import Failure
from sepcbench.results import keep_suite
from sepcbench.specs import Recipe
from sepcbench.store import Store, Stored
from sepcbench.suites import RowEntry, SuiteFile, compile_suite
from sepcbench.variants import VARIANTS

ROWS = (RowEntry("fpn", "retinanet_tiny_fpn"), RowEntry("sepc", "retinanet_tiny_sepc"))
SUITE = compile_suite("both", SuiteFile("Both", ROWS), "both")
GPU = replace(ENVIRONMENT, machine="nvidia-h200", gpu="H200")


def stored(row, kind, record, day=1, environment=ENVIRONMENT):
    spec = VARIANTS[f"retinanet_tiny_{row}"]
    return Stored(row, kind, "k", f"2026-01-0{day}T00:00:00+00:00", record, spec, environment)


def folder(root, *items, suite=SUITE, machine="test-machine"):
    store = Store(root / suite.name / machine)
    keep_suite(store, suite)
    for item in items:
        store.write(item)
    return store.folder


def test_rows_of_two_folders_stand_in_one_table(tmp_path):
    first = folder(tmp_path / "a", stored("fpn", "cost", cost("fpn")))
    second = folder(tmp_path / "b", stored("sepc", "accuracy", accuracy("sepc")))
    found, store = merge(None, [first, second], tmp_path / "out")
    assert [(row.cost is not None, row.accuracy is not None) for row in found.rows] == [
        (True, False),
        (False, True),
    ]
    assert found.notes == ()
    assert store.folder == tmp_path / "out" / "both" / "test-machine"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("turned", [False, True])
def test_the_newest_of_two_records_wins_and_a_note_says_so(tmp_path, turned):
    old = folder(tmp_path / "a", stored("fpn", "accuracy", accuracy("fpn", 0.1), day=1))
    new = folder(tmp_path / "b", stored("fpn", "accuracy", accuracy("fpn", 0.2), day=2))
    found, _ = merge(None, [new, old] if turned else [old, new], tmp_path / "out")
    assert found.rows[0].accuracy.ap == 0.2
    (note,) = found.notes
    assert f"fpn.accuracy is of {new} (2026-01-02" in note
    assert f"of {old} is older" in note


def test_a_copy_of_a_record_is_no_conflict(tmp_path):
    item = stored("fpn", "cost", cost("fpn"))
    folders = [folder(tmp_path / name, item) for name in "ab"]
    assert merge(None, folders, tmp_path / "out")[0].notes == ()


def test_seeds_and_failures_merge_too(tmp_path):
    first = folder(tmp_path / "a", stored("fpn", "accuracy@1", accuracy("fpn", 0.3)))
    second = folder(tmp_path / "b", stored("fpn", "accuracy", Failure("fpn", "accuracy", "why")))
    found, _ = merge(None, [first, second], tmp_path / "out")
    assert [(one.seed, one.record.ap) for one in found.rows[0].seeds] == [(1, 0.3)]
    assert found.rows[0].failures[0].reason == "why"


def test_times_are_of_one_machine_and_scores_of_all(tmp_path):
    timed = [stored(row, "latency", latency(row)) for row in ("fpn", "sepc")]
    here = folder(tmp_path / "a", *timed, stored("fpn", "accuracy", accuracy("fpn")))
    other = [
        stored("sepc", "latency", replace(latency("sepc"), median_s=9.0), 3, GPU),
        stored("sepc", "accuracy", accuracy("sepc"), 3, GPU),
    ]
    there = folder(tmp_path / "b", *other, machine="nvidia-h200")
    found, store = merge(None, [here, there], tmp_path / "out")
    assert [row.latency.median_s for row in found.rows] == [0.1, 0.1]
    assert all(row.accuracy is not None for row in found.rows)
    assert found.machine == "nvidia-h200 and test-machine"
    assert store.folder.name == "several-machines"
    assert "Latency is of test-machine alone" in found.notes[0]
    assert "nvidia-h200 (1 rows)" in found.notes[0]
    assert "Cost and accuracy are of nvidia-h200 and test-machine" in found.notes[1]


def test_scores_on_different_images_are_flagged(tmp_path):
    first = folder(tmp_path / "a", stored("fpn", "accuracy", accuracy("fpn")))
    other = replace(accuracy("sepc"), images=7)
    second = folder(tmp_path / "b", stored("sepc", "accuracy", other))
    (note,) = merge(None, [first, second], tmp_path / "out")[0].notes
    assert note == "AP is of different sets and does not compare: val (100 images), val (7 images)."


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        (replace(SUITE.file, cost=replace(SUITE.file.cost, shape="64x64")), "cost differs"),
        (replace(SUITE.file, row=(ROWS[0], replace(ROWS[0], name="sepc"))), "row 'sepc' differs"),
        (replace(SUITE.file, row=(ROWS[0], replace(ROWS[1], train=Recipe()))), "row 'sepc' diff"),
    ],
)
def test_different_suites_of_one_name_are_refused(tmp_path, changed, words):
    first = folder(tmp_path / "a")
    second = folder(tmp_path / "b", suite=compile_suite("both", changed, "both"))
    with pytest.raises(UsageError, match=words):
        merge(None, [first, second], tmp_path / "out")


def test_a_merge_leaves_no_record_of_an_earlier_one(tmp_path):
    full = folder(tmp_path / "a", *(stored(row, "cost", cost(row)) for row in ("fpn", "sepc")))
    part = folder(tmp_path / "b", stored("fpn", "cost", cost("fpn"), day=2))
    for folders, rows in (([full, part], ["fpn", "sepc"]), ([part, part], ["fpn"])):
        _, store = merge(None, folders, tmp_path / "out")
        store.write_all(SUITE)
        assert [item.row for item in Store(store.folder).records()] == rows


def test_a_merge_never_removes_what_was_measured(tmp_path):
    mine = folder(tmp_path / "out", stored("sepc", "cost", cost("sepc")))
    other = folder(tmp_path / "a", stored("fpn", "cost", cost("fpn")))
    _, store = merge(None, [other, other], tmp_path / "out")
    assert store.folder == mine
    with pytest.raises(UsageError, match="were measured, not merged; choose another --out"):
        store.write_all(SUITE)
    assert [item.row for item in Store(mine).records()] == ["sepc"]


def test_the_command_writes_a_folder_that_can_be_reported_again(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    folder(tmp_path / "a", stored("fpn", "cost", cost("fpn")))
    folder(tmp_path / "b", stored("sepc", "cost", cost("sepc")))
    both = ["--results", "a", "--results", "b"]
    assert run(["report", "both", *both, "--format", "json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert all(row["cost"] is not None for row in found["rows"])
    assert (tmp_path / "merged" / "both" / "test-machine" / "table.md").is_file()
    assert not list(tmp_path.glob("?/both/*/table.md"))
    assert run(["report", "both", "--results", "merged", "--format", "json"]) == 0
    (again,) = json.loads(capsys.readouterr().out)
    assert again["rows"] == found["rows"]
    assert run(["report", "both", *both, "--why", "sepc.macs"]) == 0
    assert "merged/both/test-machine/records/sepc.cost.json" in capsys.readouterr().out
    assert run(["report", "both", *both, "--out", "a"]) == 2
    assert "choose another --out" in capsys.readouterr().err


def test_a_twin_is_reported_by_its_name(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    small = compile_suite("bn_twin", SuiteFile("Small", ROWS, twin=True), "bn_twin")
    folder(tmp_path / "results", stored("fpn", "cost", cost("fpn")), suite=small)
    assert run(["report", "bn_twin", "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["suite"] == "bn_twin"
    assert run(["report", "fusion_twin"]) == 2
    assert "run it first: sepcbench run fusion --data shapes" in capsys.readouterr().err


def test_a_place_without_results_is_warned_of(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    folder(tmp_path / "a", stored("fpn", "cost", cost("fpn")))
    (tmp_path / "empty").mkdir()
    places = ["--results", "a", "--results", "nope", "--results", "empty"]
    assert run(["report", "both", *places]) == 0
    told = [line for line in capsys.readouterr().err.splitlines() if "warning" in line]
    assert told == [
        "sepcbench: warning: --results 'nope' is no folder",
        "sepcbench: warning: --results 'empty' has nothing of suite 'both'",
    ]
