"""RetinaNet's objective: assignment by hand, losses against their formulas."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from sepcbench.heads import LevelOutput
from sepcbench.ops.boxes import encode
from sepcbench.specs import NATIVE, RetinaSpec
from sepcbench.training.objectives import Target
from sepcbench.training.objectives.matches import IGNORED, NEGATIVE
from sepcbench.training.objectives.retina import assign, level_losses

SPEC = RetinaSpec(depth=0, smooth_l1_beta=0.5)
NONE = torch.empty(0, 4)


def box(width: float, height: float = 10.0, x: float = 0.0) -> list[float]:
    return [x, 0.0, x + width, height]


def test_thresholds_of_iou() -> None:
    anchors = torch.tensor([box(10), box(6), box(4.5), box(3), box(10, x=50)])
    got = assign(anchors, torch.tensor([box(10)]), SPEC, NATIVE)
    assert got.tolist() == [0, 0, IGNORED, NEGATIVE, NEGATIVE]


def test_a_box_that_no_anchor_fits_keeps_its_best_anchors() -> None:
    anchors = torch.tensor([box(3), box(3), box(2), box(10, x=50)])
    got = assign(anchors, torch.tensor([box(10)]), SPEC, NATIVE)
    assert got.tolist() == [0, 0, NEGATIVE, NEGATIVE]


def test_the_later_box_gets_a_contested_anchor() -> None:
    anchors, boxes = torch.tensor([box(10)]), torch.tensor([box(10), box(3)])
    assert assign(anchors, boxes, SPEC, NATIVE).tolist() == [1]


def test_a_box_outside_all_anchors_gets_none() -> None:
    anchors = torch.tensor([box(10), box(8)])
    got = assign(anchors, torch.tensor([box(10, x=500)]), SPEC, NATIVE)
    assert got.tolist() == [NEGATIVE, NEGATIVE]


def test_an_image_without_objects_is_all_negative() -> None:
    assert assign(torch.rand(5, 4), NONE, SPEC, NATIVE).tolist() == [NEGATIVE] * 5


def one_level(logits: Tensor, deltas: Tensor) -> LevelOutput:
    """Map of one row: logits (N, cells, K), deltas (N, cells, 4), one anchor per cell."""
    return LevelOutput(logits.permute(0, 2, 1)[:, :, None], deltas.permute(0, 2, 1)[:, :, None])


def test_losses_are_focal_and_smooth_l1_over_the_positives_of_the_batch() -> None:
    torch.manual_seed(0)
    anchors = torch.tensor([box(10), box(6), box(4.5), box(10, x=50)])  # two positives, one ignored
    logits, deltas = torch.randn(2, 4, 3), torch.randn(2, 4, 4)
    targets = [
        Target(torch.tensor([box(10)]), torch.tensor([2])),
        Target(NONE, torch.empty(0, dtype=torch.int64)),
    ]
    got = level_losses([one_level(logits, deltas)], [anchors], targets, SPEC, 3, NATIVE)
    focal = 0.0
    for image in range(2):
        for cell in range(4):
            if image == 0 and cell == 2:
                continue
            for k in range(3):
                p = 1 / (1 + math.exp(-float(logits[image, cell, k])))
                hit = image == 0 and cell in (0, 1) and k == 2
                pt, alpha = (p, 0.25) if hit else (1 - p, 0.75)
                focal -= alpha * (1 - pt) ** 2 * math.log(pt)
    wanted = encode(anchors[:2], targets[0].boxes.expand(2, 4), SPEC.box_stds, NATIVE)
    distance = (deltas[0, :2] - wanted).abs()
    smooth = torch.where(distance < 0.5, distance**2 / (2 * 0.5), distance - 0.5 / 2).sum()
    # two positives in the first image; the second image counts as one
    assert float(got.cls[0]) == pytest.approx(focal / 3, rel=1e-5)
    assert float(got.box[0]) == pytest.approx(float(smooth) / 3, rel=1e-5)


def test_a_batch_without_objects_has_finite_losses_and_gradients() -> None:
    logits, deltas = torch.randn(1, 4, 3), torch.randn(1, 4, 4)
    logits.requires_grad_(), deltas.requires_grad_()
    targets = [Target(NONE, torch.empty(0, dtype=torch.int64))]
    anchors = torch.tensor([box(10)] * 4)
    got = level_losses([one_level(logits, deltas)], [anchors], targets, SPEC, 3, NATIVE)
    (got.cls[0] + got.box[0]).backward()
    assert float(got.box[0].detach()) == 0
    assert logits.grad.isfinite().all()
    assert not deltas.grad.any()


def test_objects_of_several_images_are_not_mixed() -> None:
    """The same anchors, another class and box in each image."""
    anchors = torch.tensor([box(10), box(10, x=50)])
    targets = [
        Target(torch.tensor([box(10)]), torch.tensor([0])),
        Target(torch.tensor([box(10, x=500), box(10, x=50)]), torch.tensor([1, 2])),
    ]
    logits = torch.full((2, 2, 3), -20.0)
    logits[0, 0, 0] = logits[1, 1, 2] = 20.0
    exact = [encode(anchors, anchors, SPEC.box_stds, NATIVE)] * 2
    got = level_losses([one_level(logits, torch.stack(exact))], [anchors], targets, SPEC, 3, NATIVE)
    assert float(got.cls[0]) < 1e-6
    assert float(got.box[0]) == 0
