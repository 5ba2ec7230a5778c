"""Level-aware convs: where they deform, how they start."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F
from torchvision.ops import deform_conv2d

from sepcbench.ops.convs import LevelConv, PyramidBlock, SharedConv, fusion_conv
from sepcbench.ops.norms import NORMS


def with_offsets(conv: LevelConv) -> LevelConv:
    torch.manual_seed(0)
    assert conv.offset is not None
    torch.nn.init.normal_(conv.offset.weight, std=0.2)
    torch.nn.init.normal_(conv.offset.bias, std=0.5)
    return conv


def test_a_deformable_conv_starts_as_a_plain_one() -> None:
    conv, x = LevelConv(4, 6, deform_from=0).eval(), torch.randn(2, 4, 5, 7)
    plain = F.conv2d(x, conv.weight, conv.bias, padding=1)
    torch.testing.assert_close(conv(x), plain, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("training", [True, False])
def test_deformation_starts_at_its_level(stride: int, training: bool) -> None:
    conv = with_offsets(LevelConv(4, 6, stride=stride, deform_from=1)).train(training)
    x = torch.randn(2, 4, 5, 7)
    plain = F.conv2d(x, conv.weight, conv.bias, stride, 1)
    offsets = F.conv2d(x, conv.offset.weight, conv.offset.bias, stride, 1)
    deformed = deform_conv2d(x, offsets, conv.weight, conv.bias, (stride,) * 2, (1, 1))
    assert not torch.allclose(plain, deformed, atol=1e-3)
    torch.testing.assert_close(conv(x, 0), plain)
    for level in (1, 2):
        torch.testing.assert_close(conv(x, level), deformed, atol=1e-5, rtol=1e-4)


def test_a_plain_conv_never_deforms() -> None:
    conv, x = LevelConv(4, 6), torch.randn(1, 4, 5, 7)
    assert conv.offset is None
    assert torch.equal(conv(x, 3), conv(x, 0))


def test_an_empty_batch_and_meta_tensors_keep_their_sizes() -> None:
    conv = LevelConv(4, 6, stride=2, deform_from=0).eval()
    assert conv(torch.empty(0, 4, 9, 8)).shape == (0, 6, 5, 4)
    assert conv.to("meta")(torch.empty(2, 4, 9, 8, device="meta")).shape == (2, 6, 5, 4)


def test_a_shared_conv_passes_the_index_of_the_level() -> None:
    conv = with_offsets(SharedConv(3, 3, deform_from=1)).eval()
    levels = [torch.randn(1, 3, 6, 6), torch.randn(1, 3, 3, 3)]
    fine, coarse = conv(levels)
    torch.testing.assert_close(fine, F.conv2d(levels[0], conv.weight, conv.bias, padding=1))
    torch.testing.assert_close(coarse, LevelConv.forward(conv, levels[1], 1))
    assert not torch.allclose(coarse, F.conv2d(levels[1], conv.weight, conv.bias, padding=1))


def test_a_block_is_conv_norm_relu() -> None:
    block = PyramidBlock(SharedConv(4, 4), NORMS["gn"](4, 2, 2))
    levels = [torch.randn(1, 4, 6, 6), torch.randn(1, 4, 3, 3)]
    for x, y in zip(levels, block(levels)):
        normed = F.group_norm(block.conv([x])[0], 2, block.norm.weight, block.norm.bias)
        torch.testing.assert_close(y, normed.relu())
        assert y.min() == 0


@pytest.mark.parametrize(("channels", "std"), [(256, 0.01), (512, 0.01), (32, (2 / 288) ** 0.5)])
def test_tower_convs_start_as_published_from_256_channels_on(channels: int, std: float) -> None:
    conv = LevelConv(channels, 64)
    assert float(conv.weight.detach().std()) == pytest.approx(std, rel=0.05)
    assert not conv.bias.any()


def test_a_fusion_conv_has_a_bias_or_gn() -> None:
    assert set(fusion_conv(4, 8, 3).state_dict()) == {"conv.weight", "conv.bias"}
    with_gn = fusion_conv(4, 8, 3, norm="gn", groups=2)
    assert set(with_gn.state_dict()) == {"conv.weight", "norm.weight", "norm.bias"}
