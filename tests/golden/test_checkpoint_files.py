"""A released detector's file, read as a user reads it, gives the published detections."""

from __future__ import annotations

from pathlib import Path

import lookalikes
import pytest
import torch
from golden.scheme import Case, case_names

import sepcbench

VARIANT = {"retina_baseline": "retinanet_r50_fpn", "retina_sepc": "retinanet_r50_sepc"}


@pytest.mark.parametrize("name", case_names("e2e11/*"))
def test_file_to_detections(name: str, tmp_path: Path) -> None:
    case = Case(name)
    path = lookalikes.save_mmdet(tmp_path / "epoch_12.pth", case.params, lookalikes.meta())
    detector = sepcbench.load(path, VARIANT.get(name.removeprefix("e2e11/")))
    height, width = case.info["img_shape"][:2]
    images = case.inputs["img"].clone()
    images[:, :, height:] = 0
    images[:, :, :, width:] = 0
    factor = case.info["scale_factor"] if case.info["rescale"] else 1.0
    (found,) = detector.detect(images, [(height, width)], [factor])
    case.check_detections(0, *found[:3])
    assert isinstance(found.boxes, torch.Tensor)
