"""FSAF's objective: assignment and level selection by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from sepcbench.heads.outputs import LevelOutput
from sepcbench.ops.anchors import grid_anchors
from sepcbench.specs import CONVENTIONS, NATIVE, FsafSpec
from sepcbench.training.objectives import Target
from sepcbench.training.objectives.fsaf import (
    assign,
    choose_levels,
    level_losses,
)

SPEC = FsafSpec(depth=0)
NOTHING = Target(torch.empty(0, 4), torch.empty(0, dtype=torch.int64))


def squares(size: int, stride: int) -> torch.Tensor:
    cell = torch.tensor([[-stride / 2, -stride / 2, stride / 2, stride / 2]])
    return grid_anchors(cell, (size, size), (stride, stride))


def target(*boxes: list[float], labels: list[int]) -> Target:
    return Target(torch.tensor(boxes, dtype=torch.float32), torch.tensor(labels))


def cells(*places: tuple[int, int]) -> set[int]:
    return {row * 8 + column for row, column in places}


def of(objects: torch.Tensor, which: int) -> set[int]:
    return set((objects == which).nonzero().flatten().tolist())


def test_cells_that_the_central_fifth_covers_are_positive() -> None:
    # sides 40 around (28, 28): the middle is 24..32, of the squares 20..28 and 28..36 both ways
    found = assign(squares(8, 8), target([8, 8, 48, 48], labels=[1]), SPEC, 3, NATIVE)
    assert of(found.objects, 0) == cells((3, 3), (3, 4), (4, 3), (4, 4))
    assert not found.ignored.any()


def test_a_wider_ignored_area_leaves_out_the_class_of_the_object_around_it() -> None:
    spec = replace(SPEC, ignored_area=0.5)
    one = target([8, 8, 48, 48], labels=[1])
    found = assign(squares(8, 8), one, spec, 3, NATIVE)  # 18..38: squares from 12 to 44
    around = cells(*[(r, c) for r in range(2, 6) for c in range(2, 6)]) - of(found.objects, 0)
    assert set(found.ignored[:, 1].nonzero().flatten().tolist()) == around
    assert not found.ignored[:, [0, 2]].any()
    old = replace(NATIVE, ignored_classes="all")
    every = assign(squares(8, 8), one, spec, 3, old)
    assert torch.equal(every.ignored, found.ignored[:, 1:2].expand(-1, 3))


def test_the_centre_of_a_cell_has_to_lie_in_the_object() -> None:
    # the middle 26.92..28.28 covers 1.08 x 1.08 of the square around (24, 24), a fiftieth, and less
    # than a hundredth of others; that centre lies outside the first box and in the second
    tight = assign(squares(8, 8), target([24.2, 24.2, 31, 31], labels=[0]), SPEC, 3, NATIVE)
    assert not (tight.objects >= 0).any()
    assert of(tight.ignored[:, 0].long(), 1) == cells((3, 3))
    loose = assign(squares(8, 8), target([23.8, 23.8, 31.4, 31.4], labels=[0]), SPEC, 3, NATIVE)
    assert of(loose.objects, 0) == cells((3, 3))


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
def test_the_smallest_object_gets_a_cell_and_the_others_are_ignored_there(
    order: tuple[int, ...],
) -> None:
    boxes = [[12.0, 12.0, 36.0, 36.0], [8.0, 8.0, 40.0, 40.0], [4.0, 4.0, 44.0, 44.0]]
    one = target(*[boxes[i] for i in order], labels=list(order))
    found = assign(squares(8, 8), one, SPEC, 3, NATIVE)
    middle = 3 * 8 + 3
    assert int(one.labels[found.objects[middle]]) == 0
    assert found.ignored[middle].tolist() == [False, True, True]


def test_mmdetection_1_takes_the_order_for_the_rank() -> None:
    """Areas 2nd, 3rd, 1st: large to small is [1, 2, 0], so that box 1 has the highest value."""
    boxes = [[12.0, 12.0, 36.0, 36.0], [4.0, 4.0, 44.0, 44.0], [8.0, 8.0, 40.0, 40.0]]
    one = target(*boxes, labels=[0, 1, 2])
    middle = 3 * 8 + 3
    assert int(assign(squares(8, 8), one, SPEC, 3, NATIVE).objects[middle]) == 0
    old = replace(NATIVE, overlap_rank=CONVENTIONS["mmdet1"].overlap_rank)
    assert int(assign(squares(8, 8), one, SPEC, 3, old).objects[middle]) == 1


def test_objects_choose_the_level_with_the_smallest_mean_loss() -> None:
    losses = torch.tensor([1.0, 5.0, 2.0, 7.0, 0.5])
    objects, levels = torch.tensor([0, 0, 0, 1, 1]), torch.tensor([0, 0, 1, 0, 2])
    assert choose_levels(losses, objects, levels, 3, 3).tolist() == [1, 2, 0]


def outputs(good: int) -> tuple[list[LevelOutput], list[torch.Tensor]]:
    """Two levels that see one box of 40 pixels; level `good` knows its class."""
    grids = [squares(8, 8), squares(4, 16)]
    made = []
    for level, size in enumerate((8, 4)):
        logits = torch.full((1, 3, size, size), -3.0)
        logits[:, 1] = 3.0 if level == good else -3.0
        sides = torch.full((1, 4, size, size), 20 / 4 / (8, 16)[level])
        made.append(LevelOutput(logits.requires_grad_(), sides.requires_grad_()))
    return made, grids


@pytest.mark.parametrize("good", [0, 1])
def test_only_the_best_level_learns_the_object(good: int) -> None:
    maps, grids = outputs(good)
    one = target([8, 8, 48, 48], labels=[1])
    losses = level_losses(maps, grids, [one], SPEC, 3, NATIVE)
    (sum(losses.cls) + sum(losses.box)).backward()
    for level, (output, squares_) in enumerate(zip(maps, grids)):
        objects = assign(squares_, one, SPEC, 3, NATIVE).objects
        centre = (objects >= 0).reshape(output.cls.shape[2:])
        assert centre.any()
        gradient = output.cls.grad[0]
        assert bool((gradient[1][centre] < 0).all()) == (level == good)
        assert bool((gradient[1][centre] == 0).all()) == (level != good)
        assert (gradient[[0, 2]] > 0).all()  # other classes are negative on all levels
        assert bool(output.box.grad.any()) == (level == good)


def test_losses_are_focal_and_iou_over_the_chosen_positives() -> None:
    maps, grids = outputs(good=1)
    losses = level_losses(maps, grids, [target([8, 8, 48, 48], labels=[1])], SPEC, 3, NATIVE)
    # level 1: one square, around (32, 32), 4 pixels off the centre of the box; 36 of 40 overlap
    overlap = 36 * 36
    wanted = -math.log(overlap / (2 * 1600 - overlap))
    assert [float(x.detach()) for x in losses.box] == pytest.approx([0, wanted], rel=1e-4)


def test_no_objects() -> None:
    maps, grids = outputs(good=0)
    losses = level_losses(maps, grids, [NOTHING], SPEC, 3, NATIVE)
    assert all(float(x.detach()) == 0 for x in losses.box)
    negatives = 64 + 16
    p = 1 / (1 + math.exp(3))
    low, high = -0.75 * p**2 * math.log(1 - p), -0.75 * (1 - p) ** 2 * math.log(p)
    assert float(losses.cls[1].detach()) == pytest.approx(16 * 3 * low / negatives, rel=1e-4)
    assert float(losses.cls[0].detach()) == pytest.approx(
        64 * (2 * low + high) / negatives, rel=1e-4
    )
    (sum(losses.cls) + sum(losses.box)).backward()
