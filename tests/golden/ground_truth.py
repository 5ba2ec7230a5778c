"""What the loss cases have in common: ground truth and maps that gradients are taken of."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from golden.scheme import Case
from torch import Tensor

from sepcbench.heads import LevelOutput
from sepcbench.training.objectives import Target


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


def leaf_maps(case: Case) -> tuple[list[Tensor], list[Tensor], list[LevelOutput]]:
    """Class and box maps that collect gradients, and the outputs made of them."""
    cls = [x.clone().requires_grad_() for x in case.levels("cls_score")]
    box = [x.clone().requires_grad_() for x in case.levels("bbox_pred")]
    return cls, box, [LevelOutput(*pair) for pair in zip(cls, box, strict=True)]


def leaf_outputs(case: Case) -> list[LevelOutput]:
    """Outputs with centerness that collect gradients."""
    kinds = [case.levels(kind) for kind in ("cls_score", "bbox_pred", "centerness")]
    leaves = [[x.clone().requires_grad_() for x in maps] for maps in kinds]
    return [LevelOutput(*maps) for maps in zip(*leaves, strict=True)]


def check_losses(case: Case, losses: Mapping[str, Tensor], outputs: list[LevelOutput]) -> None:
    """Compare losses, summed over levels, and the gradients on the maps of `leaf_outputs`."""
    for ours, theirs in (("cls", "cls"), ("box", "bbox"), ("centerness", "centerness")):
        wanted = np.sum(case.info["losses"][f"loss_{theirs}"])
        np.testing.assert_allclose(float(losses[ours].detach()), wanted, rtol=1e-3, err_msg=ours)
    total = sum(losses.values())
    np.testing.assert_allclose(float(total.detach()), case.info["total"], rtol=1e-4)
    total.backward()
    for level, output in enumerate(outputs):
        for kind, x in zip(("cls_score", "bbox_pred", "centerness"), output):
            wanted = case.info["map_grads"][f"{kind}{level}"]
            norm = float(x.grad.double().norm())
            np.testing.assert_allclose(norm, wanted, rtol=3e-3, atol=1e-9, err_msg=kind)
            case.check_gradient(f"grad.{kind}{level}", x.grad)
