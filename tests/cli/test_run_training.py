"""`sepcbench run --train`: scored on the way, and trained again where the first weights changed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from sepcbench.cli.app import run
from sepcbench.data.shapes import generate
from sepcbench.detectors import build
from sepcbench.variants import variant

SUITE = """
title = "Rows"
measures = ["accuracy"]
[cost]
shape = "64x64"
[latency]
shape = "64x64"
[[row]]
name = "fpn"
variant = "retinanet_tiny_fpn"
set = {short_side = 64, long_side = 64}
"""


def _training(folder: Path) -> dict[str, Any]:
    (path,) = folder.glob("results/rows/*/records/fpn.training.json")
    return json.loads(path.read_text())  # type: ignore[no-any-return]


def test_epochs_are_scored_and_weights_are_known_by_what_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.set_num_threads(1)
    (tmp_path / "rows.toml").write_text(SUITE)
    generate(tmp_path / "coco", images=4, val_images=2, seed=0, size=(64, 64))
    weights = build(variant("retinanet_tiny_fpn")).backbone.state_dict()
    torch.save(weights, "tiny.pth")
    fields = ("epochs=2", "batch=2", "pretrained=tiny.pth")
    command = ["run", "rows.toml", "--train", "--data", "coco", "--recipe", "shapes"]
    command += [word for field in fields for word in ("--recipe", field)]
    assert run(command) == 0
    first = _training(tmp_path)
    assert [at for at, _ in first["record"]["scores"]] == [2, 4]
    assert len(list(tmp_path.glob("runs/trained/*/best.safetensors"))) == 1
    assert run(command) == 0
    assert _training(tmp_path) == first
    torch.save({key: value * 2 for key, value in weights.items()}, "tiny.pth")
    assert run(command) == 0
    assert _training(tmp_path)["key"] != first["key"]
