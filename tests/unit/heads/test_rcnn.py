"""Two-stage heads: what they run in which mode, boxes and masks from raw outputs."""

from __future__ import annotations

from typing import Literal

import pytest
import torch

from sepcbench import detectors
from sepcbench.errors import UsageError
from sepcbench.heads import RoiOutput, Scene
from sepcbench.heads.box_head import Conv5
from sepcbench.heads.rcnn import RcnnHead, fixed_boxes
from sepcbench.specs import NATIVE, MaskSpec, RcnnSpec, RpnSpec
from sepcbench.variants import VARIANTS, variant

NAMES = ("faster_rcnn_tiny_fpn", "mask_rcnn_tiny_pconv", "fast_rcnn_tiny_c4", "faster_rcnn_tiny_c5")
SIDE = 64


def head(background: Literal["last", "first"], mask: bool = False) -> RcnnHead:
    masks = MaskSpec(depth=1, channels=8) if mask else None
    spec = RcnnSpec(rpn=None, fc_channels=8, pool_size=2, background=background, mask=masks)
    torch.manual_seed(0)
    return RcnnHead(spec, (8, 8), 3, (4, 8), NATIVE).eval()


def pyramid(batch: int = 1) -> list[torch.Tensor]:
    torch.manual_seed(1)
    return [torch.randn(batch, 8, 16, 16), torch.randn(batch, 8, 8, 8)]


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_modes(name: str) -> None:
    """Only maps while training; everything else; and an empty batch."""
    detector = detectors.build(variant(name, {"backbone.channels": (8, 8, 8, 8)}), seed=0)
    images = torch.randn(2, 3, SIDE, SIDE)
    raw = detector.train()(images)
    assert isinstance(raw, RoiOutput)
    assert raw.proposals is None
    assert raw.cls is None
    detector.eval()
    raw = detector(images)
    rois = sum(len(boxes) for boxes in raw.proposals)
    assert raw.cls.shape == (rois, 4)
    assert raw.box.shape == (rois, 12)
    assert detector(images[:0]).cls.shape == (0, 4)
    found = detector.detect(images, [(SIDE, 50), (40, SIDE)], [1.0, 2.0])
    for image, (height, width) in zip(found, ((SIDE, 50), (20, 32))):
        assert (image.boxes[:, 2:] <= torch.tensor([width, height])).all()
        assert (image.masks is None) != ("mask" in name)
        if image.masks is not None:
            assert image.masks.shape == (len(image.boxes), 28, 28)


@pytest.mark.parametrize("background", ["last", "first"])
def test_scores_leave_out_the_background(background: str) -> None:
    made = head(background)
    logits = torch.tensor([[0.0, 1.0, 3.0, 5.0]])  # of three classes, and the background
    columns = logits if background == "last" else logits.roll(1, dims=1)
    roi = torch.tensor([[8.0, 8, 40, 24]])
    deltas = torch.zeros(1, 4 if background == "first" else 3, 4)
    deltas[0, -1] = torch.tensor([10.0, 0, 0, 0])  # the last class one width to the right
    raw = RoiOutput(pyramid(), None, [roi], columns, deltas.flatten(1), made.conventions)
    (found,) = made.decode(raw, [(64, 64)], None, (64, 64))
    assert found.labels.tolist() == [2]  # the others are below the threshold of 0.05
    torch.testing.assert_close(found.scores, logits.softmax(dim=1)[0, 2:3])
    torch.testing.assert_close(found.boxes, torch.tensor([[40.0, 8, 64, 24]]))


def test_masks_are_of_the_found_class_and_of_unscaled_boxes() -> None:
    made = head("first", mask=True)
    levels = pyramid()
    boxes = torch.tensor([[8.0, 8, 40, 24], [0.0, 0, 60, 60]])
    logits = torch.tensor([[0.0, 6, 0, 0], [0.0, 0, 0, 6]])
    raw = RoiOutput(levels, None, [boxes], logits, torch.zeros(2, 16), made.conventions)
    (found,) = made.decode(raw, [(64, 64)], [(2.0, 4.0)], (64, 64))
    torch.testing.assert_close(found.boxes, boxes / torch.tensor([2.0, 4, 2, 4]))
    assert found.labels.tolist() == [0, 2]
    every = made.masks(levels, [boxes]).sigmoid()
    assert every.shape == (2, 3, 28, 28)
    torch.testing.assert_close(found.masks, every[[0, 1], [0, 2]].detach())


def test_proposals_given_replace_others() -> None:
    spec = RcnnSpec(rpn=RpnSpec(channels=8), fc_channels=8, pool_size=2)
    made = RcnnHead(spec, (8, 8), 3, (4, 8), NATIVE).eval()
    given = [torch.tensor([[1.0, 2, 30, 40]])]
    raw = made(pyramid(), Scene((64, 64), [(64, 64)], given))
    assert raw.proposals == given
    assert raw.rpn is not None
    assert raw.cls.shape == (1, 4)


@pytest.mark.parametrize("rpn", [None, RpnSpec(channels=8)])
@pytest.mark.parametrize("count", [0, 1, 3])
def test_proposals_of_another_number_of_images(rpn: RpnSpec | None, count: int) -> None:
    spec = RcnnSpec(rpn=rpn, fc_channels=8, pool_size=2)
    made = RcnnHead(spec, (8, 8), 3, (4, 8), NATIVE).eval()
    given = [torch.tensor([[1.0, 2, 30, 40]])] * count
    words = f"proposals of {count} images for a batch of 2; give one"
    with pytest.raises(UsageError, match=words) as caught:
        made(pyramid(2), Scene((64, 64), [(64, 64)] * 2, given))
    assert "\n" not in str(caught.value)


def test_proposals_are_moved_to_the_pyramid() -> None:
    given = [torch.tensor([[1.0, 2, 30, 40]])]
    (there,) = head("last").proposals(
        None, Scene((64, 64), [(64, 64)], given), torch.device("meta")
    )
    assert there.device.type == "meta"


def test_rois_are_read_from_strides_up_to_32_or_the_only_level() -> None:
    spec = RcnnSpec(fc_channels=8)
    strides = {(4, 8, 16, 32, 64): [4, 8, 16, 32], (8, 16, 32, 64, 128): [8, 16, 32], (64,): [64]}
    for levels, wanted in strides.items():
        assert RcnnHead(spec, (8,) * len(levels), 3, levels, NATIVE).roi_strides == wanted


def test_conv5_is_a_resnet_stage() -> None:
    """torchvision's layer4: 14964736 parameters, stride 2, BN that stays in eval mode."""
    with torch.device("meta"):
        body = Conv5(RcnnSpec(box_head="conv5", pool_size=14), 1024)
        assert body(torch.empty(2, 1024, 14, 14)).shape == (2, 2048)
        assert body.layer4(torch.empty(2, 1024, 14, 14)).shape == (2, 2048, 7, 7)
    assert sum(p.numel() for p in body.parameters()) == 14_964_736
    norms = [m for m in body.train().modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert not any(norm.training for norm in norms)


@pytest.mark.parametrize("count", [0, 1, 99, 1000])
def test_fixed_boxes(count: int) -> None:
    boxes = fixed_boxes((480, 640), count)
    assert boxes.shape == (count, 4)
    assert len(set(map(tuple, boxes.tolist()))) == count
    assert (boxes[:, 2:] > boxes[:, :2]).all()
    assert (boxes >= 0).all()
    assert (boxes <= torch.tensor([640, 480, 640, 480])).all()


def test_a_pair_of_pyramids_is_refused() -> None:
    with pytest.raises(UsageError, match="branches"):
        detectors.build(variant("rpn_tiny_pconv", {"necks.1.branches": "combined"}))


def test_what_sees_every_roi() -> None:
    detector = detectors.build(variant("mask_rcnn_tiny_fpn"), seed=0)
    assert detector.repeats() == {"head.box_head": 1000, "head.mask_head": 100}
    assert detector.parts()["tower"] == ()
    assert detectors.build(variant("rpn_tiny_fpn"), seed=0).repeats() == {}
    assert detectors.build(variant("retinanet_tiny_fpn"), seed=0).repeats() == {}
    out = detector.eval().run_all(
        torch.zeros(2, 3, SIDE, SIDE), {"head.box_head": 7, "head.mask_head": 3}
    )
    assert {len(x) for x in out} == {2 * 7, 2, 2 * 3}


@torch.no_grad()
def test_a_batch_finds_what_its_images_find() -> None:
    detector = detectors.build(variant("mask_rcnn_tiny_fpn"), seed=0).eval()
    images, sizes = torch.randn(2, 3, SIDE, SIDE), [(SIDE, 50), (40, SIDE)]
    together = detector.detect(images, sizes)
    for i, found in enumerate(together):
        (alone,) = detector.detect(images[i : i + 1], sizes[i : i + 1])
        assert len(found.boxes) == len(alone.boxes) > 0
        torch.testing.assert_close(found.scores, alone.scores, atol=1e-4, rtol=1e-3)


TINY_FPN = sorted(name for name in VARIANTS if name.endswith("_tiny_fpn"))


@pytest.mark.parametrize("name", TINY_FPN)
def test_no_images_find_nothing(name: str) -> None:
    detector = detectors.build(variant(name, {"backbone.channels": (8, 8, 8, 8)}), seed=0)
    assert detector.detect(torch.zeros(0, 3, SIDE, SIDE), []) == []
