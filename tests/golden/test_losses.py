"""RetinaNet's training losses and their gradients against mmdetection 1.1 and 2.25."""

from __future__ import annotations

import numpy as np
import pytest
from golden.ground_truth import leaf_maps, targets_of
from golden.scheme import Case, case_names

from sepcbench.heads.retina import RetinaHead
from sepcbench.specs import CONVENTIONS, RetinaSpec
from sepcbench.training.objectives.retina import level_losses

STRIDES = (8, 16, 32, 64, 128)


@pytest.mark.parametrize("name", case_names("loss*/retina*"))
def test_losses(name: str) -> None:
    case = Case(name)
    old = case.info["semantics"] == "mmdet 1.1"
    how = CONVENTIONS["mmdet1" if old else "mmdet2"]
    cfg = case.info["cfg"]
    spec = RetinaSpec(depth=0, smooth_l1_beta=cfg["loss_bbox"].get("beta", 0.0))
    classes = cfg["num_classes"] - 1 if old else cfg["num_classes"]
    head = RetinaHead(spec, (64,) * 5, classes, STRIDES, how)
    cls, box, outputs = leaf_maps(case)
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
