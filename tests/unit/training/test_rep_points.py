"""RepPoints' objective: assignment by hand, losses against their formulas."""

from __future__ import annotations

import pytest
import torch

from sepcbench import detectors
from sepcbench.heads.outputs import LevelOutput
from sepcbench.specs import RepPointsSpec
from sepcbench.training.objectives import Target, loss
from sepcbench.training.objectives.matches import NEGATIVE
from sepcbench.training.objectives.rep_points import assign_centres, box_loss
from sepcbench.variants import variant


def grid(size: int, stride: int) -> torch.Tensor:
    steps = torch.arange(size, dtype=torch.float32) * stride
    y, x = torch.meshgrid(steps, steps, indexing="ij")
    return torch.stack([x, y], dim=-1).flatten(0, 1)


# 8 x 8 cells of stride 8, then 4 x 4 of stride 16
CELLS = torch.cat([grid(8, 8), grid(4, 16)])
LEVELS = torch.cat([torch.full((64,), 8.0), torch.full((16,), 16.0)])


def around(x: float, y: float, width: float, height: float) -> list[float]:
    return [x - width / 2, y - height / 2, x + width / 2, y + height / 2]


def positives(*boxes: list[float]) -> dict[int, int]:
    got = assign_centres(CELLS, LEVELS, torch.tensor(boxes), 4.0)
    return {i: int(which) for i, which in enumerate(got) if which != NEGATIVE}


@pytest.mark.parametrize(
    ("width", "height", "cell"),
    [
        (32, 32, 8 * 2 + 3),  # sqrt(area) / 4 = 8: stride 8, nearest to (25, 15) is (24, 16)
        (63, 63, 8 * 2 + 3),  # 15.75 is below 16
        (64, 64, 64 + 4 * 1 + 2),  # stride 16; nearest is (32, 16)
        (128, 32, 64 + 4 * 1 + 2),  # by the area
        (8, 8, 8 * 2 + 3),  # below the finest level
        (512, 512, 64 + 4 * 1 + 2),  # above the coarsest
    ],
)
def test_one_cell_on_the_level_of_the_objects_size(width: float, height: float, cell: int) -> None:
    assert positives(around(25, 15, width, height)) == {cell: 0}


def test_the_nearest_object_in_its_own_sides_gets_a_contested_cell() -> None:
    # centres 2 and 3 pixels from the cell at (16, 16), which is 2 / 32 and 3 / 60 of the sides
    first, second = around(18, 16, 32, 32), around(19, 16, 60, 60)
    assert positives(first, second) == {8 * 2 + 2: 1}
    assert positives(second, first) == {8 * 2 + 2: 0}


def test_no_objects() -> None:
    got = assign_centres(CELLS, LEVELS, torch.empty(0, 4), 4.0)
    assert got.tolist() == [NEGATIVE] * 80


def test_box_loss_is_smooth_l1_in_base_scale_strides_per_positive() -> None:
    spec = RepPointsSpec(smooth_l1_beta=0.5)
    targets = [
        Target(torch.tensor([around(10, 10, 20, 20)]), torch.tensor([0])),
        Target(torch.empty(0, 4), torch.empty(0, dtype=torch.int64)),
    ]
    matches = torch.tensor([[0, NEGATIVE, 0], [NEGATIVE] * 3])
    boxes = torch.zeros(2, 3, 4)
    boxes[0, 0] = torch.tensor([0.0, 0.0, 20.0, 28.0])  # y2 is 8 off, a quarter of 4 * 8
    boxes[0, 2] = torch.tensor([64.0, 0.0, 20.0, 20.0])  # x1 is 64 off, one of 4 * 16
    got = box_loss(boxes, matches, torch.tensor([8.0, 8.0, 16.0]), targets, spec)
    # below beta d^2 / (2 beta), above it d - beta / 2; the second image counts as one positive
    assert float(got) == pytest.approx((0.25**2 / 1.0 + 1.0 - 0.25) / 3)


def small() -> tuple[detectors.Detector, list[LevelOutput], list[Target]]:
    detector = detectors.build(variant("reppoints_tiny_fpn"), seed=0).train()
    torch.manual_seed(0)
    outputs = detector(torch.randn(2, 3, 64, 64))
    boxes = torch.tensor([around(25, 15, 30, 24), around(40, 40, 40, 44)])
    return (
        detector,
        outputs,
        [
            Target(boxes, torch.tensor([0, 2])),
            Target(torch.empty(0, 4), torch.empty(0, dtype=torch.int64)),
        ],
    )


def test_every_part_of_the_head_learns() -> None:
    detector, outputs, targets = small()
    losses = loss(detector, outputs, targets, [(64, 64)] * 2)
    assert set(losses) == {"cls", "init", "box"}
    torch.stack(list(losses.values())).sum().backward()
    for name, parameter in detector.head.named_parameters():
        assert parameter.grad is not None, name
        assert float(parameter.grad.abs().sum()) > 0, name


def test_the_first_step_learns_from_init_alone_at_half_weight() -> None:
    detector, outputs, targets = small()
    whole = loss(detector, outputs, targets, [(64, 64)] * 2)
    detector.head.spec = RepPointsSpec(init_weight=1.0, refine_weight=3.0)  # type: ignore
    other = loss(detector, outputs, targets, [(64, 64)] * 2)
    assert float(other["init"].detach()) == pytest.approx(2 * float(whole["init"].detach()))
    assert float(other["box"].detach()) == pytest.approx(3 * float(whole["box"].detach()))


def test_images_without_objects_have_no_box_loss() -> None:
    detector, outputs, targets = small()
    losses = loss(detector, outputs, [targets[1]] * 2, [(64, 64)] * 2)
    assert float(losses["init"].detach()) == float(losses["box"].detach()) == 0
    assert float(losses["cls"].detach()) > 0
    torch.stack(list(losses.values())).sum().backward()
