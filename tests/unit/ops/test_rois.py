"""Levels of RoIs and RoIAlign, from the formulas."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from sepcbench.ops.rois import join_images, pool_pyramid, pool_rois, roi_levels
from sepcbench.specs import CONVENTIONS, NATIVE


@pytest.mark.parametrize(
    ("width", "height", "level"),
    [
        (224, 224, 4),
        (223, 223, 3),
        (112, 448, 4),
        (447, 447, 4),
        (448, 448, 5),
        (112, 112, 3),
        (56, 56, 2),
        (4, 4, 2),
        (3000, 3000, 5),
        (0, 0, 2),
    ],
)
def test_level_of_a_size(width: float, height: float, level: int) -> None:
    """floor(4 + log2(sqrt(wh) / 224)), bounded by the levels there are."""
    boxes = torch.tensor([[10.0, 20, 10 + width, 20 + height]])
    assert roi_levels(boxes, 224.0, (2, 3, 4, 5), NATIVE).item() == level - 2
    assert roi_levels(boxes, 224.0, (4,), NATIVE).item() == 0
    assert roi_levels(boxes / 4, 56.0, (2, 3, 4, 5), NATIVE).item() == level - 2


def test_whole_pixels_make_boxes_larger() -> None:
    boxes = torch.tensor([[0.0, 0, 223, 223]])
    levels = [
        roi_levels(boxes, 224.0, (2, 3, 4, 5), CONVENTIONS[n]).item() for n in ("mmdet1", "mmdet2")
    ]
    assert levels == [2, 1]


@pytest.mark.parametrize("name", CONVENTIONS)
def test_a_ramp_is_read_at_the_centres_of_the_bins(name: str) -> None:
    """Averages of a linear map are its value at the middle of the bin."""
    how = CONVENTIONS[name]
    x = torch.arange(32.0).expand(1, 1, 32, 32)  # the value is the column
    box = torch.tensor([[0.0, 40, 40, 120, 120]])
    got = pool_rois(x, box, 8, 4, how)[0, 0, 0]
    low, high = 40 / 8, (120 + how.box_offset) / 8
    shift = 0.5 if how.roi_aligned else 0.0
    wanted = low - shift + (torch.arange(4) + 0.5) * (high - low) / 4
    torch.testing.assert_close(got, wanted)


def test_only_torchvision_widens_small_rois() -> None:
    x = torch.arange(32.0).expand(1, 1, 32, 32)
    box = torch.tensor([[0.0, 40, 40, 41, 41]])  # an eighth of a cell
    spans = {}
    for name in ("mmdet2", "torchvision"):
        row = pool_rois(x, box, 8, 4, CONVENTIONS[name])[0, 0, 0]
        spans[name] = float(row[3] - row[0])
    assert spans["torchvision"] == pytest.approx(3 / 4)
    assert spans["mmdet2"] == pytest.approx(3 / 4 / 8)
    narrow = replace(CONVENTIONS["torchvision"], roi_min_cells=0)
    row = pool_rois(x, box, 8, 4, narrow)[0, 0, 0]
    assert float(row[3] - row[0]) == pytest.approx(3 / 4 / 8)


def test_a_pyramid_gives_rois_in_their_order() -> None:
    """Levels are told apart by their values."""
    strides = (4, 8, 16, 32)
    pyramid = [torch.full((2, 1, 512 // s, 512 // s), float(s)) for s in strides]
    pyramid = [level + torch.tensor([0.0, 100.0]).view(2, 1, 1, 1) for level in pyramid]
    sides = [[500.0, 20, 240], [130, 20]]
    boxes = [torch.tensor([[0, 0, side, side] for side in image]) for image in sides]
    rois = join_images(boxes, pyramid[0])
    got = pool_pyramid(pyramid, rois, strides, 2, 224.0, NATIVE)
    assert got.shape == (5, 1, 2, 2)
    assert got.mean(dim=(1, 2, 3)).tolist() == [32, 4, 16, 108, 104]


def test_no_images_and_no_rois() -> None:
    pyramid = [torch.zeros(0, 3, 8, 8), torch.zeros(0, 3, 4, 4)]
    rois = join_images([], pyramid[0])
    assert rois.shape == (0, 5)
    assert pool_pyramid(pyramid, rois, (4, 8), 7, 224.0, NATIVE).shape == (0, 3, 7, 7)


def test_half_precision_reads_boxes_in_full() -> None:
    x = torch.arange(64.0).expand(1, 1, 64, 64).half()
    box = torch.tensor([[0.0, 401.3, 10, 441.7, 60]])
    got = pool_rois(x, box, 8, 2, NATIVE)
    assert got.dtype == torch.float16
    torch.testing.assert_close(
        got.float(), pool_rois(x.float(), box, 8, 2, NATIVE), atol=0.03, rtol=0
    )
