"""The gathered deformable conv against torchvision's."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torchvision.ops import deform_conv2d

from sepcbench.engines.outputs import output_error
from sepcbench.ops import gathered
from sepcbench.ops.gathered import gathered_conv2d, gathered_levels

LIMITS = {torch.float32: 1e-5, torch.float16: 2e-2, torch.bfloat16: 2e-2}


def inputs(
    size: tuple[int, int],
    stride: int = 1,
    padding: int = 1,
    groups: int = 1,
    kernel: tuple[int, int] = (3, 3),
    far: float = 1.5,
) -> dict[str, Tensor]:
    """Random tensors, offsets of about `far` cells."""
    torch.manual_seed(sum(size) + stride + padding + groups)
    out = [(side + 2 * padding - k) // stride + 1 for side, k in zip(size, kernel)]
    taps = kernel[0] * kernel[1]
    return {
        "x": torch.randn(2, 8, *size),
        "offset": torch.randn(2, 2 * taps, *out) * far,
        "weight": torch.randn(6, 8 // groups, *kernel),
        "bias": torch.randn(6),
        "mask": torch.rand(2, taps, *out),
    }


def both(given: dict[str, Tensor | None], stride: int = 1, padding: int = 1) -> float:
    """The error of the gathered one in the dtype given, to torchvision's in float32."""
    sides = (stride, stride), (padding, padding)
    wide = {name: None if t is None else t.float() for name, t in given.items()}
    x, offset, weight, bias, mask = wide.values()
    theirs = deform_conv2d(x, offset, weight, bias, *sides, mask=mask)
    x, offset, weight, bias, mask = given.values()
    ours = gathered_conv2d(x, offset, weight, bias, *sides, mask)
    assert ours.dtype == x.dtype
    return output_error(ours, theirs)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("padding", [0, 1])
@pytest.mark.parametrize("size", [(9, 7), (4, 4), (3, 5)])
@pytest.mark.parametrize("masked", [False, True])
def test_it_is_what_torchvision_computes(
    stride: int, padding: int, size: tuple[int, int], masked: bool
) -> None:
    given: dict[str, Tensor | None] = {**inputs(size, stride, padding)}
    if not masked:
        given["mask"] = None
    assert both(given, stride, padding) <= LIMITS[torch.float32]


@pytest.mark.parametrize("far", [0.0, 4.0, 100.0])
def test_taps_beyond_the_borders_read_zero(far: float) -> None:
    assert both(inputs((6, 5), far=far)) <= LIMITS[torch.float32]


@pytest.mark.parametrize("shift", [-1.0, -0.5, 0.5, 1.0, 1.5])
def test_taps_on_and_around_the_edges(shift: float) -> None:
    given = inputs((4, 3))
    given["offset"] = torch.full_like(given["offset"], shift)
    assert both(given) <= LIMITS[torch.float32]


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("kernel", [(1, 1), (3, 3), (2, 3), (5, 5)])
def test_groups_and_kernels_of_other_sizes(groups: int, kernel: tuple[int, int]) -> None:
    given = {**inputs((9, 7), groups=groups, kernel=kernel), "bias": None}
    assert both(given) <= LIMITS[torch.float32]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("channels_last", [False, True])
def test_half_precision_and_memory_formats(dtype: torch.dtype, channels_last: bool) -> None:
    layout = torch.channels_last if channels_last else torch.contiguous_format
    given = {name: t.to(dtype) for name, t in inputs((9, 7)).items()}
    for name in ("x", "offset", "weight"):
        given[name] = given[name].contiguous(memory_format=layout)
    assert both(given) <= LIMITS[dtype]


def test_more_cells_than_are_held_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gathered, "_CHUNK", 7)
    assert both(inputs((9, 7))) <= LIMITS[torch.float32]


@pytest.mark.parametrize("stride", [1, 2])
def test_levels_together_are_levels_one_by_one(stride: int) -> None:
    of = [inputs(size, stride) for size in ((9, 7), (5, 4), (1, 1))]
    weight, bias, sides = of[0]["weight"], of[0]["bias"], ((stride, stride), (1, 1))
    maps, offsets, masks = ([level[name] for level in of] for name in ("x", "offset", "mask"))
    together = gathered_levels(maps, offsets, weight, bias, *sides, masks)
    for x, offset, mask, found in zip(maps, offsets, masks, together):
        theirs = deform_conv2d(x, offset, weight, bias, *sides, mask=mask)
        assert output_error(found, theirs) <= LIMITS[torch.float32]


def test_offsets_that_are_no_numbers_read_nothing_outside_the_map() -> None:
    given = inputs((4, 4))
    given["offset"][0, 0, 0, 0] = math.nan
    given["offset"][1, 3, 2, 2] = math.inf
    x, offset, weight, bias, _ = given.values()
    found = gathered_conv2d(x, offset, weight, bias, (1, 1), (1, 1))
    spoilt = found.isnan().any(dim=1).nonzero().tolist()
    assert spoilt in ([[0, 0, 0], [1, 2, 2]], [[0, 0, 0]])


def test_an_empty_batch() -> None:
    x, offset, weight, bias, _ = (t[:0] if t.dim() == 4 else t for t in inputs((4, 4)).values())
    weight = inputs((4, 4))["weight"]
    assert gathered_conv2d(x, offset, weight, bias, (1, 1), (1, 1)).shape == (0, 6, 4, 4)
