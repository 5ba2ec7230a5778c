"""Levels on one canvas: a conv over it gives what it gives of each level."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from sepcbench.engines.canvas import PackedPyramid, cut, lay_out, pack, rectified

SIDES = st.integers(1, 13)
SIZES = st.lists(st.tuples(SIDES, SIDES), min_size=1, max_size=5).map(tuple)


@settings(deadline=None, max_examples=60)
@given(sizes=SIZES, stride=st.sampled_from([1, 2]))
def test_a_conv_over_a_canvas_is_a_conv_over_each_level(
    sizes: tuple[tuple[int, int], ...], stride: int
) -> None:
    torch.manual_seed(0)
    levels = [torch.randn(1, 2, *size) for size in sizes]
    weight, bias = torch.randn(3, 2, 3, 3), torch.randn(3)
    canvas, layout = pack(levels)
    found = cut(F.conv2d(canvas, weight, bias, stride, 1), layout.after(stride, 1))
    for level, out in zip(levels, found, strict=True):
        torch.testing.assert_close(out, F.conv2d(level, weight, bias, stride, 1))


def test_without_padding_only_the_inside_is_left() -> None:
    levels = [torch.randn(1, 2, *size) for size in ((7, 6), (4, 3), (3, 3))]
    weight = torch.randn(3, 2, 3, 3)
    canvas, layout = pack(levels)
    found = cut(F.conv2d(canvas, weight), layout.after(1, 0))
    for level, out in zip(levels, found, strict=True):
        torch.testing.assert_close(out, F.conv2d(level, weight))


def test_half_sizes_fit_beside_the_largest() -> None:
    """P4..P7 of 800x1344: 14 % more cells than the levels have, as docs/performance.md says."""
    sizes = ((50, 84), (25, 42), (13, 21), (7, 11))
    layout = lay_out(sizes)
    assert layout.size == (50, 128)
    assert (50 * 128) / sum(rows * columns for rows, columns in sizes) == pytest.approx(
        1.143, abs=1e-3
    )


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_relu_leaves_zeros_between_the_levels(layout: torch.memory_format) -> None:
    levels = [
        torch.randn(2, 4, *size).contiguous(memory_format=layout) for size in ((5, 4), (3, 2))
    ]
    canvas, where = pack(levels)
    assert canvas.is_contiguous(memory_format=layout)
    finest = torch.randn(2, 4, 9, 8)
    dirty = PackedPyramid(finest.clone(), canvas + 1, where, clean=False)
    found = rectified(dirty)
    assert isinstance(found, PackedPyramid)
    assert found.clean
    for x, level in zip(found, [finest, *(level + 1 for level in levels)]):
        assert torch.equal(x, F.relu(level))
    assert torch.equal(found.canvas, pack([F.relu(level + 1) for level in levels])[0])


def test_relu_of_a_slice_of_channels_is_dense() -> None:
    whole = torch.randn(1, 8, 4, 4).contiguous(memory_format=torch.channels_last)
    (found,) = rectified([whole[:, :4]])
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(found, F.relu(whole[:, :4]))
