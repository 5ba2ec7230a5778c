"""Boxes, xyxy in pixels: coded by anchors and points, overlap, clipping."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from sepcbench.specs import Conventions

_MAX_LOG_RATIO = math.log(1000 / 16)  # 4.135: keeps exp(dw), exp(dh) finite
_EPS = 1e-6  # below which areas are not divided by


def centres_and_sizes(boxes: Tensor, offset: int) -> tuple[Tensor, Tensor]:
    """Split (..., 4) boxes into centres (..., 2) and sizes `x2 - x1 + offset` (..., 2)."""
    low, high = boxes[..., :2], boxes[..., 2:]
    return (low + high) * 0.5, high - low + offset


def encode(anchors: Tensor, boxes: Tensor, stds: Sequence[float], how: Conventions) -> Tensor:
    """Deltas (n, 4) = (dx, dy, dw, dh) that turn anchors into boxes, divided by `stds`."""
    anchor_centre, anchor_size = centres_and_sizes(anchors, how.box_offset)
    centre, size = centres_and_sizes(boxes, how.box_offset)
    shift = (centre - anchor_centre) / anchor_size
    return torch.cat([shift, torch.log(size / anchor_size)], dim=-1) / anchors.new_tensor(stds)


def decode(anchors: Tensor, deltas: Tensor, stds: Sequence[float], how: Conventions) -> Tensor:
    """Apply deltas (n, 4) to anchors (n, 4).

    dw and dh are clamped to log(1000 / 16), on the upper or on both sides as `how` says; with
    `corner_shift` the corners move inwards, as mmdetection 1.1 does. Not clipped to an image.
    """
    # one by one, as numbers: a tensor of them would be a copy from the host, which waits
    scaled = [part * std for part, std in zip(deltas.unbind(-1), stds, strict=True)]
    deltas = torch.stack(scaled, dim=-1)
    lowest = -_MAX_LOG_RATIO if how.delta_clamp == "both" else None
    log_ratio = deltas[..., 2:].clamp(lowest, _MAX_LOG_RATIO)
    anchor_centre, anchor_size = centres_and_sizes(anchors, how.box_offset)
    centre = anchor_centre + anchor_size * deltas[..., :2]
    half = anchor_size * log_ratio.exp() * 0.5
    return torch.cat([centre - half + how.corner_shift, centre + half - how.corner_shift], dim=-1)


def encode_sides(anchors: Tensor, boxes: Tensor, how: Conventions) -> Tensor:
    """Distances (n, 4) from the centres of anchors to the sides of boxes, negative if outside.

    In units and order of `how` (fields `side_unit`, `side_order`). The arguments are (n, 4).
    """
    centre, units = _centres_and_units(anchors, how)
    low = (centre - boxes[..., :2]) / units  # left, top
    high = (boxes[..., 2:] + how.box_offset - centre) / units  # right, bottom
    (left, top), (right, bottom) = low.unbind(-1), high.unbind(-1)
    first, second = (top, bottom) if _top_first(how) else (bottom, top)
    return torch.stack([first, second, left, right], dim=-1)


def decode_sides(anchors: Tensor, distances: Tensor, how: Conventions) -> Tensor:
    """Boxes (n, 4), not clipped, from distances as `encode_sides` gives them."""
    centre, units = _centres_and_units(anchors, how)
    first, second, left, right = distances.unbind(-1)
    top, bottom = (first, second) if _top_first(how) else (second, first)
    low = centre - torch.stack([left, top], dim=-1) * units
    high = centre + torch.stack([right, bottom], dim=-1) * units - how.box_offset
    return torch.cat([low, high], dim=-1)


def encode_distances(points: Tensor, boxes: Tensor) -> Tensor:
    """Distances (..., 4) = (left, top, right, bottom) in pixels from points (..., 2) to sides."""
    return torch.cat([points - boxes[..., :2], boxes[..., 2:] - points], dim=-1)


def decode_distances(points: Tensor, distances: Tensor) -> Tensor:
    """Boxes (..., 4), not clipped, from distances as `encode_distances` gives them."""
    return torch.cat([points - distances[..., :2], points + distances[..., 2:]], dim=-1)


def _centres_and_units(anchors: Tensor, how: Conventions) -> tuple[Tensor, Tensor]:
    """Centres (n, 2) of anchors, as edges and not whole pixels count them, and units (n, 2)."""
    centre, size = centres_and_sizes(anchors, how.box_offset)
    return centre + 0.5 * how.box_offset, size * how.side_unit


def _top_first(how: Conventions) -> bool:
    return how.side_order == "top_bottom_left_right"


def clip(boxes: Tensor, size: tuple[float, float], how: Conventions) -> Tensor:
    """Clip (n, 4) to [0, width - inset] x [0, height - inset] of an image (height, width)."""
    height, width = size
    x = boxes[..., 0::2].clamp(0, width - how.clip_inset)
    y = boxes[..., 1::2].clamp(0, height - how.clip_inset)
    return torch.stack([x[..., 0], y[..., 0], x[..., 1], y[..., 1]], dim=-1)


def iou(a: Tensor, b: Tensor, offset: int) -> Tensor:
    """Intersection over union of every box of `a` (n, 4) with every box of `b` (m, 4): (n, m).

    Args:
        offset: added to widths and heights; 1 where boxes hold whole pixels.
    """
    return aligned_iou(a[:, None], b[None], offset)


def aligned_iou(a: Tensor, b: Tensor, offset: int) -> Tensor:
    """Intersection over union of boxes (..., 4) and (..., 4), one by one: (...)."""
    overlap, union = _overlap_and_union(a, b, offset)
    return overlap / union.clamp(min=_EPS)


def aligned_giou(a: Tensor, b: Tensor, offset: int) -> Tensor:
    """Generalised IoU (arXiv 1902.09630) of boxes (..., 4) and (..., 4), one by one: (...)."""
    overlap, union = _overlap_and_union(a, b, offset)
    union = union.clamp(min=_EPS)
    low = torch.minimum(a[..., :2], b[..., :2])
    high = torch.maximum(a[..., 2:], b[..., 2:])
    hull = (high - low + offset).clamp(min=0).prod(dim=-1).clamp(min=_EPS)
    return overlap / union - (hull - union) / hull


def _overlap_and_union(a: Tensor, b: Tensor, offset: int) -> tuple[Tensor, Tensor]:
    """Areas (...)."""
    low = torch.maximum(a[..., :2], b[..., :2])
    high = torch.minimum(a[..., 2:], b[..., 2:])
    overlap = (high - low + offset).clamp(min=0).prod(dim=-1)
    return overlap, areas(a, offset) + areas(b, offset) - overlap


def areas(boxes: Tensor, offset: int) -> Tensor:
    """Areas (...) of boxes (..., 4), of sides `x2 - x1 + offset`."""
    return (boxes[..., 2:] - boxes[..., :2] + offset).prod(dim=-1)
