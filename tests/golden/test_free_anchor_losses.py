"""FreeAnchor's training losses and their gradients against mmdetection 1.1 and 2.25."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from golden.ground_truth import leaf_maps, targets_of
from golden.scheme import Case, case_names

from sepcbench.heads.outputs import cells_first
from sepcbench.heads.retina import RetinaHead
from sepcbench.specs import CONVENTIONS, FreeAnchorSpec
from sepcbench.training.objectives.free_anchor import bag_losses

STRIDES = (8, 16, 32, 64, 128)


@pytest.mark.parametrize("name", case_names("loss*/freeanchor*"))
def test_losses(name: str) -> None:
    case = Case(name)
    how = CONVENTIONS["mmdet1" if case.info["semantics"] == "mmdet 1.1" else "mmdet2"]
    spec = FreeAnchorSpec(depth=0)
    head = RetinaHead(spec, (64,) * 5, 80, STRIDES, how)
    cls, box, outputs = leaf_maps(case)
    anchors = torch.cat(head.anchors(outputs, tuple(case.info["pad_shape"][:2])))
    logits = torch.cat([cells_first(x, 80) for x in cls], dim=1)
    deltas = torch.cat([cells_first(x, 4) for x in box], dim=1)
    losses = bag_losses(logits, deltas, anchors, targets_of(case), spec, how)
    got = [float(x.detach()) for x in losses]
    wanted = case.info["losses"]["positive_bag_loss"] + case.info["losses"]["negative_bag_loss"]
    np.testing.assert_allclose(got, wanted, rtol=1e-4)
    sum(losses).backward()
    for kind, maps in (("cls_score", cls), ("bbox_pred", box)):
        for level, x in enumerate(maps):
            wanted_norm = case.info["map_grads"][f"{kind}{level}"]
            norm = float(x.grad.double().norm())
            np.testing.assert_allclose(norm, wanted_norm, rtol=3e-3, atol=1e-9)
            case.check_gradient(f"grad.{kind}{level}", x.grad)
