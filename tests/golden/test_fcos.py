"""FCOS's points, training losses and their gradients against mmdetection 1.1 and 2.25."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from golden.ground_truth import check_losses, leaf_outputs, targets_of
from golden.scheme import Case, case_names

from sepcbench.heads.fcos import FcosHead
from sepcbench.ops.anchors import grid_points
from sepcbench.specs import CONVENTIONS, FcosSpec
from sepcbench.training.objectives.fcos import lay_points, losses

STRIDES = (8, 16, 32, 64, 128)


def test_points() -> None:
    case, how = Case("prims2x/points_fcos"), CONVENTIONS["mmdet2"]
    for level, stride in enumerate(STRIDES):
        size = tuple(case.info["level_sizes"][level])
        points = grid_points(stride, size, (stride, stride), how)
        case.check(f"grid{level}", points, atol=1e-4, rtol=1e-6)


@pytest.mark.parametrize("name", case_names("loss*/fcos*"))
def test_losses(name: str) -> None:
    case = Case(name)
    how = CONVENTIONS["mmdet1" if case.info["semantics"] == "mmdet 1.1" else "mmdet2"]
    head = FcosHead(FcosSpec(depth=0), (64,) * 5, 80, STRIDES, how)
    outputs = leaf_outputs(case)
    points = lay_points(head.priors(outputs, (288, 320)), STRIDES, head.spec)
    ours = losses(outputs, points, targets_of(case), head.spec, 80, how)
    check_losses(case, ours, outputs)


def test_the_divisor_shows() -> None:
    """With the focal loss divided as the other version does, the reference does not fit."""
    case = Case("loss11/fcos_b2")
    how = replace(CONVENTIONS["mmdet1"], focal_divisor="positives")
    head = FcosHead(FcosSpec(depth=0), (64,) * 5, 80, STRIDES, how)
    outputs = leaf_outputs(case)
    points = lay_points(head.priors(outputs, (288, 320)), STRIDES, head.spec)
    ours = losses(outputs, points, targets_of(case), head.spec, 80, how)
    wanted = np.sum(case.info["losses"]["loss_cls"])
    assert abs(float(ours["cls"].detach()) / wanted - 1) > 4e-3
