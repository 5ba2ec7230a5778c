"""The RPN alone: shapes, order and limits of proposals."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from sepcbench.detectors import build
from sepcbench.heads import LevelOutput, Scene
from sepcbench.heads.rpn import RpnHead
from sepcbench.ops.boxes import iou
from sepcbench.specs import CONVENTIONS, NATIVE, RpnSpec
from sepcbench.variants import variant

STRIDES, PADDED = (4, 8), (32, 32)


def head(spec: RpnSpec, how: str = "native", strides: tuple[int, ...] = STRIDES) -> RpnHead:
    torch.manual_seed(0)
    made = RpnHead(spec, (8,) * len(strides), 80, strides, CONVENTIONS[how])
    return made.eval()


def maps(spec: RpnSpec, std: float = 0.3) -> list[LevelOutput]:
    torch.manual_seed(1)
    count = len(spec.scales) * len(spec.ratios)
    return [
        LevelOutput(
            torch.randn(2, count, 32 // s, 32 // s),
            std * torch.randn(2, 4 * count, 32 // s, 32 // s),
        )
        for s in STRIDES
    ]


@pytest.mark.parametrize("how", CONVENTIONS)
def test_proposals_are_the_best_and_do_not_overlap(how: str) -> None:
    spec = RpnSpec(channels=8, scales=(1.0, 2.0), before_nms=60, proposals=40)
    found = head(spec, how).decode(maps(spec), [(30, 28), (32, 32)], [2.0, (1.0, 4.0)], PADDED)
    for image, (x, y) in zip(found, ((2.0, 2.0), (1.0, 4.0))):
        assert 20 < len(image.boxes) <= 40
        assert (image.scores[:-1] >= image.scores[1:]).all()
        assert not image.labels.any()
        boxes = image.boxes * torch.tensor([x, y, x, y])
        assert (boxes >= 0).all()
        assert (boxes <= 32).all()


def test_levels_do_not_suppress_each_other() -> None:
    """The same box on both levels: one of its own on each."""
    spec = RpnSpec(channels=8, ratios=(1.0,), scales=(1.0,), nms_iou=0.1)
    outputs = [
        LevelOutput(torch.zeros(1, 1, 32 // s, 32 // s), torch.zeros(1, 4, 32 // s, 32 // s))
        for s in STRIDES
    ]
    outputs[0].box[:, 2:] = torch.tensor(2.0).log()  # boxes of 8 pixels on both
    (found,) = head(spec).propose(outputs, Scene(PADDED, [(32, 32)]))
    overlaps = iou(found.boxes, found.boxes, 0).fill_diagonal_(0)
    assert (overlaps > 0.99).any()
    outputs[1].cls.fill_(-100)
    one = head(replace(spec, proposals=5)).propose(outputs, Scene(PADDED, [(32, 32)]))[0]
    assert iou(one.boxes, one.boxes, 0).fill_diagonal_(0).max() <= 0.1


def test_limits_while_training() -> None:
    spec = RpnSpec(
        channels=8, before_nms=10, proposals=8, train_before_nms=30, train_proposals=20, nms_iou=1.0
    )
    made, scene = head(spec), Scene(PADDED, [(32, 32)] * 2)
    assert [len(image.boxes) for image in made.propose(maps(spec), scene)] == [8, 8]
    assert [len(image.boxes) for image in made.train().propose(maps(spec), scene)] == [20, 20]


def test_small_boxes_are_dropped() -> None:
    spec = RpnSpec(channels=8, nms_iou=1.0, ratios=(1.0,))
    outputs = maps(spec)
    outside = [level._replace(box=level.box + 50) for level in outputs]  # clipped to nothing
    assert all(
        not len(image.boxes) for image in head(spec).propose(outside, Scene(PADDED, [(32, 32)] * 2))
    )
    wide = replace(NATIVE, proposal_min_size=20.0)
    (found, _) = head(spec).propose(outputs, Scene(PADDED, [(32, 32)] * 2), wide)
    assert ((found.boxes[:, 2:] - found.boxes[:, :2]) > 20).all()


@pytest.mark.parametrize(("name", "anchors"), [("fpn", 3), ("finest", 15), ("c4", 15), ("c5", 15)])
def test_anchor_sizes(name: str, anchors: int) -> None:
    """One size per level of a pyramid, on a single level all five: 16 to 256 pixels at 128."""
    detector = build(variant(f"rpn_tiny_{name}"), seed=0).eval()
    outputs = detector(torch.zeros(1, 3, 64, 64))
    assert all(output.cls.shape[1] == anchors for output in outputs)
    grids = detector.head.anchors(outputs, (64, 64), NATIVE)
    areas = torch.cat([(g[:, 2:] - g[:, :2]).prod(dim=1) for g in grids])
    assert sorted(set(areas.sqrt().round().tolist())) == [16, 32, 64, 128, 256]
    assert {output.cls.shape[2] for output in outputs} == {64 // s for s in detector.spec.strides}
