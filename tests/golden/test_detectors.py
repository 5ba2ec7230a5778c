"""Whole released detectors, from an image to detections, and their checkpoints' keys."""

from __future__ import annotations

import json

import pytest
import torch
from golden.scheme import DATA, Case, case_names

from sepcbench.checkpoints.mmdet import rename_detector
from sepcbench.detectors import Detector, build
from sepcbench.ops.pyramid import PyramidPair
from sepcbench.specs import VariantSpec
from sepcbench.variants import variant

VARIANT_OF = {
    "fsaf_baseline": "fsaf_r50_fpn",
    "fsaf_pconv": "fsaf_r50_pconv",
    "fsaf_sepc": "fsaf_r50_sepc",
    "retina_baseline": "retinanet_r50_fpn",
    "retina_pconv": "retinanet_r50_pconv",
    "retina_ibn": "retinanet_r50_pconv_ibn",
    "retina_sepclite": "retinanet_r50_sepc_lite",
    "retina_sepc": "retinanet_r50_sepc",
    "retinanet_r50": "retinanet_r50_fpn",
    "faster_rcnn_r50": "faster_rcnn_r50_fpn",
    "pafpn_faster_rcnn_r50": "faster_rcnn_r50_pafpn",
    "atss_r50": "atss_r50_fpn",
}


def spec_of(flavour: str) -> VariantSpec:
    """As released: extra convs without padding."""
    name = VARIANT_OF[flavour]
    released = {} if name.endswith("fpn") else {"extra_padding": 0}
    return variant(name, {"conventions": "mmdet1", **released})


@pytest.mark.parametrize("name", case_names("e2e11/*"))
def test_image_to_detections(name: str) -> None:
    case = Case(name)
    spec = spec_of(case.info["detector"])
    detector = build(spec, init=False).eval()
    detector.load_state_dict(rename_detector(case.params))
    height, width = case.info["img_shape"][:2]
    images = case.inputs["img"].clone()
    images[:, :, height:] = 0
    images[:, :, :, width:] = 0
    with torch.no_grad():
        outputs = check_maps(case, detector, images)
    factor = case.info["scale_factor"] if case.info["rescale"] else 1.0
    (found,) = detector.decode(outputs, [(height, width)], [factor])
    case.check_detections(0, *found[:3])


def check_maps(case: Case, detector: Detector, images: torch.Tensor) -> list:
    pyramid = detector.features(images)
    for i, x in enumerate(pyramid):
        case.check(f"C{i + 2}", x)
    for n, neck in enumerate(detector.necks):
        pyramid = neck(pyramid)
        pair = isinstance(pyramid, PyramidPair)
        branches = {".cls": pyramid.cls, ".loc": pyramid.loc} if pair else {"": pyramid}
        for ending, levels in branches.items():
            for i, x in enumerate(levels):
                case.check(f"neck{n}.{i}{ending}", x)
    outputs = detector.head(pyramid)
    for i, output in enumerate(outputs):
        case.check(f"cls_score{i}", output.cls)
        case.check(f"bbox_pred{i}", output.box)
    return outputs


@pytest.mark.parametrize("name", case_names("keys11/*", "keys2x/*"))
def test_checkpoint_keys(name: str) -> None:
    """Every key of a released checkpoint has a place here, of the same shape, frozen alike."""
    published = json.loads((DATA / f"{name}.json").read_text())
    spec = spec_of(published["name"])
    if published["semantics"] == "mmdet 1.1":
        settings = published["settings"]
        assert spec.conventions.pad_divisor == settings["preprocess"]["pad_divisor"]
        assert spec.head.depth == settings["head"]["stacked_convs"]
    detector = build(spec, init=False)
    entries = {entry["key"]: entry for entry in published["keys"]}
    renamed = rename_detector(entries)
    state = detector.state_dict()
    assert {k: list(v.shape) for k, v in state.items()} == {
        k: e["shape"] for k, e in renamed.items()
    }
    params = dict(detector.named_parameters())
    assert sum(p.numel() for p in params.values()) == published["num_param_elements"]
    frozen = {k for k, e in renamed.items() if e["kind"] == "param" and e.get("frozen")}
    assert {k for k, p in params.items() if not p.requires_grad} == frozen
