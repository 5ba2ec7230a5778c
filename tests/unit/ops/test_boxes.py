"""Boxes, anchors and NMS against formulas, by hand and by brute force."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torchvision
from torch import Tensor

from sepcbench.ops.anchors import (
    cell_anchors,
    grid_anchors,
    grid_points,
    grid_step,
    octave_sizes,
    pyramid_anchors,
    pyramid_points,
)
from sepcbench.ops.boxes import clip, decode, decode_sides, encode, encode_sides, iou
from sepcbench.ops.nms import _class_by_class, _in_one_call, batched_nms, nms
from sepcbench.specs import CONVENTIONS, NATIVE

STDS = (0.1, 0.1, 0.2, 0.2)


def random_boxes(n: int, seed: int = 0, side: float = 60) -> Tensor:
    torch.manual_seed(seed)
    xy = torch.rand(n, 2) * 100
    return torch.cat([xy, xy + 1 + torch.rand(n, 2) * side], dim=1)


@pytest.mark.parametrize("name", CONVENTIONS)
def test_decode_undoes_encode(name: str) -> None:
    how = CONVENTIONS[name]
    anchors, boxes = random_boxes(50), random_boxes(50, 1)
    decoded = decode(anchors, encode(anchors, boxes, STDS, how), STDS, how)
    torch.testing.assert_close(decoded, boxes, atol=1e-3, rtol=0)


@pytest.mark.parametrize("name", CONVENTIONS)
def test_decode_undoes_encode_of_sides(name: str) -> None:
    how = CONVENTIONS[name]
    anchors, boxes = random_boxes(50), random_boxes(50, 1)
    decoded = decode_sides(anchors, encode_sides(anchors, boxes, how), how)
    torch.testing.assert_close(decoded, boxes, atol=1e-3, rtol=0)


def test_sides_by_hand() -> None:
    """Top, bottom, left, right 1 to 4 from the centre, in units of height and width."""
    distances = torch.tensor([[1.0, 2.0, 3.0, 4.0]])
    new = replace(CONVENTIONS["mmdet2"], side_unit=1.0)
    wide = torch.tensor([[-8.0, -4.0, 8.0, 4.0]])  # 16 x 8, centre 0
    assert decode_sides(wide, distances, new).tolist() == [[-48, -8, 64, 16]]
    # pixels 0..15 and 0..7, centre (8, 4); bottom first, and the last pixel is inside
    wide = torch.tensor([[0.0, 0.0, 15.0, 7.0]])
    old = decode_sides(wide, distances, CONVENTIONS["mmdet1"])
    assert old.tolist() == [[8 - 48, 4 - 16, 8 + 64 - 1, 4 + 8 - 1]]


def test_growth_is_clamped_above_and_as_the_conventions_say_below() -> None:
    anchor, deltas = torch.tensor([[0.0, 0.0, 16.0, 16.0]]), torch.tensor([[0, 0, 9.0, -9.0]])
    both = decode(anchor, deltas, (1,) * 4, CONVENTIONS["mmdet2"])[0]
    upper = decode(anchor, deltas, (1,) * 4, CONVENTIONS["torchvision"])[0]
    for box in (both, upper):
        assert float(box[2] - box[0]) == pytest.approx(1000)
    assert float(both[3] - both[1]) == pytest.approx(16 * 16 / 1000)
    assert float(upper[3] - upper[1]) == pytest.approx(16 * 2.718281828**-9, rel=1e-2)


def test_clip_leaves_room_for_the_last_pixel() -> None:
    box = torch.tensor([[-5.0, -5.0, 50.0, 50.0]])
    assert clip(box, (20, 30), CONVENTIONS["mmdet2"]).tolist() == [[0, 0, 30, 20]]
    assert clip(box, (20, 30), CONVENTIONS["mmdet1"]).tolist() == [[0, 0, 29, 19]]


def test_iou_is_torchvisions() -> None:
    a, b = random_boxes(30), random_boxes(40, 1)
    torch.testing.assert_close(iou(a, b, 0), torchvision.ops.box_iou(a, b))
    assert iou(a, b[:0], 0).shape == (30, 0)


def test_iou_with_offset_counts_pixels() -> None:
    a = torch.tensor([[0.0, 0.0, 9.0, 9.0]])  # 100 pixels
    b = torch.tensor([[5.0, 0.0, 14.0, 9.0]])  # 50 of them shared
    assert float(iou(a, b, 1)) == pytest.approx(50 / 150)


@pytest.mark.parametrize("offset", [0, 1])
def test_nms_by_brute_force(offset: int) -> None:
    boxes, scores = random_boxes(80), torch.rand(80)
    overlaps, kept = iou(boxes, boxes, offset), []
    for i in scores.argsort(descending=True).tolist():
        if all(overlaps[i, j] <= 0.5 for j in kept):
            kept.append(i)
    assert nms(boxes, scores, 0.5, offset).tolist() == kept
    assert 10 < len(kept) < 80


def test_nms_with_and_without_offset_differ() -> None:
    boxes, scores = random_boxes(200, side=6), torch.rand(200)
    assert len(nms(boxes, scores, 0.3, 1)) < len(nms(boxes, scores, 0.3, 0))


def test_batched_nms_treats_every_class_by_itself() -> None:
    boxes, scores = random_boxes(300, side=90), torch.rand(300)
    labels = torch.arange(300) % 7
    kept = batched_nms(boxes, scores, labels, 0.4)
    assert torch.equal(scores[kept], scores[kept].sort(descending=True).values)
    for label in range(7):
        members = (labels == label).nonzero().squeeze(1)
        alone = members[nms(boxes[members], scores[members], 0.4)]
        assert torch.equal(alone, kept[labels[kept] == label])
    assert len(batched_nms(boxes[:0], scores[:0], labels[:0], 0.4)) == 0


@pytest.mark.parametrize("offset", [0, 1])
def test_the_route_of_a_gpu_keeps_the_same_boxes(offset: int) -> None:
    boxes, scores = random_boxes(300, side=90) - 20, torch.rand(300)
    labels = torch.arange(300) % 7
    one = _in_one_call(boxes, scores, labels, 0.4, offset)
    assert torch.equal(one, _class_by_class(boxes, scores, labels, 0.4, offset))


def test_anchors_have_their_areas_and_ratios() -> None:
    sizes = octave_sizes(8, 4.0, 3, NATIVE)
    cell = cell_anchors(8, sizes, (0.5, 1.0, 2.0), NATIVE)
    width, height = cell[:, 2] - cell[:, 0], cell[:, 3] - cell[:, 1]
    ratios = torch.tensor([0.5, 1.0, 2.0]).repeat_interleave(3)  # ratios outer, sizes inner
    torch.testing.assert_close(height / width, ratios)
    torch.testing.assert_close((width * height).sqrt(), torch.tensor(sizes * 3))
    torch.testing.assert_close(cell[:, :2] + cell[:, 2:], torch.zeros(9, 2), atol=1e-5, rtol=0)


def test_grid_goes_by_row_column_anchor_from_zero() -> None:
    cell = torch.tensor([[-1.0, -2.0, 1.0, 2.0], [-3.0, -4.0, 3.0, 4.0]])
    grid = grid_anchors(cell, (2, 3), (16, 8)).unflatten(0, (2, 3, 2))
    assert torch.equal(grid[0, 0], cell)
    assert torch.equal(grid[1, 2, 1], cell[1] + torch.tensor([16.0, 16.0, 16.0, 16.0]))
    assert torch.equal(grid[0, 1, 0], cell[0] + torch.tensor([8.0, 0.0, 8.0, 0.0]))


def test_grid_step_is_the_stride_or_what_the_image_gives() -> None:
    image = replace(NATIVE, anchor_step="image")
    assert grid_step(128, (3, 4), (320, 448), NATIVE) == (128, 128)
    assert grid_step(128, (3, 4), (320, 448), image) == (106, 112)


@pytest.mark.parametrize("name", CONVENTIONS)
def test_a_pyramid_has_the_grids_of_its_levels(name: str) -> None:
    """Each with its own stride, sizes and step."""
    how, padded, ratios = CONVENTIONS[name], (40, 64), (0.5, 1.0)
    maps, strides = [torch.zeros(2, 1, 5, 8), torch.zeros(2, 1, 3, 4)], (8, 16)
    sizes = [[32.0], [64.0]]
    anchors = pyramid_anchors(maps, strides, sizes, ratios, padded, how)
    points = pyramid_points(maps, strides, padded, how)
    for i, (size, stride) in enumerate(zip(((5, 8), (3, 4)), strides)):
        step = grid_step(stride, size, padded, how)
        cell = cell_anchors(stride, sizes[i], ratios, how)
        assert torch.equal(anchors[i], grid_anchors(cell, size, step))
        assert torch.equal(points[i], grid_points(stride, size, step, how))


def test_the_grids_of_a_pyramid_are_where_its_maps_are() -> None:
    maps = [torch.zeros(1, 1, 2, 3, device="meta")]
    grids = pyramid_anchors(maps, (8,), [[32.0]], (1.0,), (16, 24), NATIVE)
    grids += pyramid_points(maps, (8,), (16, 24), NATIVE)
    assert [grid.device.type for grid in grids] == ["meta"] * 2
    with pytest.raises(ValueError, match="longer"):
        pyramid_points(maps, (8, 16), (16, 24), NATIVE)
