"""RPN anchors, RoIAlign, and features to proposals to detections against mmdetection 1.1, 2.25."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from golden.scheme import Case

from sepcbench.heads.outputs import LevelOutput, Scene
from sepcbench.heads.rcnn import RcnnHead
from sepcbench.ops.anchors import cell_anchors, grid_anchors
from sepcbench.ops.rois import pool_rois, roi_levels
from sepcbench.specs import CONVENTIONS, RcnnSpec, RpnSpec

VERSIONS = {"11": CONVENTIONS["mmdet1"], "2x": CONVENTIONS["mmdet2"]}
STRIDES = (4, 8, 16, 32, 64)
RENAMED = {
    "rpn_head.rpn_conv": "rpn.conv",
    "rpn_head.rpn_cls": "rpn.cls_pred",
    "rpn_head.rpn_reg": "rpn.box_pred",
    "bbox_head.fc_cls": "box_head.cls_pred",
    "bbox_head.fc_reg": "box_head.box_pred",
    "bbox_head.shared_fcs.0": "box_head.body.fc1",
    "bbox_head.shared_fcs.1": "box_head.body.fc2",
}

version = pytest.mark.parametrize("version", VERSIONS)


@version
def test_anchors(version: str) -> None:
    case, how = Case(f"prims{version}/anchors_rpn"), VERSIONS[version]
    for level, stride in enumerate(STRIDES):
        cell = cell_anchors(stride, [8.0 * stride], (0.5, 1.0, 2.0), how)
        case.check(f"base{level}", cell, atol=1e-4, rtol=1e-6)
        grid = grid_anchors(cell, tuple(case.info["level_sizes"][level]), (stride, stride))
        case.check(f"grid{level}", grid, atol=1e-4, rtol=1e-6)


@version
@pytest.mark.parametrize("samples", [0, 2])
def test_roi_align(version: str, samples: int) -> None:
    case, how = Case(f"prims{version}/roi_align"), VERSIONS[version]
    xy, wh = case.inputs["rois.xy"], case.inputs["rois.wh"]
    image = (torch.arange(len(xy)) % 2)[:, None]
    rois = torch.cat([image, xy, xy + wh], dim=1)
    pooled = pool_rois(case.inputs["feat"], rois, 8, 7, replace(how, roi_samples=samples))
    case.check(f"out_s{samples}", pooled, atol=1e-4)


def build(case: Case, old: bool) -> RcnnHead:
    test = case.info["test_cfg"]
    how = replace(
        CONVENTIONS["mmdet1" if old else "mmdet2"],
        score_threshold=test["rcnn"]["score_thr"],
        max_detections=test["rcnn"]["max_per_img"],
    )
    limit = test["rpn"]["max_num" if old else "max_per_img"]
    rpn = RpnSpec(channels=64, before_nms=test["rpn"]["nms_pre"], proposals=limit)
    spec = RcnnSpec(rpn=rpn, fc_channels=256, background="first" if old else "last")
    head = RcnnHead(spec, (64,) * 5, 80, STRIDES, how)
    head.load_state_dict({rename(key): value for key, value in case.params.items()})
    return head.eval()


def rename(key: str) -> str:
    name, _, kind = key.removeprefix("roi_head.").rpartition(".")
    return f"{RENAMED[name]}.{kind}"


@version
@torch.no_grad()
def test_features_to_detections(version: str) -> None:
    case = Case(f"heads{version}/faster_rcnn")
    head = build(case, version == "11")
    size, padded = tuple(case.info["img_shape"][:2]), tuple(case.info["pad_shape"][:2])
    pyramid = case.levels("x")
    outputs = head(pyramid, Scene(padded, [size]))
    for level, maps in enumerate(outputs.rpn):
        case.check(f"rpn_cls{level}", maps.cls)
        case.check(f"rpn_reg{level}", maps.box)
    check_proposals(case, head, outputs.rpn, Scene(padded, [size]))
    # from the stored proposals on, so that their order is the same
    boxes = torch.from_numpy(case.arrays["proposals0"][:, :4])
    levels = roi_levels(boxes, 224.0, (2, 3, 4, 5), head.conventions)
    np.testing.assert_array_equal(levels.numpy(), case.arrays["roi_levels0"])
    case.check("roi_feats0", head.pool(pyramid, [boxes], 7))
    again = head(pyramid, Scene(padded, [size], [boxes]))
    case.check("roi_cls0", again.cls)
    case.check("roi_reg0", again.box)
    for raw in (outputs, again):
        (found,) = head.decode(raw, [size], None, padded)
        case.check_detections(0, *found[:3])


def check_proposals(case: Case, head: RcnnHead, maps: list[LevelOutput], scene: Scene) -> None:
    assert head.rpn is not None
    (found,) = head.rpn.propose(maps, scene)
    wanted = case.arrays["proposals0"]
    np.testing.assert_allclose(found.boxes.numpy(), wanted[:, :4], atol=0.02)
    np.testing.assert_allclose(found.scores.numpy(), wanted[:, 4], atol=2e-4)


@version
@torch.no_grad()
def test_other_conventions_run_the_second_stage_again(version: str) -> None:
    """From raw outputs of the other version, the detections of this one."""
    case = Case(f"heads{version}/faster_rcnn")
    head = build(case, version == "11")
    own = head.conventions
    size, padded = tuple(case.info["img_shape"][:2]), tuple(case.info["pad_shape"][:2])
    head.conventions = VERSIONS["2x" if version == "11" else "11"]
    outputs = head(case.levels("x"), Scene(padded, [size]))
    with pytest.raises(AssertionError):
        case.check_detections(0, *head.decode(outputs, [size], None, padded)[0][:3])
    head.conventions = own
    case.check_detections(0, *head.decode(outputs, [size], None, padded)[0][:3])
