"""Deformable convs in half precision: the same sums, rounded."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sepcbench.heads.rep_points import PointConv
from sepcbench.ops.convs import LevelConv
from sepcbench.ops.deformable import DeformableConv, deformed


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_bfloat16_is_computed_in_float32(training: bool, masked: bool, bias: bool) -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(4, 6, 3, padding=1, bias=bias).bfloat16().train(training)
    x = torch.randn(2, 4, 7, 5).bfloat16()
    offset = torch.randn(2, 18, 7, 5).bfloat16()
    mask = torch.rand(2, 9, 7, 5).bfloat16() if masked else None
    got = deformed(conv, x, offset, mask)
    assert got.dtype == torch.bfloat16
    wide = nn.Conv2d(4, 6, 3, padding=1, bias=bias).train(training)
    wide.load_state_dict(conv.state_dict())
    wanted = deformed(wide, x.float(), offset.float(), None if mask is None else mask.float())
    assert torch.equal(got, wanted.bfloat16())
    if training:
        got.float().sum().backward()
        assert conv.weight.grad is not None
        assert conv.weight.grad.dtype == torch.bfloat16


def test_every_deformable_conv_runs_in_bfloat16() -> None:
    x, points = torch.randn(1, 8, 6, 6).bfloat16(), torch.randn(1, 18, 6, 6).bfloat16()
    plain = nn.Conv2d(8, 8, 3, padding=1, bias=False)
    convs = [LevelConv(8, 8, deform_from=0)]
    convs += [DeformableConv.like(plain, kind) for kind in ("v1", "v2")]
    for conv in convs:
        assert conv.bfloat16().eval()(x).dtype == torch.bfloat16
    assert PointConv(8, 8, 3).bfloat16().eval()(x, points).dtype == torch.bfloat16
