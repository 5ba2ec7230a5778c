"""FSAF's training losses and their gradients against mmdetection 1.1 and 2.25."""

from __future__ import annotations

import numpy as np
import pytest
from golden.ground_truth import leaf_maps, targets_of
from golden.scheme import Case, case_names

from sepcbench.heads.fsaf import FsafHead
from sepcbench.specs import CONVENTIONS, FsafSpec
from sepcbench.training.objectives.fsaf import level_losses

STRIDES = (8, 16, 32, 64, 128)


@pytest.mark.parametrize("name", case_names("loss*/fsaf*"))
def test_losses(name: str) -> None:
    case = Case(name)
    how = CONVENTIONS["mmdet1" if case.info["semantics"] == "mmdet 1.1" else "mmdet2"]
    spec = FsafSpec(depth=0)
    head = FsafHead(spec, (64,) * 5, 80, STRIDES, how)
    cls, box, outputs = leaf_maps(case)
    grids = head.anchors(outputs, tuple(case.info["pad_shape"][:2]))
    losses = level_losses(outputs, grids, targets_of(case), spec, 80, how)
    wanted = case.info["losses"]
    for kind, ours in (("loss_cls", losses.cls), ("loss_bbox", losses.box)):
        got = [float(x.detach()) for x in ours]
        np.testing.assert_allclose(got, wanted[kind], rtol=1e-4, atol=1e-6)
    (sum(losses.cls) + sum(losses.box)).backward()
    for kind, maps in (("cls_score", cls), ("bbox_pred", box)):
        for level, x in enumerate(maps):
            wanted_norm = case.info["map_grads"][f"{kind}{level}"]
            if wanted_norm is None:  # not stored
                assert x.grad.isfinite().all()
                continue
            norm = float(x.grad.double().norm())
            np.testing.assert_allclose(norm, wanted_norm, rtol=3e-3, atol=1e-9)
            case.check_gradient(f"grad.{kind}{level}", x.grad)
