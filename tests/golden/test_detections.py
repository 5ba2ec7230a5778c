"""Heads and their decoding against mmdetection 1.1 and 2.25."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from golden.published import rename_part
from golden.scheme import Case, case_names

from sepcbench.heads import HEADS, LevelOutput
from sepcbench.heads.dense import DenseHead
from sepcbench.ops.pyramid import PyramidPair
from sepcbench.specs import (
    CONVENTIONS,
    AtssSpec,
    FcosSpec,
    FreeAnchorSpec,
    FsafSpec,
    HeadSpec,
    RetinaSpec,
)

MAPS = ("cls_score", "bbox_pred", "centerness")
STRIDES = (8, 16, 32, 64, 128)
SPECS: dict[str, type[HeadSpec]] = {
    "RetinaHead": RetinaSpec,
    "SepcRetinaHead": RetinaSpec,
    "FreeAnchorRetinaHead": FreeAnchorSpec,
    "SepcFreeAnchorRetinaHead": FreeAnchorSpec,
    "FSAFHead": FsafSpec,
    "FCOSHead": FcosSpec,
    "ATSSHead": AtssSpec,
    "ATSSSEPCHead": AtssSpec,
}


FEATURES = [name for name in case_names("heads11/*", "heads2x/*") if "rcnn" not in name]


def build(case: Case) -> DenseHead:
    cfg, test = case.info["cfg"], case.info["test_cfg"]
    old = case.info["semantics"] == "mmdet 1.1"
    how = replace(
        CONVENTIONS["mmdet1" if old else "mmdet2"],
        candidates_per_level=test["nms_pre"],
        score_threshold=test["score_thr"],
        nms_iou=test["nms"].get("iou_thr", test["nms"].get("iou_threshold")),
        max_detections=test["max_per_img"],
    )
    spec = SPECS[cfg["type"]](depth=cfg["stacked_convs"], channels=cfg["feat_channels"])
    classes = cfg["num_classes"] - 1 if old else cfg["num_classes"]
    head = HEADS[type(spec)](spec, (cfg["in_channels"],) * 5, classes, STRIDES, how)
    if "params" in case.info:
        head.load_state_dict(rename_part(case.params, "head"))
    return head.eval()


def maps_of(case: Case) -> list[LevelOutput]:
    kinds = [kind for kind in (case.levels(name) for name in MAPS) if kind]
    return [LevelOutput(*maps) for maps in zip(*kinds, strict=True)]


def check_detections(case: Case, head: DenseHead, outputs: list[LevelOutput]) -> None:
    info, batch = case.info, len(outputs[0].cls)
    factor = info["scale_factor"] if info["rescale"] else 1.0
    size, padded = tuple(info["img_shape"][:2]), tuple(info["pad_shape"][:2])
    found = head.decode(outputs, [size] * batch, [factor] * batch, padded)
    assert [len(image.boxes) for image in found] == info["num_dets"]
    for i, image in enumerate(found):
        case.check_detections(i, *image[:3])


@pytest.mark.parametrize("name", FEATURES)
def test_features_to_detections(name: str) -> None:
    case = Case(name)
    head = build(case)
    pyramid = case.levels("x") or PyramidPair(case.levels("x{}.cls"), case.levels("x{}.loc"))
    with torch.no_grad():
        outputs = head(pyramid)
    for level, output in enumerate(outputs):
        for kind, maps in zip(MAPS, output[:3]):
            if maps is not None:
                case.check(f"{kind}{level}", maps)
    check_detections(case, head, outputs)


@pytest.mark.parametrize("name", case_names("post11/*", "post2x/*"))
def test_maps_to_detections(name: str) -> None:
    case = Case(name)
    check_detections(case, build(case), maps_of(case))


@pytest.mark.parametrize("name", case_names("post11/*"))
def test_conventions_are_not_interchangeable(name: str) -> None:
    """The reference would notice the conventions of the other version."""
    case = Case(name)
    head = build(case)
    head.conventions = CONVENTIONS["mmdet2"]
    outputs = maps_of(case)
    if case.info["num_dets"] == [0]:
        check_detections(case, head, outputs)
    else:
        with pytest.raises(AssertionError):
            check_detections(case, head, outputs)
