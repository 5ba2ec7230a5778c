from __future__ import annotations

import pytest
import torch
from torchvision.ops import deform_conv2d

from sepcbench.ops.convs import LevelConv
from sepcbench.ops.sampling import sampled_conv2d


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("padding", [0, 1])
@pytest.mark.parametrize("size", [(9, 7), (4, 4), (3, 5)])
def test_it_equals_torchvision_forward_and_backward(
    stride: int, padding: int, size: tuple[int, int]
) -> None:
    torch.manual_seed(0)
    out = [(side + 2 * padding - 3) // stride + 1 for side in size]
    tensors = [
        torch.randn(shape, dtype=torch.float64, requires_grad=True)
        for shape in ((2, 4, *size), (2, 18, *out), (5, 4, 3, 3), (5,))
    ]
    sides = (stride, stride), (padding, padding)
    ours, theirs = sampled_conv2d(*tensors, *sides), deform_conv2d(*tensors, *sides)
    torch.testing.assert_close(ours, theirs)
    scale = torch.randn_like(ours)
    for mine, other in zip(
        torch.autograd.grad((ours * scale).sum(), tensors),
        torch.autograd.grad((theirs * scale).sum(), tensors),
    ):
        torch.testing.assert_close(mine, other)


def test_a_level_conv_gives_the_same_in_both_modes() -> None:
    torch.manual_seed(0)
    conv = LevelConv(8, 8, stride=2, deform_from=1).double()
    assert conv.offset is not None
    torch.nn.init.normal_(conv.offset.weight, std=0.3)
    x = torch.randn(2, 8, 9, 8, dtype=torch.float64)
    torch.testing.assert_close(conv.train()(x, 1), conv.eval()(x, 1))
