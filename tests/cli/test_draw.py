"""`sepcbench draw`, and `--draw` of `sepcbench eval`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import coco_sets
import numpy as np
import pytest
import torch
from PIL import Image

from sepcbench.checkpoints.native import save
from sepcbench.cli.app import run
from sepcbench.detectors import build
from sepcbench.variants import variant

CLASSES = ("cat", "dog")
SIDES = {"short_side": 64, "long_side": 64, "num_classes": 2, "score_threshold": 0.0}


def checkpoint(folder: Path, name: str, **fields: Any) -> Path:
    path = folder / f"{name}.safetensors"
    save(path, build(variant(name, {**SIDES, **fields}), seed=0), CLASSES, None)
    return path


def output(capsys: pytest.CaptureFixture[str], *arguments: object) -> Any:
    capsys.readouterr()
    assert run([*map(str, arguments), "--format", "json"]) == 0
    return json.loads(capsys.readouterr().out)


def size(path: str | Path) -> tuple[int, int]:
    with Image.open(path) as image:
        assert image.format == "PNG"
        return image.size


def test_all_pictures_of_a_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights, photo = checkpoint(tmp_path, "retinanet_tiny_sepc"), tmp_path / "photo.png"
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (50, 80, 3), dtype=np.uint8)).save(photo)
    call = ["draw", weights, "--image", photo, "--out", tmp_path / "made" / "here"]
    found = output(capsys, *call, "--noise", 1, "--shape", "64x96", "--at", "40,25")
    assert found["variant"] == "retinanet_tiny_sepc"
    assert "retinanet_tiny_sepc.safetensors" in found["weights"]
    pictures = found["pictures"]
    assert list(pictures) == ["offsets", "receptive-field", "heatmaps"]
    files = [Path(file) for one in pictures.values() for file in one["files"]]
    assert sorted(files) == sorted((tmp_path / "made" / "here").iterdir())
    assert [file.name for file in files] == [
        "offsets_1_pconv_1.png",
        "offsets_2_pconv_2.png",
        "offsets_3_extra_conv.png",
        "receptive_field.png",
        "heatmaps.png",
    ]
    assert all(min(size(file)) > 300 for file in files)
    assert len(pictures["offsets"]["values"]) == 2 * 11 + 8
    assert len(pictures["receptive-field"]["values"]) == 3 * 5
    assert {value["class"] for value in pictures["heatmaps"]["values"]} == set(CLASSES)


def test_random_weights_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call = [
        "draw",
        "retinanet_tiny_fpn",
        "--out",
        str(tmp_path),
        "--shape",
        "64x64",
        "--noise",
        "0",
    ]
    assert run(call) == 0
    captured = capsys.readouterr()
    assert "sepcbench: random weights: nothing has been learnt" in captured.err
    assert "random weights of seed 0" in captured.out
    words = " ".join(captured.out.split())
    assert "no offsets: variant 'retinanet_tiny_fpn' has no deformable kernels" in words
    assert {path.name for path in tmp_path.iterdir()} == {"receptive_field.png", "heatmaps.png"}
    assert run([*call[:4], "--what", "heatmaps", "--format", "md"]) == 0
    assert "| class 0 |" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["retinanet_tiny_sepcc"], "did you mean 'retinanet_tiny_sepc'"),
        (["nowhere/last.safetensors"], "is not there"),
        (["retinanet_tiny_fpn", "--what", "offsets"], "has no deformable kernels"),
        (["retinanet_tiny_fpn", "--what", "heatmap"], "did you mean 'heatmaps'"),
        (["retinanet_tiny_fpn", "--at", "3"], "--at '3' is not X,Y"),
        (["retinanet_tiny_fpn", "--image", "x.png"], "image 'x.png' is not there"),
        (["retinanet_tiny_fpn", "--shape", "16x16"], "32x32 is the least"),
        (["retinanet_tiny_fpn", "--variant", "retinanet_tiny_pconv"], "are for a checkpoint"),
        (["fast_rcnn_tiny_fpn", "--what", "heatmaps"], "scores given proposals and no maps"),
    ],
)
def test_user_errors(
    arguments: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert run(["draw", *arguments, "--out", str(out)]) == 2
    captured = capsys.readouterr()
    assert words in captured.err
    assert captured.out == ""
    assert len([line for line in captured.err.splitlines() if line.startswith("sepcbench:")]) == 1
    assert not out.exists()


def test_a_folder_that_cannot_be_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    assert run(["draw", "retinanet_tiny_fpn", "--out", str(tmp_path / "file" / "x")]) == 2
    assert "--out" in capsys.readouterr().err


def test_eval_draws_what_it_finds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, out = tmp_path / "data", tmp_path / "drawn"
    coco_sets.write(data)
    weights = checkpoint(tmp_path, "retinanet_tiny_fpn")
    call = ["eval", weights, "--data", data, "--draw", out]
    (drawn,) = output(capsys, *call, "--draw-count", 2, "--draw-score", 0)
    (plain,) = output(capsys, *call[:4])
    assert drawn == plain  # drawing changes no number
    assert [path.name for path in sorted(out.iterdir())] == ["000010_0.png", "000011_1.png"]
    assert size(out / "000010_0.png")[0] == 720
    several = tmp_path / "several"
    output(capsys, "eval", weights, weights.resolve(), "--data", data, "--draw", several)
    assert len(list(several.rglob("*.png"))) == 3


def test_eval_draws_masks_and_proposals(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tmp_path / "data"
    coco_sets.write(data, coco_sets.with_rectangles(coco_sets.document()))
    for name in ("mask_rcnn_tiny_fpn", "rpn_tiny_fpn"):
        torch.manual_seed(0)
        out = tmp_path / name
        weights = checkpoint(tmp_path, name, max_detections=5)
        output(capsys, "eval", weights, "--data", data, "--draw", out, "--draw-score", 0)
        assert len(list(out.glob("*.png"))) == 3


def test_drawing_and_ablating_exclude_each_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    coco_sets.write(tmp_path / "data")
    call = ["eval", "x.safetensors", "--data", str(tmp_path / "data"), "--ablate-conventions"]
    assert run([*call, "--draw", str(tmp_path / "out")]) == 2
    assert "--draw" in capsys.readouterr().err
