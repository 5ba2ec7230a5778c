"""Objectives of two-stage heads: sampling, targets and losses by their formulas."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.nn import functional as F
from torchvision.ops import roi_align

from sepcbench import detectors
from sepcbench.errors import UsageError
from sepcbench.specs import NATIVE
from sepcbench.training.objectives import Target, loss, rcnn
from sepcbench.training.objectives.matches import IGNORED, NEGATIVE
from sepcbench.training.objectives.rcnn import Rois, mask_loss, mask_targets, sample_rois
from sepcbench.training.objectives.sampling import sample
from sepcbench.variants import variant

SIDE = 64
BOXES, LABELS = torch.tensor([[8.0, 8, 40, 48], [36, 30, 60, 60]]), torch.tensor([0, 2])
EMPTY = torch.empty(0, 4)


def filled(boxes: torch.Tensor) -> torch.Tensor:
    masks = torch.zeros(len(boxes), SIDE, SIDE, dtype=torch.bool)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes.int().tolist()):
        mask[y1:y2, x1:x2] = True
    return masks


TARGET = Target(BOXES, LABELS, filled(BOXES), BOXES.repeat(10, 1) + torch.arange(20)[:, None])
NOTHING = Target(EMPTY, LABELS[:0], filled(EMPTY), torch.tensor([[0.0, 0, 20, 20]]))


def test_samples() -> None:
    match = torch.tensor([0] * 10 + [IGNORED] * 10 + [NEGATIVE] * 80)
    torch.manual_seed(0)
    found = sample(match, 16, 0.25)
    assert len(found.positives) == 4
    assert len(found.negatives) == 12
    assert (match[found.positives] == 0).all()
    assert (match[found.negatives] == NEGATIVE).all()
    assert len(set(torch.cat(found).tolist())) == 16
    torch.manual_seed(0)
    assert torch.equal(torch.cat(sample(match, 16, 0.25)), torch.cat(found))
    assert not torch.equal(torch.cat(sample(match, 16, 0.25)), torch.cat(found))


def test_negatives_fill_up() -> None:
    found = sample(torch.tensor([3, NEGATIVE, NEGATIVE, NEGATIVE]), 8, 0.5)
    assert [rows.tolist() for rows in found] == [[0], [1, 2, 3]]


def test_objects_are_among_the_rois() -> None:
    head = detectors.build(variant("faster_rcnn_tiny_fpn"), seed=0).head
    proposals = torch.tensor([[8.0, 8, 40, 46], [0, 0, 10, 10], [8, 8, 20, 20]])
    rois = sample_rois(proposals, TARGET, head)
    assert rois.objects.tolist() == [0, 1, 0]
    assert torch.equal(rois.boxes[:3], torch.cat([BOXES, proposals[:1]]))
    assert torch.equal(rois.boxes[3:], proposals[1:])
    none = sample_rois(proposals, NOTHING, head)
    assert not len(none.objects)
    assert torch.equal(none.boxes, proposals)


def test_mask_targets_are_the_masks_in_the_boxes() -> None:
    # the box reaches as far left of the object as the object is wide
    boxes = torch.tensor([[-24.0, 8, 40, 48], [36, 30, 60, 60]])
    got = mask_targets(TARGET, boxes, torch.tensor([0, 1]), 28)
    assert got.shape == (2, 28, 28)
    assert not got[0, :, :14].any()
    assert got[0, :, 14:].all()
    assert got[1].all()
    # a half of the mask, upside down from the other
    half = filled(torch.tensor([[8.0, 8, 40, 28]]))
    got = mask_targets(TARGET._replace(masks=half), BOXES[:1], torch.tensor([0]), 28)
    assert got[0, :14].all()
    assert not got[0, 14:].any()


def test_mask_targets_need_one_mask_per_object_however_many_boxes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Boxes of the second object first: equal to each box on a mask of its own."""
    torch.manual_seed(0)
    objects = torch.tensor([1, 0, 1, 1, 0, 1, 0])
    boxes = BOXES[objects] + 4 * torch.randn(7, 4)
    masks = TARGET.masks[objects][:, None].float()
    cells = roi_align(masks, [box[None] for box in boxes], 28, aligned=True)[:, 0]
    read: list[int] = []

    def align(x: torch.Tensor, *rest: Any, **options: Any) -> torch.Tensor:
        read.append(len(x))
        return roi_align(x, *rest, **options)

    monkeypatch.setattr(rcnn, "roi_align", align)
    got = mask_targets(TARGET, boxes, objects, 28)
    assert torch.equal(got, (cells >= 0.5).float())
    assert 0 < got.mean() < 1
    assert read == [2]


def test_mask_loss_is_that_of_the_objects_class() -> None:
    head = detectors.build(variant("mask_rcnn_tiny_fpn"), seed=0).head.eval()
    torch.nn.init.normal_(head.mask_head.pred.weight)
    torch.manual_seed(0)
    pyramid = [torch.randn(1, 32, SIDE // s, SIDE // s) for s in (4, 8, 16, 32, 64)]
    rois = Rois(torch.cat([BOXES.flip(0), EMPTY.new_zeros(3, 4)]), torch.tensor([1, 0]))
    got = mask_loss(head, pyramid, [rois], [TARGET])
    logits = head.masks(pyramid, [BOXES.flip(0)])[[0, 1], [2, 0]]
    wanted = F.binary_cross_entropy_with_logits(logits, torch.ones(2, 28, 28))
    torch.testing.assert_close(got, wanted)


NAMES = {
    "rpn_tiny_fpn": {"rpn_cls", "rpn_box"},
    "rpn_tiny_finest": {"rpn_cls", "rpn_box"},
    "faster_rcnn_tiny_fpn": {"rpn_cls", "rpn_box", "cls", "box"},
    "mask_rcnn_tiny_fpn": {"rpn_cls", "rpn_box", "cls", "box", "mask"},
    "fast_rcnn_tiny_c4": {"cls", "box"},
}


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_learns(name: str) -> None:
    detector = detectors.build(variant(name, {"backbone.channels": (8, 8, 8, 8)}), seed=0).train()
    torch.manual_seed(0)
    outputs = detector(torch.randn(2, 3, SIDE, SIDE))
    losses = loss(detector, outputs, [TARGET, NOTHING], [(SIDE, SIDE)] * 2)
    assert set(losses) == NAMES[name]
    torch.stack(list(losses.values())).sum().backward()
    dead = [key for key, p in detector.named_parameters() if p.grad is None or not p.grad.any()]
    assert not dead


@pytest.mark.parametrize("name", NAMES)
def test_images_without_objects_have_finite_losses(name: str) -> None:
    detector = detectors.build(variant(name, {"backbone.channels": (8, 8, 8, 8)}), seed=0).train()
    outputs = detector(torch.randn(2, 3, SIDE, SIDE))
    losses = loss(detector, outputs, [NOTHING] * 2, [(SIDE, SIDE)] * 2)
    torch.stack(list(losses.values())).sum().backward()
    assert all(bool(p.grad.isfinite().all()) for p in detector.parameters())
    assert all(
        float(losses[key].detach()) == 0 for key in ("rpn_box", "box", "mask") if key in losses
    )


@pytest.mark.parametrize(
    ("name", "missing"), [("fast_rcnn_tiny_c4", "proposals"), ("mask_rcnn_tiny_fpn", "masks")]
)
def test_targets_without_what_is_learnt(name: str, missing: str) -> None:
    detector = detectors.build(variant(name), seed=0).train()
    outputs = detector(torch.randn(1, 3, SIDE, SIDE))
    with pytest.raises(UsageError, match=missing):
        loss(detector, outputs, [TARGET._replace(**{missing: None})], [(SIDE, SIDE)])


def test_untrained_losses_are_those_of_chance() -> None:
    """Small weights: log 2 for an anchor and for a cell of a mask, log(K + 1) for a RoI."""
    detector = detectors.build(variant("mask_rcnn_tiny_fpn"), seed=0).train()
    for layer in (detector.head.rpn.cls_pred, detector.head.box_head.cls_pred):
        torch.nn.init.zeros_(layer.weight)
    losses = loss(detector, detector(torch.randn(1, 3, SIDE, SIDE)), [TARGET], [(SIDE, SIDE)])
    assert float(losses["rpn_cls"].detach()) == pytest.approx(0.6931, abs=1e-3)
    assert float(losses["cls"].detach()) == pytest.approx(1.3863, abs=1e-3)
    assert float(losses["mask"].detach()) == pytest.approx(0.6931, abs=0.02)


def test_share_of_positives_in_the_box_loss() -> None:
    """Smooth L1 of the positives, over all sampled RoIs: none is left out of the divisor."""
    detector = detectors.build(variant("fast_rcnn_tiny_fpn"), seed=0).train()
    head = detector.head
    head.spec = replace(head.spec, samples=8, positive_share=0.25)
    rois = sample_rois(TARGET.proposals, TARGET, head)
    assert (len(rois.boxes), len(rois.objects)) == (8, 2)
    assert head.conventions.box_offset == NATIVE.box_offset
