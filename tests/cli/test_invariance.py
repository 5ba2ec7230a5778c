"""`sepcbench invariance` from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sepcbench.checkpoints.native import save
from sepcbench.cli.app import run
from sepcbench.data.shapes import CLASSES
from sepcbench.detectors import build
from sepcbench.variants import variant

SMALL = ["--shape", "128x128"]


def test_a_gaussian_pyramid(capsys: pytest.CaptureFixture[str]) -> None:
    call = ["invariance", "retinanet_tiny_sepc", "--gaussian", *SMALL, "--format", "json"]
    assert run(call) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["source"], found["shape"]) == ("gaussian", [128, 128])
    inside = [pair for pair in found["pairs"] if pair["inside"]]
    assert [pair["level"] for pair in inside] == [4, 5, 6, 7]
    for pair in inside:
        assert pair["plain"]["error"] < 1e-6
        assert pair["after"]["error"] < 1e-6
    assert run([*call[:-1], "md"]) == 0
    out = capsys.readouterr().out
    assert "| P4 / P3 |" in out
    assert "Gaussian pyramid, random weights, generated image of 128x128" in out


def test_a_checkpoint_an_image_and_a_plot(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights, photo, plot = (tmp_path / name for name in ("w.safetensors", "a.png", "levels.png"))
    save(weights, build(variant("retinanet_tiny_sepc"), seed=1), CLASSES, None)
    pixels = np.random.default_rng(0).integers(0, 255, (90, 120, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(photo)
    call = ["invariance", "retinanet_tiny_sepc", "--checkpoint", str(weights)]
    call += ["--image", str(photo), "--plot", str(plot)]
    assert run([*call, "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["checkpoint"] == str(weights)
    # 96x128 by the variant's conventions, padded to multiples of 64
    assert (found["source"], found["shape"]) == ("network", [128, 128])
    assert [matrix["name"] for matrix in found["matrices"]] == [
        "backbone",
        "after the fusing necks",
        "after plain PConvs",
        "after the tower",
    ]
    with Image.open(plot) as picture:
        assert picture.format == "PNG"
        assert picture.width > 2 * picture.height > 800
        assert len(picture.convert("RGB").getcolors(1 << 24) or []) > 20
    assert run([*call, "--format", "csv"]) == 0
    assert "P4 / P3," in capsys.readouterr().out


@pytest.mark.parametrize("fmt", ["table", "md", "csv"])
def test_a_variant_without_pconvs(fmt: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["invariance", "retinanet_tiny_fpn", *SMALL, "--format", fmt]) == 0
    out = capsys.readouterr().out
    assert "P4 / P3" in out
    assert "they remove" not in out
    assert not [word for word in ("plain corr.", "after err.", "ends") if word in out]
    said = "no PConvs, so only what the necks give is compared"
    assert (said in " ".join(out.split())) is (fmt != "csv")
    assert ("try 'retinanet_tiny_sepc'" in out) is (fmt != "csv")


def test_a_variant_of_one_level(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("faster_rcnn_tiny_c4", "rpn_tiny_finest"):
        assert run(["invariance", name, *SMALL]) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        (line,) = captured.err.strip().splitlines()
        assert "has one level" in line
        meant = line.partition("try '")[2].partition("'")[0]
        assert meant == name.rpartition("_")[0] + "_pconv"
        assert variant(meant)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["retinanet_tiny_sepcc"], "did you mean 'retinanet_tiny_sepc'"),
        (["retinanet_tiny_fpn", "--gaussian", *SMALL], "has no PConv to measure"),
        (["retinanet_tiny_fpn", "--image", "x.png"], "image 'x.png' is not there"),
        (["retinanet_tiny_fpn", "--image", "x.png", *SMALL], "leave it out with --image"),
        (["retinanet_tiny_fpn", "--shape", "32x128"], "64x64 is the least"),
        (["retinanet_tiny_fpn", "--plot", "nowhere/x.png"], "there is no such folder"),
        (["retinanet_tiny_fpn", "--format", "pdf"], "unknown format 'pdf'"),
        (["retinanet_tiny_fpn", "--checkpoint", "x.safetensors"], "x.safetensors"),
    ],
)
def test_user_errors(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["invariance", *arguments]) == 2
    captured = capsys.readouterr()
    assert words in captured.err
    assert captured.out == ""
    assert len(captured.err.strip().splitlines()) <= 2  # the error, after the announcement
