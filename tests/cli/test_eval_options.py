"""`sepcbench eval` and `score`: folders, kept detections, sizes, test-time options, referee."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sepcbench.checkpoints import native
from sepcbench.cli.app import run
from sepcbench.data.coco import open_data
from sepcbench.data.shapes import generate
from sepcbench.detectors import build
from sepcbench.errors import StoreError
from sepcbench.measures import coco_referee, scoring
from sepcbench.variants import variant

LOW = {"short_side": 64, "long_side": 64, "score_threshold": 0.008, "max_detections": 20}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set in `data`, and in `run` what a training leaves."""
    folder = tmp_path_factory.mktemp("made")
    generate(folder / "data", images=1, val_images=5, seed=0, size=(64, 64))
    detector = build(variant("retinanet_tiny_fpn", LOW), seed=0)
    native.save(
        folder / "run" / "last.safetensors", detector, open_data(folder / "data", "val").classes
    )
    return folder


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def words(made: Path, *more: str) -> list[str]:
    return ["eval", str(made / "run"), "--data", str(made / "data"), *more]


def value(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> dict[str, Any]:
    assert run([*arguments, "--format", "json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    return found  # type: ignore[no-any-return]


def test_a_folder_stands_for_its_last_checkpoint(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = value(capsys, words(made))
    assert found["file"] == str(made / "run" / "last.safetensors")
    assert run(["eval", str(tmp_path), "--data", str(made / "data")]) == 2
    assert "has no last.safetensors; name a checkpoint file" in capsys.readouterr().err


def test_nothing_is_left_in_the_working_folder_unless_asked_for(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = value(capsys, words(made))
    assert list(tmp_path.iterdir()) == []
    assert value(capsys, words(made, "--keep", "kept")) == found
    assert len(list((tmp_path / "kept").glob("*/*.jsonl"))) == 1
    assert value(capsys, words(made, "--keep", "kept")) == found


def test_what_was_found_is_kept_until_it_is_scored(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def failing(*args: Any, **more: Any) -> None:
        raise StoreError("the disk is full")

    wanted = value(capsys, words(made))
    with monkeypatch.context() as patch:
        patch.setattr(scoring, "scores", failing)
        assert run(words(made)) == 2
    (kept,) = tmp_path.glob("runs/eval/*/*/*.jsonl")
    before = kept.read_bytes()
    assert before.count(b"\n") == 5
    assert value(capsys, words(made)) == wanted
    assert not (tmp_path / "runs").exists()


def test_sizes_and_levels_come_in_tables_and_records(
    made: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = value(capsys, words(made, "--by-size"))
    assert {band["kind"] for band in found["bands"]} == {"pixels", "relative"}
    assert sum(share["detections"] for share in found["levels"]) == found["detections"]
    assert not value(capsys, words(made))["levels"]
    assert run(words(made, "--by-size", "--format", "md")) == 0
    out = capsys.readouterr().out
    for text in ("AP by size (root of the area in pixels)", "| 16-32 |", "| 1/8-1/4 |", "P3, %"):
        assert text in out


def test_test_time_options_are_in_the_record(
    made: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = value(capsys, words(made))
    assert value(capsys, words(made, "--scales", "64")) == {**plain, "test_time": "scales 64"}
    found = value(capsys, words(made, "--test-scales", "48,64:0-32", "--max-side", "96", "--flip"))
    assert found["test_time"] == "scales 48,64:0-32, max side 96, flip"
    assert run(words(made, "--scales", "big")) == 2
    assert "'big' is not a short side in pixels" in capsys.readouterr().err


def test_the_referee_sees_what_eval_found(
    made: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = value(capsys, words(made))
    assert value(capsys, words(made, "--referee")) == {**wanted, "refereed": True}
    same = coco_referee._check_same
    monkeypatch.setattr(
        coco_referee, "_check_same", lambda name, ours, theirs: same(name, ours + 1e-9, theirs)
    )
    assert run(words(made)) == 0
    capsys.readouterr()
    assert run(words(made, "--referee")) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "the referee disagrees" in line


def test_score_notices_proposals(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    item = {"image_id": 1, "bbox": [1, 1, 9, 9], "score": 0.5}
    data = ["--data", str(made / "data")]
    for category, noticed in ((1, True), (3, False)):
        path = tmp_path / f"{category}.json"
        path.write_text(json.dumps([{**item, "category_id": category}]))
        assert run(["score", str(path), *data]) == 0
        said = capsys.readouterr().err
        assert ("if they are an RPN's proposals, add --task proposals" in said) == noticed
        assert run(["score", str(path), *data, "--task", "proposals"]) == 0
        assert capsys.readouterr().err == ""
    assert run(["score", str(tmp_path / "1.json"), *data, "--proposals", "found.json"]) == 2
    assert "sepcbench score found.json --task proposals" in capsys.readouterr().err
    assert run(["score", str(tmp_path / "3.json"), *data, "--by-size", "--format", "csv"]) == 0


def test_the_comparison_with_a_plain_loop_is_of_the_same_detections(
    made: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words_ = words(made, "--against-plain", "--workers", "1", "--batch", "2", "--format", "json")
    assert run(words_) == 0
    ours, plain, reference = json.loads(capsys.readouterr().out)
    assert [ours["way"], plain["way"]] == ["sepcbench", "plain loop"]
    assert reference["way"] == "torchvision's way"
    assert ours["ap"] == plain["ap"]
    assert ours["detections"] == plain["detections"] == reference["detections"] == 100
    assert ours["ratio"] == 1.0
    assert all(one["images_per_s"] > 0 for one in (ours, plain, reference))
    assert run(words(made, "--against-plain", "--flip")) == 2
    assert "--against-plain takes one checkpoint" in capsys.readouterr().err
