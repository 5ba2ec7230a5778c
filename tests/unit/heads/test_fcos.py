"""FCOS's and ATSS's heads: points, units of distances, scales, where centerness comes from."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from sepcbench.heads.atss import AtssHead
from sepcbench.heads.fcos import FcosHead
from sepcbench.heads.outputs import LevelOutput
from sepcbench.ops.anchors import grid_points
from sepcbench.ops.pyramid import PyramidPair
from sepcbench.specs import CONVENTIONS, NATIVE, AtssSpec, Conventions, FcosSpec

SPEC = FcosSpec(depth=1, channels=8, groups=2, ranges=(64.0,))
SIZES = ((8, 8), (4, 4))


def build(spec: FcosSpec = SPEC, how: Conventions = NATIVE) -> FcosHead:
    torch.manual_seed(0)
    return FcosHead(spec, (8, 8), 3, (8, 16), how)


def pyramid(seed: int = 0) -> list[Tensor]:
    torch.manual_seed(seed)
    return [torch.randn(2, 8, *size) for size in SIZES]


def test_one_prediction_per_cell() -> None:
    outputs = build()(pyramid())
    assert [tuple(o.cls.shape) for o in outputs] == [(2, 3, 8, 8), (2, 3, 4, 4)]
    assert [tuple(o.box.shape) for o in outputs] == [(2, 4, 8, 8), (2, 4, 4, 4)]
    assert [tuple(o.centerness.shape) for o in outputs] == [(2, 1, 8, 8), (2, 1, 4, 4)]
    assert all((o.box > 0).all() for o in outputs)


@pytest.mark.parametrize(
    ("name", "stride", "point"),
    [
        ("mmdet1", 8, 4.0),
        ("mmdet1", 5, 2.0),
        ("mmdet2", 8, 4.0),
        ("mmdet2", 5, 2.5),
        ("torchvision", 8, 0.0),
    ],
)
def test_where_points_lie_in_their_cell(name: str, stride: int, point: float) -> None:
    points = grid_points(stride, (2, 3), (stride, stride), CONVENTIONS[name])
    assert points[0].tolist() == [point, point]
    assert points[5].tolist() == [point + 2 * stride, point + stride]


def test_one_loud_cell_is_one_box_around_its_point() -> None:
    """Level 1, row 2, column 3: the point (56, 40), distances left, top, right, bottom."""
    outputs = [
        LevelOutput(torch.full((1, 3, *s), -9.0), torch.ones(1, 4, *s), torch.full((1, 1, *s), 9.0))
        for s in SIZES
    ]
    outputs[1].cls[0, 1, 2, 3] = 4.0
    outputs[1].box[0, :, 2, 3] = torch.tensor([10.0, 20.0, 30.0, 40.0])
    (found,) = build().decode(outputs, [(500, 500)], None, (512, 512))
    assert found.boxes.tolist() == [[46, 20, 86, 80]]
    assert found.labels.tolist() == [1]


@pytest.mark.parametrize("normalise", [False, True])
def test_boxes_start_two_strides_wide(normalise: bool) -> None:
    head = build(replace(SPEC, normalise_boxes=normalise))
    for output, stride in zip(head([torch.zeros(1, 8, *size) for size in SIZES]), (8, 16)):
        torch.testing.assert_close(output.box, torch.full_like(output.box, stride))


@pytest.mark.parametrize("normalise", [False, True])
def test_the_scale_of_a_level_acts_on_its_distances_alone(normalise: bool) -> None:
    """exp(scale * x), or stride * relu(scale * x)."""
    head = build(replace(SPEC, normalise_boxes=normalise))
    before = head(pyramid())
    with torch.no_grad():
        head.scales[1].mul_(2)
    after = head(pyramid())
    torch.testing.assert_close(after[0].box, before[0].box)
    wanted = 2 * before[1].box if normalise else before[1].box.square()
    torch.testing.assert_close(after[1].box, wanted)
    torch.testing.assert_close(after[1].cls, before[1].cls)


def test_without_level_scales_there_are_no_parameters_for_them() -> None:
    head = build(replace(SPEC, level_scales=False, normalise_boxes=True))
    assert not [key for key in head.state_dict() if "scales" in key]
    outputs = head([torch.zeros(1, 8, *size) for size in SIZES])
    assert [float(o.box.detach().max()) for o in outputs] == [8, 16]


@pytest.mark.parametrize("branch", ["cls", "box"])
def test_centerness_comes_from_the_branch_it_is_told(branch: str) -> None:
    head = build(replace(SPEC, centerness_on=branch)).eval()
    one, two = pyramid(1), pyramid(2)
    mixed = head(PyramidPair(one, two))[0].centerness
    same = head(one if branch == "cls" else two)[0].centerness
    torch.testing.assert_close(mixed, same)


def test_half_precision_distances_do_not_overflow() -> None:
    head = build().half()
    with torch.no_grad():
        head.box_pred.bias.fill_(12.0)  # e^12 is beyond 65504, the largest half
    level = torch.zeros(1, 8, 4, 4, dtype=torch.float16)
    assert head.predict(0, level, level).box.isfinite().all()


def test_atss_takes_centerness_from_the_box_branch_and_scales_deltas() -> None:
    torch.manual_seed(0)
    spec = AtssSpec(depth=1, channels=8, groups=2)
    head = AtssHead(spec, (8, 8), 3, (8, 16), NATIVE).eval()
    one, two = pyramid(1), pyramid(2)
    mixed, plain = head(PyramidPair(one, two)), head(two)
    torch.testing.assert_close(mixed[0].centerness, plain[0].centerness)
    with torch.no_grad():
        head.scales[1].fill_(3.0)
    torch.testing.assert_close(head(two)[1].box, 3 * plain[1].box)
    anchors = head.priors(plain, (64, 64))
    assert (anchors[0][0, 2:] - anchors[0][0, :2]).tolist() == [64, 64], "eight strides"
