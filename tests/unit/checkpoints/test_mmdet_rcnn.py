"""Faster and Mask R-CNN of mmdetection 2.x: keys, and what the configuration says."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from lookalikes import save_mmdet, shapes, weights

import sepcbench
from sepcbench.detectors import Detector
from sepcbench.specs import CONVENTIONS

FASTER = "keys2x/faster_rcnn_r50"
CONFIG = """
model = dict(
    rpn_head=dict(
        type='RPNHead',
        anchor_generator=dict(
            type='AnchorGenerator', scales=[4], ratios=[0.5, 1.0, 2.0], strides=[4, 8, 16, 32, 64]),
        bbox_coder=dict(target_stds=[1.0, 1.0, 1.0, 1.0])),
    roi_head=dict(
        bbox_roi_extractor=dict(
            roi_layer=dict(type='RoIAlign', output_size=7, sampling_ratio=2)),
        bbox_head=dict(
            type='Shared2FCBBoxHead', bbox_coder=dict(target_stds=[0.05, 0.05, 0.1, 0.1]))),
    test_cfg=dict(
        rpn=dict(nms_pre=900, max_per_img=500, nms=dict(type='nms', iou_threshold=0.6)),
        rcnn=dict(score_thr=0.1, nms=dict(type='nms', iou_threshold=0.4), max_per_img=50)))
"""


def read(path: Path, about: dict[str, str]) -> Detector:
    return sepcbench.load(save_mmdet(path / "x.pth", weights(shapes(FASTER)), about))


def test_the_names_alone_say_2x(tmp_path: Path) -> None:
    """In 1.x the box head is not inside a roi_head."""
    spec = read(tmp_path, {}).spec
    assert spec.name == "faster_rcnn_r50_fpn"
    assert spec.conventions.name == "mmdet2"
    assert (spec.num_classes, spec.head.background) == (80, "last")


def test_pafpn(tmp_path: Path) -> None:
    state = weights(shapes("keys2x/pafpn_faster_rcnn_r50"))
    found = sepcbench.load(save_mmdet(tmp_path / "x.pth", state, {"mmdet_version": "2.25.0"}))
    assert found.spec.name == "faster_rcnn_r50_pafpn"


def test_the_configuration_is_read(tmp_path: Path) -> None:
    spec = read(tmp_path, {"mmdet_version": "2.25.0", "config": CONFIG}).spec
    head, how = spec.head, spec.conventions
    assert (head.rpn.scales, head.rpn.before_nms, head.rpn.proposals) == ((4.0,), 900, 500)
    assert head.rpn.nms_iou == 0.6
    assert head.box_stds == (0.05, 0.05, 0.1, 0.1)
    assert (how.score_threshold, how.nms_iou, how.max_detections) == (0.1, 0.4, 50)
    assert (how.roi_samples, CONVENTIONS["mmdet2"].roi_samples) == (2, 0)


@pytest.mark.parametrize("count", [80, 5])
def test_masks(tmp_path: Path, count: int) -> None:
    found = shapes(FASTER)
    for key, each in (("fc_cls", 1), ("fc_reg", 4)):
        rows = count * each + (key == "fc_cls")
        found[f"roi_head.bbox_head.{key}.weight"] = [rows, 1024]
        found[f"roi_head.bbox_head.{key}.bias"] = [rows]
    head = "roi_head.mask_head"
    for i in range(4):
        found |= {
            f"{head}.convs.{i}.conv.weight": [256, 256, 3, 3],
            f"{head}.convs.{i}.conv.bias": [256],
        }
    found |= {f"{head}.upsample.weight": [256, 256, 2, 2], f"{head}.upsample.bias": [256]}
    found |= {f"{head}.conv_logits.weight": [count, 256, 1, 1], f"{head}.conv_logits.bias": [count]}
    state = weights(found)
    ours = sepcbench.load(save_mmdet(tmp_path / "x.pth", state, {"mmdet_version": "2.25.0"}))
    assert ours.spec.name == "mask_rcnn_r50_fpn"
    assert ours.spec.num_classes == count
    assert torch.equal(ours.head.mask_head.convs[2].bias, state[f"{head}.convs.2.conv.bias"])
