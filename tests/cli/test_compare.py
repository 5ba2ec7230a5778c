"""`sepcbench compare` on results folders: what it prints, and its exit codes."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
from unit.make import ENVIRONMENT, cost, latency

from sepcbench.cli.app import run
from sepcbench.results import keep_suite
from sepcbench.store import Store, Stored
from sepcbench.suites import load

SUITE = load("quick")


def write(folder, factor=1.0, total=100_000, batch=1, device="cpu", rounds=30):
    store = Store(folder)
    keep_suite(store, SUITE)
    for seed, row in enumerate(SUITE.rows[:3]):
        rng = np.random.default_rng((seed, int(1000 * factor)))
        samples = 0.1 * factor * (1 + 0.005 * rng.standard_normal((rounds, 3)))
        timed = dataclasses.replace(
            latency(row.spec.name),
            samples_s=tuple(map(tuple, samples.tolist())),
            batch=batch,
            device_name=device,
        )
        for kind, record in (("latency", timed), ("cost", cost(row.spec.name, total))):
            made = "2026-01-01T00:00:00+00:00"
            store.write(Stored(row.name, kind, "k", made, record, row.spec, ENVIRONMENT))
    return folder


def call(*words):
    return run(["compare", *map(str, words)])


def test_two_folders_are_compared(tmp_path, capsys):
    before, after = write(tmp_path / "a"), write(tmp_path / "b", 1.1)
    assert call(before, after, "--format", "json") == 0
    (value,) = json.loads(capsys.readouterr().out)
    assert [row["row"] for row in value["rows"]] == ["fpn", "pafpn", "pconv"]
    change = value["rows"][0]["changes"]["latency"]
    assert change["value"] == pytest.approx(1.1, rel=0.01)
    assert change["resolved"]
    assert value["mean"]["latency"]["value"] == pytest.approx(1.1, rel=0.01)
    assert value["rows"][0]["changes"]["macs"] == {
        "value": 1.0,
        "ci95": None,
        "resolved": False,
        "enough": True,
        "failed": "",
    }


@pytest.mark.parametrize("fmt", ["table", "md", "csv"])
def test_every_format_shows_rows_and_their_mean(tmp_path, capsys, fmt):
    assert call(write(tmp_path / "a"), write(tmp_path / "b", 1.1), "--format", fmt) == 0
    shown = capsys.readouterr().out
    assert "SEPC" not in shown  # not measured
    for name in ("FPN + 2 convs", "PAFPN + 2 convs", "mean over rows", "1.10"):
        assert name in shown


def test_a_limit_ends_with_3_where_it_is_broken(tmp_path, capsys):
    before, slower = write(tmp_path / "a"), write(tmp_path / "b", 1.1)
    assert call(before, slower, "--fail-if", "latency>1.03") == 3
    said = capsys.readouterr().err
    assert said.count("latency>1.03: row ") == 3
    assert "Traceback" not in said
    assert call(before, slower, "--fail-if", "latency>1.2") == 0
    assert call(before, slower, "--fail-if", "latency>1.2", "--fail-if", "latency>1.03") == 3
    assert call(before, write(tmp_path / "c", total=100_001), "--fail-if", "macs>1") == 3


def test_a_limit_that_is_passed_by_too_few_rounds_is_said_but_no_failure(tmp_path, capsys):
    few = [write(tmp_path / name, factor, rounds=3) for name, factor in (("a", 1.0), ("b", 1.5))]
    assert call(*few, "--fail-if", "latency>1.03") == 0
    assert "not resolved, passes" in capsys.readouterr().err


def test_unlike_work_is_refused_in_one_line_unless_told(tmp_path, capsys):
    pair = write(tmp_path / "a"), write(tmp_path / "b", batch=8)
    assert call(*pair) == 2
    said = capsys.readouterr().err
    assert "latency's batch of row 'fpn' is 8, not 1, and 2 more differ" in said
    assert "--anyway" in said
    assert len(said.splitlines()) == 1
    assert call(*pair, "--anyway") == 0
    assert "Unlike: latency's batch is 8, not 1" in " ".join(capsys.readouterr().out.split())


def test_another_device_is_said_and_refused_only_with_a_limit(tmp_path, capsys):
    pair = write(tmp_path / "a"), write(tmp_path / "b", 0.5, device="a card")
    assert call(*pair) == 0
    assert "device name is a card" in " ".join(capsys.readouterr().out.split())
    assert call(*pair, "--fail-if", "latency>1.03") == 2
    assert call(*pair, "--fail-if", "latency>1.03", "--anyway") == 0
    assert call(*pair, "--fail-if", "macs>1") == 0  # a count is the same everywhere
    with_limit = call(*pair, "--fail-if", "latency_ratio>1.03")
    assert with_limit == 2  # these records have no ratios, so the limit would guard nothing
    assert "no row of both sets has this quantity" in capsys.readouterr().err


def test_further_engines_have_a_table_of_their_own(tmp_path, capsys):
    pair = write(tmp_path / "a"), write(tmp_path / "b", 1.1)
    for folder in pair:
        store = Store(folder)
        for item in list(store.records()):
            if item.kind == "latency":
                record = dataclasses.replace(item.record, engine="folded")
                kind = "latency@folded-fp32-1"
                store.write(dataclasses.replace(item, kind=kind, record=record))
    assert call(*pair, "--format", "json") == 0
    (value,) = json.loads(capsys.readouterr().out)
    assert [(one["row"], one["engine"]) for one in value["timings"]] == [
        ("fpn", "folded"),
        ("pafpn", "folded"),
        ("pconv", "folded"),
    ]
    assert value["timings"][0]["changes"]["latency"]["value"] == pytest.approx(1.1, rel=0.01)
    assert call(*pair, "--format", "md") == 0
    assert "The same engine, dtype and batch in both" in capsys.readouterr().out
    assert call(*pair, "--fail-if", "latency>1.03") == 3
    assert "row 'fpn@folded-fp32-1'" in capsys.readouterr().err


def test_whole_results_folders_go_by_suite_and_machine(tmp_path, capsys):
    for side, factor in (("before", 1.0), ("after", 1.1)):
        for machine in ("m1", "m2"):
            write(tmp_path / side / "quick" / machine, factor)
    for folder in tmp_path.rglob("records"):
        machine = folder.parent.name
        for file in folder.glob("*.json"):
            body = json.loads(file.read_text())
            body["environment"]["machine"] = machine
            file.write_text(json.dumps(body))
    assert call(tmp_path / "before", tmp_path / "after", "--format", "json") == 0
    found = json.loads(capsys.readouterr().out)
    assert [[f.split("/")[-1] for f in one["folders"]] for one in found] == [
        ["m1", "m1"],
        ["m2", "m2"],
    ]
    shutil.rmtree(tmp_path / "after" / "quick" / "m2")
    assert call(tmp_path / "before", tmp_path / "after" / "quick" / "m1") == 0
    shutil.rmtree(tmp_path / "before" / "quick" / "m1")
    write(tmp_path / "after" / "quick" / "m3")
    assert call(tmp_path / "before", tmp_path / "after") == 2
    assert "name one folder of each" in capsys.readouterr().err


def test_a_suite_by_name(tmp_path, capsys):
    write(tmp_path / "results" / "quick" / "m")
    assert call("quick", "quick", "--results", tmp_path / "results") == 0
    assert "=" in capsys.readouterr().out


@pytest.mark.parametrize(
    "words", [["nowhere", "quick"], ["{a}", "{empty}"], ["{a}", "{a}", "--fail-if", "lat>1"]]
)
def test_what_cannot_be_compared_is_one_line(tmp_path, capsys, words):
    (tmp_path / "empty").mkdir()
    write(tmp_path / "a")
    places = {"a": tmp_path / "a", "empty": tmp_path / "empty"}
    assert call(*(word.format(**places) for word in words)) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_rows_in_common_are_needed(tmp_path, capsys):
    write(tmp_path / "a")
    write(tmp_path / "b")
    shutil.rmtree(tmp_path / "b" / "records")
    assert call(tmp_path / "a", tmp_path / "b") == 2
    assert "no row in common" in capsys.readouterr().err
