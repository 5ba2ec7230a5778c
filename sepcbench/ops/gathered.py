"""A deformable convolution by gathering rows: the fastest forward on a CPU, all levels at once."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

Pair = tuple[int, int]
Sizes = tuple[int, int, int, int, int]  # N, H, W of a map, h, w of its output
_CHUNK = 512  # output cells whose columns are held at a time: 256 channels of them fit a cache


def gathered_conv2d(
    x: Tensor,
    offset: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Pair,
    padding: Pair,
    mask: Tensor | None = None,
) -> Tensor:
    """Compute what `torchvision.ops.deform_conv2d` computes, forward only.

    Every sampled value is a weighted sum of four rows of the map with channels last
    (`embedding_bag`); the kernel is one matrix product with what was sampled. Values outside the
    map are 0. Positions are computed in float32 whatever the dtype of the maps.

    Args:
        x: (N, C, H, W), float32, float16 or bfloat16.
        offset: (N, 2 * kh * kw, h, w), (dy, dx) of each tap in cells, taps by row.
        weight: (O, C / groups, kh, kw); in torch.channels_last nothing of it is copied.
        bias: (O,) or None.
        stride: (y, x).
        padding: (y, x).
        mask: (N, kh * kw, h, w), what each sampled value is multiplied by; None for 1.

    Returns:
        (N, O, h, w), channels last.
    """
    masks = None if mask is None else [mask]
    return gathered_levels([x], [offset], weight, bias, stride, padding, masks)[0]


def gathered_levels(
    maps: Sequence[Tensor],
    offsets: Sequence[Tensor],
    weight: Tensor,
    bias: Tensor | None,
    stride: Pair,
    padding: Pair,
    masks: Sequence[Tensor] | None = None,
) -> list[Tensor]:
    """`gathered_conv2d` with one kernel on the levels of a pyramid, in one gather.

    Args:
        maps: (N, C, H, W) of each level.
        offsets: of each level, as are the `masks`; all else as in `gathered_conv2d`.
    """
    rows, columns = weight.shape[2:]
    sizes = tuple((*_shape(x), *_shape(moved)[1:]) for x, moved in zip(maps, offsets, strict=True))
    plan = _plan(sizes, (rows, columns), stride, padding, maps[0].device)  # type: ignore[arg-type]
    index, share = _corners(plan, _rows(offsets).unflatten(1, (rows * columns, 2)))
    if masks is not None:
        share = share * _rows(masks)[:, :, None, None]
    table = _rows(maps)
    return _levels(_multiply(table, index, share.to(table.dtype), weight, bias), offsets)


class Plan(NamedTuple):
    """Where the P output cells of all levels and images read while no tap is moved.

    Attributes:
        places: (P, taps, 2) float32, (y, x) of each tap on its map.
        last: (P, 1, 2, 1) float32, the last row and column of the map.
        width: (P, 1, 1, 1) int32, columns of the map.
        start: (P, 1, 1, 1) int32, where the map starts in the table of all rows.
    """

    places: Tensor
    last: Tensor
    width: Tensor
    start: Tensor


@lru_cache(maxsize=64)
@torch.inference_mode(False)
def _plan(
    sizes: tuple[Sizes, ...], kernel: Pair, stride: Pair, padding: Pair, device: torch.device
) -> Plan:
    """Lay out levels; kept, since a detector asks for the same few again and again."""
    parts, start = [], 0
    for batch, height, width, rows, columns in sizes:
        y = _axis(kernel[0], rows, stride[0], padding[0])[:, None, :, None]
        x = _axis(kernel[1], columns, stride[1], padding[1])[None, :, None, :]
        shape = (rows, columns, *kernel)
        places = torch.stack([y.expand(shape), x.expand(shape)], dim=-1)
        places = places.reshape(rows * columns, kernel[0] * kernel[1], 2).repeat(batch, 1, 1)
        ones = torch.ones(len(places), 1, 1, 1, dtype=torch.int32)
        image = torch.arange(batch, dtype=torch.int32).repeat_interleave(rows * columns)
        starts = start + image[:, None, None, None] * (height * width)
        last = torch.tensor([height - 1.0, width - 1.0])[:, None] * ones
        parts.append(Plan(places, last, ones * width, starts))
        start += batch * height * width
    return Plan(*(torch.cat(part).to(device) for part in zip(*parts)))


def _axis(taps: int, cells: int, stride: int, padding: int) -> Tensor:
    """Where each tap reads for each output cell, (cells, taps)."""
    first = torch.arange(cells, dtype=torch.float32) * stride - padding
    return first[:, None] + torch.arange(taps, dtype=torch.float32)


def _corners(plan: Plan, offset: Tensor) -> tuple[Tensor, Tensor]:
    """The four rows that each sampled value is a sum of, and their shares, (P, taps, 2, 2)."""
    place = (plan.places + offset)[..., None]  # (P, taps, (y, x), 1)
    low = place.floor()
    corner = torch.cat([low, low + 1], dim=-1)  # (P, taps, (y, x), (low, high))
    inside = corner.clamp(min=0).minimum(plan.last)
    share = (1 - (place - corner).abs()) * (inside == corner)
    # to int, then clamped: an offset that is no number must not read outside the table
    cell = corner.int().clamp(min=0).minimum(plan.last.int())
    index = cell[:, :, 0, :, None] * plan.width + cell[:, :, 1, None, :] + plan.start
    return index, share[:, :, 0, :, None] * share[:, :, 1, None, :]


def _multiply(
    table: Tensor, index: Tensor, share: Tensor, weight: Tensor, bias: Tensor | None
) -> Tensor:
    """Gather from the table (rows, C) and multiply with the kernel: (P, O)."""
    cells, outputs = len(index), weight.shape[0]
    bags, shares = index.flatten(2).flatten(0, 1), share.flatten(2).flatten(0, 1)  # (P * taps, 4)
    taps = len(bags) // max(cells, 1)
    out = table.new_empty(cells, outputs)
    for first in range(0, cells, _CHUNK):
        part = slice(first * taps, (first + _CHUNK) * taps)
        values = F.embedding_bag(bags[part], table, mode="sum", per_sample_weights=shares[part])
        _product(values.unflatten(0, (-1, taps)), weight, out[first : first + _CHUNK])
    return out if bias is None else out.add_(bias)


def _product(values: Tensor, weight: Tensor, out: Tensor) -> None:
    """Write values (P, taps, C) times the kernel to `out` (P, O)."""
    groups = values.shape[2] // weight.shape[1]
    kernel = weight.permute(0, 2, 3, 1).flatten(1)  # (O, taps * C / groups)
    inputs = values.unflatten(2, (groups, -1)).permute(2, 0, 1, 3).flatten(2)
    for rows, part, place in zip(inputs, kernel.chunk(groups), out.chunk(groups, dim=1)):
        place.copy_(rows @ part.t()) if groups > 1 else torch.mm(rows, part.t(), out=place)


def _shape(x: Tensor) -> tuple[int, int, int]:
    return int(x.shape[0]), int(x.shape[2]), int(x.shape[3])


def _rows(maps: Sequence[Tensor]) -> Tensor:
    """Levels (N, C, H, W) to a row per cell (cells, C): by level, image, row, column."""
    rows = [x.permute(0, 2, 3, 1).reshape(-1, x.shape[1]) for x in maps]
    return rows[0] if len(rows) == 1 else torch.cat(rows)


def _levels(rows: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """Undo `_rows`, to maps of the sizes of `like`."""
    sizes = [_shape(x) for x in like]
    parts = rows.split([batch * height * width for batch, height, width in sizes])
    return [part.view(*size, rows.shape[1]).permute(0, 3, 1, 2) for part, size in zip(parts, sizes)]
