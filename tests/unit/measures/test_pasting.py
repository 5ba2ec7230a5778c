"""Pasting masks into images, against the formula on the whole grid and against torchvision."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F
from torchvision.models.detection.roi_heads import paste_masks_in_image

from sepcbench.measures.pasting import paste

SIZE = (70, 90)


def by_formula(mask: torch.Tensor, box: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Every pixel centre of the image, in the box's own coordinates, between the cells' centres."""
    x1, y1, x2, y2 = box.double().tolist()
    y = ((torch.arange(size[0]).double() + 0.5 - y1) / (y2 - y1) * 2 - 1)[:, None].expand(size)
    x = ((torch.arange(size[1]).double() + 0.5 - x1) / (x2 - x1) * 2 - 1)[None].expand(size)
    grid = torch.stack([x, y], dim=-1)[None]
    return F.grid_sample(mask[None, None].double(), grid, align_corners=False)[0, 0]


def random_box(rng: torch.Generator) -> torch.Tensor:
    """Some reach beyond the image on every side."""
    corner = torch.rand(2, generator=rng) * 110 - 20
    return torch.cat([corner, corner + torch.rand(2, generator=rng) * 60 + 0.3])


@pytest.mark.parametrize("seed", range(30))
@pytest.mark.parametrize("threshold", [0.5, 0.2])
def test_pixels_are_those_of_the_formula(seed: int, threshold: float) -> None:
    rng = torch.Generator().manual_seed(seed)
    mask, box = torch.rand(14, 14, generator=rng), random_box(rng)
    soft = by_formula(mask, box, SIZE)
    unsure = (soft - threshold).abs() < 1e-5
    pasted = paste(mask, box, SIZE, threshold)
    assert ((pasted == (soft >= threshold)) | unsure).all()
    assert pasted.shape == SIZE


def test_half_a_box_by_hand() -> None:
    """Two cells of 4 pixels, 1 and 0: halfway between their centres is the box's middle."""
    pasted = paste(torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.tensor([2.0, 1, 10, 9]), (10, 12))
    inner = torch.zeros(10, 12, dtype=torch.bool)
    inner[3:7, 2:6] = True
    assert torch.equal(pasted[3:7], inner[3:7])
    assert not pasted[:, 6:].any()


def test_a_full_mask_fills_its_box() -> None:
    pasted = paste(torch.ones(28, 28), torch.tensor([10.0, 20, 40, 60]), SIZE)
    wanted = torch.zeros(SIZE, dtype=torch.bool)
    wanted[20:60, 10:40] = True
    assert torch.equal(pasted, wanted)


@pytest.mark.parametrize("seed", range(10))
def test_torchvision_agrees_up_to_its_rounding_of_boxes(seed: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    y, x = torch.meshgrid(*[(torch.arange(28) + 0.5) / 28 - 0.5] * 2, indexing="ij")
    shift = torch.rand(2, generator=rng) * 0.2 - 0.1
    # an ellipse with soft edges somewhere in the box
    mask = (3 - 10 * ((x - shift[0]) ** 2 + 2 * (y - shift[1]) ** 2).sqrt()).sigmoid()[None]
    low = torch.randint(0, 60, (2,), generator=rng)
    box = torch.cat([low, low + torch.randint(60, 120, (2,), generator=rng)]).float()
    theirs = paste_masks_in_image(mask[None], box[None], (200, 200))
    ours = paste(mask[0], box, (200, 200), 0.5)
    wanted = theirs[0, 0] > 0.5
    assert (ours & wanted).sum() > 0.95 * (ours | wanted).sum()
    assert ours.any()


@pytest.mark.parametrize(
    "box", [[5, 5, 5, 9], [200, 5, 230, 9], [-50, 5, -20, 9], [5, -30, 9, -20]]
)
def test_boxes_of_no_size_or_outside_paste_nothing(box: list[float]) -> None:
    assert not paste(torch.ones(28, 28), torch.tensor(box, dtype=torch.float32), SIZE).any()
