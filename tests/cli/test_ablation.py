"""`sepcbench eval --ablate-conventions` from the command line."""

from __future__ import annotations

import json

import pytest
import torch

from sepcbench.checkpoints.native import save
from sepcbench.cli.app import run
from sepcbench.conventions import CONVENTIONS
from sepcbench.data.shapes import CLASSES, generate
from sepcbench.detectors import build
from sepcbench.variants import variant


@pytest.fixture(scope="module")
def call(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("ablation")
    generate(folder / "shapes", images=1, val_images=3, seed=0, size=(64, 64))
    torch.manual_seed(0)
    small = {"short_side": 64, "long_side": 64, "score_threshold": 0.0}
    save(folder / "tiny.safetensors", build(variant("fsaf_tiny_fpn", small)), CLASSES, None)
    return ["eval", str(folder / "tiny.safetensors"), "--data", str(folder / "shapes")]


def test_its_own_row_is_the_evaluation(call: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*call, "--conventions", "mmdet2", "--format", "json"]) == 0
    (plain,) = json.loads(capsys.readouterr().out)
    plain["bands"] = []  # finer sizes are not scored for every set
    ablation = [*call, "--conventions", "mmdet2", "--ablate-conventions", "--format", "json"]
    assert run(ablation) == 0
    own, *others = json.loads(capsys.readouterr().out)
    assert (own["conventions"], own["used"]) == ("mmdet2", True)
    assert {key: plain[key] for key in own["complete"]} == own["complete"] == own["same_outputs"]
    assert {row["conventions"] for row in others} == set(CONVENTIONS) - {"mmdet2"}
    assert own["variant"] == "fsaf_tiny_fpn"
    assert any("held fixed" in note for note in own["notes"])
    differing = {row["conventions"]: row["differing"] for row in others}
    assert differing["native"] == []
    assert {"side_order", "side_unit", "pad_divisor"} <= set(differing["mmdet1"])
    assert not any(row["used"] for row in others)


def test_the_table_says_what_is_held_fixed(
    call: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*call, "--ablate-conventions", "--limit", "1", "--format", "md"]) == 0
    text = capsys.readouterr().out
    assert "| native (used) |" in text
    assert "held fixed: weights, images" in text
    assert "detectron2 differs in" in text


@pytest.mark.parametrize("more", [["--per-class"], ["--save-detections", "d.json"]])
def test_what_it_does_not_go_with_has_its_line(
    call: list[str], more: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*call, "--ablate-conventions", *more]) == 2
    assert "--ablate-conventions takes one checkpoint" in capsys.readouterr().err
