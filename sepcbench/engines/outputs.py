"""How far the outputs of an engine are from those of plain eager code."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from sepcbench.heads import RoiOutput
from sepcbench.own_modules import tensors
from sepcbench.specs import Dtype

TOLERANCES: dict[Dtype, float] = {"fp32": 1e-4, "tf32": 2e-2, "fp16": 2e-2, "bf16": 2e-2}
"""The largest `output_error` with which an engine still computes the same."""

_SAME_BOX = 0.01  # pixels


def output_error(found: Any, expected: Any) -> float:
    """How far outputs are from those of plain code: the largest relative error of any tensor.

    Euclidean norms are compared, not single values: in half precision the largest difference of a
    million values is rounding alone, and above 2e-2 between two equally good deformable towers. In
    float32 one wrong cell of a large map still shows at 1e-4.

    Args:
        found: tensors in nested lists, tuples and dicts.
        expected: the same tensors, from plain code.

    Returns:
        The maximum over tensors of ||found - expected|| / ||expected||; infinite where shapes or
        the number of tensors differ, or where something is not a number. Of a second stage only
        where the proposals are the same: which ones are chosen hangs on the last digit.
    """
    if isinstance(found, RoiOutput) and isinstance(expected, RoiOutput):
        found, expected = _comparable(found, expected)
    ours, theirs = tensors(found), tensors(expected)
    if len(ours) != len(theirs):
        return math.inf
    return max((_error(one, other) for one, other in zip(ours, theirs)), default=0.0)


def allowed_error(dtype: Dtype, rounding: float = 0.0) -> float:
    """The largest `output_error` of an engine that computes the same as eager code.

    In bfloat16 the rounding of a whole detector with deformable towers is itself above 2e-2: eager
    code is that far from what it gives in float32, and another order of sums is that far from it.

    Args:
        dtype: of weights and inputs.
        rounding: `output_error` of eager code in `dtype` to eager code in float32, with the same
            weights and inputs; 0 where that is not known.
    """
    return max(TOLERANCES[dtype], 2 * rounding)


def _comparable(found: RoiOutput, expected: RoiOutput) -> tuple[RoiOutput, RoiOutput]:
    """Both without their second stages if these have looked at different boxes."""
    ours, theirs = found.proposals or [], expected.proposals or []
    same = len(ours) == len(theirs) and all(
        one.shape == other.shape and torch.allclose(one, other.to(one), rtol=0, atol=_SAME_BOX)
        for one, other in zip(ours, theirs)
    )
    if same:
        return found, expected
    return RoiOutput(found.pyramid, found.rpn), RoiOutput(expected.pyramid, expected.rpn)


def _error(found: Tensor, expected: Tensor) -> float:
    if found.shape != expected.shape:
        return math.inf
    if not expected.numel():
        return 0.0
    ours, theirs = found.detach().to(expected.device).double(), expected.detach().double()
    difference, size = float((ours - theirs).norm()), float(theirs.norm())
    if not math.isfinite(difference) or not math.isfinite(size):
        # the same infinities in the same places are the same
        return 0.0 if torch.equal(ours, theirs) else math.inf
    if size == 0.0:
        return 0.0 if difference == 0.0 else math.inf
    return difference / size
