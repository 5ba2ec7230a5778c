"""`train`, `eval` and `score` of proposals, Fast R-CNN on them, and masks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from sepcbench.checkpoints.native import save
from sepcbench.cli.app import run
from sepcbench.detectors import build
from sepcbench.variants import variant

CLASSES = ("circle", "square", "triangle")
RECALLS = ("ar100", "ar1000", "ar1000_small", "ar1000_medium", "ar1000_large")
SIDES = {"short_side": 64, "long_side": 64, "num_classes": 3}


class Given(NamedTuple):
    """A generated set, an RPN's checkpoint, and its proposals on both splits."""

    shapes: Path
    rpn: Path
    train: Path
    val: Path


def checkpoint(folder: Path, name: str) -> Path:
    """A detector with random weights that finds something."""
    torch.manual_seed(0)
    detector = build(variant(name, {**SIDES, "score_threshold": 0.0, "max_detections": 12}))
    path = folder / f"{name}.safetensors"
    save(path, detector, CLASSES, None)
    return path


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Given:
    folder = tmp_path_factory.mktemp("two_stage")
    shapes = folder / "shapes"
    size = ("--images", "6", "--val-images", "4", "--size", "64x64")
    assert run(["data", "shapes", str(shapes), *size]) == 0
    made = Given(shapes, checkpoint(folder, "rpn_tiny_fpn"), folder / "t.json", folder / "v.json")
    for split, path in (("train", made.train), ("val", made.val)):
        call = ["eval", str(made.rpn), "--data", str(shapes), "--split", split]
        assert run([*call, "--out", str(path)]) == 0
    return made


def output(capsys: pytest.CaptureFixture[str], *arguments: object, code: int = 0) -> Any:
    """What a command prints as JSON."""
    capsys.readouterr()
    assert run([*map(str, arguments), "--format", "json"]) == code
    return json.loads(capsys.readouterr().out)


def line(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The one line of a command that cannot work."""
    capsys.readouterr()
    assert run([str(argument) for argument in arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    (found,) = [text for text in captured.err.splitlines() if text.startswith("sepcbench: ")]
    return found


def test_an_rpn_writes_a_proposals_file_and_is_scored_by_recall(
    given: Given, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out = tmp_path / "proposals.json"
    (record,) = output(capsys, "eval", given.rpn, "--data", given.shapes, "--out", out)
    found = json.loads(out.read_text())
    assert out.read_bytes() == given.val.read_bytes()
    assert record["proposals"] == len(found) > 100
    assert record["ar100"] is not None
    assert "ap" not in record
    assert {item["category_id"] for item in found} == {1}
    assert {item["image_id"] for item in found} == {1, 2, 3, 4}
    (scored,) = output(capsys, "score", out, "--data", given.shapes, "--task", "proposals")
    assert [scored[name] for name in RECALLS] == [record[name] for name in RECALLS]


def test_fast_rcnn_trains_and_detects_on_them(
    given: Given, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    sets = [part for key in ("short_side", "long_side") for part in ("--set", f"{key}=64")]
    call = ["train", "fast_rcnn_tiny_fpn", "--data", given.shapes, "--out", tmp_path / "fast"]
    call += [*sets, "--iterations", 2, "--batch", 2]
    (trained,) = output(capsys, *call, "--proposals", given.train)
    assert trained["iterations"] == 2
    path = trained["checkpoint"]
    (record,) = output(
        capsys, "eval", path, "--data", given.shapes, "--proposals", given.val, "--limit", 3
    )
    assert record["variant"] == "fast_rcnn_tiny_fpn"
    assert record["task"] == "bbox"
    assert record["images"] == 3
    assert "--proposals FILE" in line(capsys, "eval", path, "--data", given.shapes)


def test_of_several_checkpoints_only_some_take_proposals(
    given: Given, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    files = [checkpoint(tmp_path, f"{name}_tiny_fpn") for name in ("fast_rcnn", "retinanet")]
    call = ["eval", *files, given.rpn, "--data", given.shapes, "--limit", 2]
    fast, retina, rpn = output(capsys, *call, "--proposals", given.val)
    assert fast["ap"] is not None
    assert retina["ap"] is not None
    assert rpn["ar1000"] is not None
    failed, *_ = output(capsys, *call, code=1)
    assert "works on given proposals" in failed["reason"]


def test_mask_rcnn_is_scored_by_boxes_and_masks(
    given: Given, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path, out = checkpoint(tmp_path, "mask_rcnn_tiny_fpn"), tmp_path / "found.json"
    call = ["eval", path, "--data", given.shapes]
    (record,) = output(capsys, *call, "--save-detections", out)
    assert (record["task"], record["masks"]["task"]) == ("bbox", "segm")
    assert record["detections"] == record["masks"]["detections"] > 0
    for task, wanted in (("bbox", record), ("segm", record["masks"])):
        (scored,) = output(capsys, "score", out, "--data", given.shapes, "--task", task)
        for name in ("ap", "ap50", "ar100", "ap_small", "per_class"):
            assert scored[name] == wanted[name]
    assert run([*map(str, call), "--per-class", "--format", "md"]) == 0
    text = capsys.readouterr().out
    titles = ("COCO box AP", "COCO mask AP", "### AP per class", "### mask AP per class")
    assert all(title in text for title in titles)


def test_a_set_without_masks(
    given: Given, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for split in ("train", "val"):
        content = json.loads((given.shapes / f"annotations/instances_{split}.json").read_text())
        for item in content["annotations"]:
            del item["segmentation"]
        (tmp_path / f"{split}.json").write_text(json.dumps(content))
    there = ("--images", given.shapes / "train", "--out", tmp_path / "run")
    found = line(
        capsys, "train", "mask_rcnn_tiny_fpn", "--annotations", tmp_path / "train.json", *there
    )
    assert "mask_rcnn_tiny_fpn learns masks: " in found
    assert "have no segmentation" in found
    assert not (tmp_path / "run").exists()
    # boxes can still be scored
    path = checkpoint(tmp_path, "mask_rcnn_tiny_fpn")
    there = ("--annotations", tmp_path / "val.json", "--images", given.shapes / "val")
    (record,) = output(capsys, "eval", path, *there, code=1)
    assert record["ap"] is not None
    assert "have no segmentation" in record["masks"]["reason"]


def test_what_does_not_fit_has_its_line(
    given: Given, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    train = ["train", "fast_rcnn_tiny_fpn", "--data", given.shapes, "--out", tmp_path / "run"]
    assert "works on given proposals: add --proposals FILE" in line(capsys, *train)
    assert "no proposals for 2 of 6 images" in line(capsys, *train, "--proposals", given.val)
    assert "is not there" in line(capsys, *train, "--proposals", tmp_path / "none.json")
    train[1] = "faster_rcnn_tiny_fpn"
    assert "leave out --proposals" in line(capsys, *train, "--proposals", given.train)
    assert not (tmp_path / "run").exists()
    score = ["score", given.val, "--data", given.shapes]
    assert "known: bbox, segm, proposals" in line(capsys, *score, "--task", "ap")
    assert "detection 0 has no segmentation" in line(capsys, *score, "--task", "segm")
    evaluate = ["eval", given.rpn, "--data", given.shapes]
    assert "names 2 images that are not in" in line(capsys, *evaluate, "--proposals", given.train)
    assert "is for one-stage detectors" in line(capsys, *evaluate, "--ablate-conventions")
