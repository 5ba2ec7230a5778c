"""RetinaNet's training losses and their gradients against mmdetection 1.1 and 2.25."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from golden.scheme import Case, case_names

from sepcbench.heads import LevelOutput
from sepcbench.heads.retina import RetinaHead
from sepcbench.specs import CONVENTIONS, RetinaSpec
from sepcbench.training.objectives import Target
from sepcbench.training.objectives.retina import level_losses

STRIDES = (8, 16, 32, 64, 128)


def targets_of(case: Case) -> list[Target]:
    """Ground truth by the rule of the case, checked against what is stored."""
    height, width = case.info["img_shape"][:2]
    targets = []
    for i in range(len(case.info["num_gts"])):
        xy = case.inputs[f"gt{i}.xy"] * torch.tensor([0.6 * width, 0.6 * height])
        boxes = torch.cat([xy, xy + case.inputs[f"gt{i}.wh"]], dim=1)
        boxes[:, 2].clamp_(max=width - 1)
        boxes[:, 3].clamp_(max=height - 1)
        labels = case.inputs[f"gt{i}.lab"].long()
        np.testing.assert_array_equal(labels.numpy(), case.arrays[f"gt{i}.labels0"])
        case.check(f"gt{i}.boxes", boxes, atol=1e-4)
        targets.append(Target(boxes, labels))
    return targets


@pytest.mark.parametrize("name", case_names("loss11/*", "loss2x/*"))
def test_losses(name: str) -> None:
    case = Case(name)
    old = case.info["semantics"] == "mmdet 1.1"
    how = CONVENTIONS["mmdet1" if old else "mmdet2"]
    cfg = case.info["cfg"]
    spec = RetinaSpec(depth=0, smooth_l1_beta=cfg["loss_bbox"].get("beta", 0.0))
    classes = cfg["num_classes"] - 1 if old else cfg["num_classes"]
    head = RetinaHead(spec, (64,) * 5, classes, STRIDES, how)
    cls = [x.clone().requires_grad_() for x in case.levels("cls_score")]
    box = [x.clone().requires_grad_() for x in case.levels("bbox_pred")]
    outputs = [LevelOutput(*pair) for pair in zip(cls, box, strict=True)]
    grids = head.anchors(outputs, tuple(case.info["pad_shape"][:2]))
    losses = level_losses(outputs, grids, targets_of(case), spec, classes, how)
    wanted = case.info["losses"]
    close = {"rtol": 1e-3, "atol": 1e-6}
    np.testing.assert_allclose([float(x.detach()) for x in losses.cls], wanted["loss_cls"], **close)
    np.testing.assert_allclose(
        [float(x.detach()) for x in losses.box], wanted["loss_bbox"], **close
    )
    total = sum(losses.cls) + sum(losses.box)
    np.testing.assert_allclose(float(total.detach()), case.info["total"], rtol=1e-4)
    total.backward()
    for kind, maps in (("cls_score", cls), ("bbox_pred", box)):
        for level, x in enumerate(maps):
            norm = float(x.grad.double().norm())
            wanted_norm = case.info["map_grads"][f"{kind}{level}"]
            np.testing.assert_allclose(norm, wanted_norm, rtol=3e-3, atol=1e-9)
            case.check_gradient(f"grad.{kind}{level}", x.grad)
