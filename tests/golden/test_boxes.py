"""Anchors, box coding, IoU and NMS against mmdetection 1.1 and 2.25.

The references of what no detector here uses are stored but not compared: `OTHERS`.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from golden.scheme import Case
from torch import Tensor

from sepcbench.heads import Detections
from sepcbench.heads.selection import candidates, suppress
from sepcbench.ops.anchors import cell_anchors, grid_anchors, octave_sizes
from sepcbench.ops.boxes import (
    aligned_giou,
    aligned_iou,
    clip,
    decode,
    decode_distances,
    decode_sides,
    encode,
    encode_sides,
    iou,
)
from sepcbench.ops.nms import batched_nms, nms
from sepcbench.specs import CONVENTIONS, AnchorHeadSpec, FsafSpec, RetinaSpec

VERSIONS = {"prims11": CONVENTIONS["mmdet1"], "prims2x": CONVENTIONS["mmdet2"]}
ONES, STDS = (1.0, 1.0, 1.0, 1.0), (0.1, 0.1, 0.2, 0.2)
STRIDES = (8, 16, 32, 64, 128)
OTHERS = ("legacy", "iof")

version = pytest.mark.parametrize("version", VERSIONS)


@version
@pytest.mark.parametrize(("name", "spec"), [("retina", RetinaSpec()), ("fsaf", FsafSpec())])
def test_anchors(version: str, name: str, spec: AnchorHeadSpec) -> None:
    case, how = Case(f"{version}/anchors_{name}"), VERSIONS[version]
    for level, stride in enumerate(STRIDES):
        sizes = octave_sizes(stride, spec.base_scale, spec.scales_per_octave, how)
        cell = cell_anchors(stride, sizes, spec.ratios, how)
        case.check(f"base{level}", cell, atol=1e-4, rtol=1e-6)
        size = tuple(case.info["level_sizes"][level])
        grid = grid_anchors(cell, size, (stride, stride))
        case.check(f"grid{level}", grid, atol=1e-4, rtol=1e-6)


@version
def test_coders(version: str) -> None:
    case, how = Case(f"{version}/coders"), VERSIONS[version]
    drawn = case.inputs
    anchors, boxes = (
        torch.cat([drawn[f"{n}.xy"], drawn[f"{n}.xy"] + drawn[f"{n}.wh"]], dim=1)
        for n in ("anchors", "gts")
    )
    deltas, size = drawn["deltas"], tuple(case.info["img_shape"][:2])
    ours = {
        "delta2bbox": decode(anchors, deltas, ONES, how),
        "delta2bbox_clip": clip(decode(anchors, deltas, ONES, how), size, how),
        "delta2bbox_std": clip(decode(anchors, deltas * 5, STDS, how), size, how),
        "delta2bbox_wide": decode(anchors, deltas * 8, ONES, how),
        "delta2bbox_percls": percls(anchors, drawn["deltas_cls"], size, how),
        "bbox2delta": encode(anchors, boxes, ONES, how),
        "bbox2delta_std": encode(anchors, boxes, STDS, how),
        "tblr_decode": decode_sides(anchors, drawn["tblr"], how),
        "tblr_decode_clip": clip(decode_sides(anchors, drawn["tblr"], how), size, how),
        "tblr_encode": encode_sides(anchors, boxes, how),
        "distance2bbox": decode_distances(drawn["points"], drawn["dist"]),
        "distance2bbox_clip": clip(decode_distances(drawn["points"], drawn["dist"]), size, how),
        "iou": iou(anchors[:60], boxes[:60], how.box_offset),
        "iou_aligned": aligned_iou(anchors, boxes, how.box_offset),
    }
    if version == "prims2x":  # not stored for 1.1
        ours["giou"] = aligned_giou(anchors[:60, None], boxes[None, :60], how.box_offset)
    left = [n for n in case.outputs() if n not in ours and not n.startswith(OTHERS)]
    assert not left
    for name, values in ours.items():
        case.check(name, values, atol=1e-4, rtol=1e-5)


def percls(anchors: Tensor, deltas: Tensor, size: tuple[int, int], how: object) -> Tensor:
    """(n, 12) deltas of three classes, decoded class by class."""
    per_class = deltas.unflatten(1, (3, 4)).unbind(1)
    boxes = [clip(decode(anchors, d, STDS, how), size, how) for d in per_class]
    return torch.cat(boxes, dim=1)


def nms_boxes(case: Case) -> Tensor:
    drawn = case.inputs
    jitter = drawn["nmsboxes.jit"]
    group = torch.arange(len(jitter)) % len(drawn["nmsboxes.ctr"])
    centre, half = drawn["nmsboxes.ctr"][group], drawn["nmsboxes.size"][group] / 2
    corners = torch.cat([centre - half, centre + half], dim=1) + jitter
    first, second = corners[:, :2], corners[:, 2:]
    return torch.cat([torch.minimum(first, second), torch.maximum(first, second)], dim=1)


@version
@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7])
def test_nms(version: str, threshold: float) -> None:
    case, how = Case(f"{version}/nms"), VERSIONS[version]
    kept = nms(nms_boxes(case), case.inputs["scores"], threshold, how.nms_offset).numpy()
    wanted = case.arrays[f"keep_{threshold}"]
    # the 1.1 reference is stored in ascending index order
    np.testing.assert_array_equal(np.sort(kept) if version == "prims11" else kept, wanted)


def test_batched_nms() -> None:
    case = Case("prims2x/nms")
    boxes, scores = nms_boxes(case), case.inputs["scores"]
    kept = batched_nms(boxes, scores, torch.arange(len(boxes)) % 5, 0.5)
    np.testing.assert_array_equal(kept.numpy(), case.arrays["batched_keep"])
    case.check("batched_dets", torch.cat([boxes, scores[:, None]], dim=1)[kept], atol=1e-4)


@version
@pytest.mark.parametrize(
    ("name", "limit"), [("mc100", 100), ("mc20", 20), ("mc_all", 10**6), ("mc100_factor", 100)]
)
def test_multiclass_nms(version: str, name: str, limit: int) -> None:
    case = Case(f"{version}/nms")
    how = replace(VERSIONS[version], nms_iou=0.5, score_threshold=0.4, max_detections=limit)
    how = replace(how, candidates_per_level=10**6)
    columns = case.inputs["cls_scores"]
    scores = columns[:, 1:] if version == "prims11" else columns[:, :-1]
    factor = case.inputs["ctr"] if name == "mc100_factor" else None
    rows, labels, found = candidates(scores, how, factor)
    found = suppress(Detections(nms_boxes(case)[rows], found, labels), how)
    wanted = case.arrays[f"{name}.boxes"]
    np.testing.assert_array_equal(found.labels.numpy(), case.arrays[f"{name}.labels"])
    np.testing.assert_allclose(found.boxes.numpy(), wanted[:, :4], atol=1e-4)
    np.testing.assert_allclose(found.scores.numpy(), wanted[:, 4], atol=1e-6)
