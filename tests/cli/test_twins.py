"""`sepcbench run SUITE --data shapes`: the small twin, with every kind of record."""

import json

import pytest

from sepcbench.cli.app import run

SUITE = """
title = "Two stages"
proposals = "rpn_r50_fpn"
[latency.protocol]
rounds = 2
[shapes]
images = 8
val_images = 4
size = "64x64"
[train]
iterations = 2
batch = 2
warmup_iterations = 1
[[row]]
name = "rpn"
variant = "rpn_r50_fpn"
[row.published.ar1000]
value = 56.3
source = "a paper"
[[row]]
name = "fast"
variant = "fast_rcnn_r50_fpn"
[[row]]
name = "mask"
variant = "mask_rcnn_r50_fpn"
not_published = ["ar1000"]
[[row]]
name = "other"
label = "Not built here"
[row.published.ar1000]
value = 50
source = "another paper"
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "two.toml").write_text(SUITE)
    return tmp_path


def record(folder, row, kind):
    (path,) = folder.glob(f"results/two_twin/*/records/{row}.{kind}.json")
    body = json.loads(path.read_text())
    assert not body["failed"], body["record"]
    assert body["spec"]["backbone"]["type"] == "tiny"
    return body["record"]


def test_the_twin_of_a_suite_trains_and_scores_every_row(folder, capsys):
    assert run(["run", "two.toml", "--data", "shapes", "--measures", "cost,accuracy"]) == 0
    out = capsys.readouterr().out
    assert "small twin on the generated set" in " ".join(out.split())
    assert record(folder, "rpn", "recall")["proposals"] > 0
    assert record(folder, "fast", "accuracy")["task"] == "bbox"
    assert record(folder, "mask", "masks")["task"] == "segm"
    assert record(folder, "mask", "cost")["rois"] > 0
    assert "56.3" not in out  # published of another network on other data
    (proposals,) = folder.glob("runs/proposals/*/val.json")
    assert json.loads(proposals.read_text())

    before = {path: path.stat().st_mtime_ns for path in folder.glob("results/**/records/*")}
    assert run(["run", "two.toml", "--data", "shapes", "--measures", "cost,accuracy"]) == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_published_cells_say_what_is_missing(folder, capsys):
    assert run(["run", "two.toml", "--measures", "cost", "--only", "rpn"]) == 0
    capsys.readouterr()
    (table,) = folder.glob("results/two/*/table.md")
    lines = [line for line in table.read_text().splitlines() if line.startswith("| ")]
    cells = {line.split(" | ")[0].strip("| "): line for line in lines}
    assert "| 56.3 |" in cells["rpn"]
    assert "| not at hand |" in cells["fast"]
    assert "| not published |" in cells["mask"]
    assert "| 50.0 |" in cells["Not built here"]


def test_an_rpn_that_fails_fails_only_the_rows_that_need_it(folder, capsys):
    text = SUITE.replace("[train]", "[train]\nlearning_rate = 1e30")
    (folder / "two.toml").write_text(text)
    command = ["run", "two.toml", "--data", "shapes", "--measures", "accuracy", "--only"]
    assert run([*command, "mask", "--only", "fast"]) == 1
    capsys.readouterr()
    failed = {path.name for path in folder.glob("results/two_twin/*/records/*.json")}
    assert failed == {"fast.accuracy.json", "mask.accuracy.json", "mask.masks.json"}
    for path in folder.glob("results/two_twin/*/records/*.json"):
        assert json.loads(path.read_text())["failed"]


def test_rows_without_fixed_proposals_train_no_rpn(folder):
    command = ["run", "two.toml", "--data", "shapes", "--measures", "accuracy", "--only", "mask"]
    assert run(command) == 0
    assert not list(folder.glob("runs/proposals/*"))
