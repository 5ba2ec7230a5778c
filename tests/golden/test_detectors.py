"""Whole released detectors, from an image to detections, and their checkpoints' keys."""

from __future__ import annotations

import json

import pytest
import torch
from golden.scheme import DATA, Case, case_names

from sepcbench.checkpoints.mmdet import rename_detector
from sepcbench.detectors import Detector, build
from sepcbench.ops.pyramid import PyramidPair
from sepcbench.specs import (
    CONVENTIONS,
    FpnSpec,
    NeckSpec,
    PconvSpec,
    ResNetSpec,
    RetinaSpec,
    SepcSpec,
    VariantSpec,
)

TOWERS: dict[str, NeckSpec | None] = {
    "retina_baseline": None,
    "retina_pconv": PconvSpec(extra_padding=0),
    "retina_ibn": PconvSpec(norm="integrated", extra_padding=0),
    "retina_sepclite": SepcSpec(deform="lite", extra_padding=0),
    "retina_sepc": SepcSpec(extra_padding=0),
    "retinanet_r50": None,
}


def spec_of(flavour: str) -> VariantSpec:
    tower = TOWERS[flavour]
    necks = (FpnSpec(), tower) if tower else (FpnSpec(),)
    head = RetinaSpec(depth=0 if tower else 4)
    return VariantSpec(flavour, ResNetSpec(50), necks, head, conventions=CONVENTIONS["mmdet1"])


def kinds(spec: VariantSpec) -> tuple[str, ...]:
    return ("fpn", "sepc")[: len(spec.necks)]


@pytest.mark.parametrize("name", case_names("e2e11/*"))
def test_image_to_detections(name: str) -> None:
    case = Case(name)
    spec = spec_of(case.info["detector"])
    detector = build(spec, init=False).eval()
    detector.load_state_dict(rename_detector(case.params, kinds(spec)))
    height, width = case.info["img_shape"][:2]
    images = case.inputs["img"].clone()
    images[:, :, height:] = 0
    images[:, :, :, width:] = 0
    with torch.no_grad():
        outputs = check_maps(case, detector, images)
    factor = case.info["scale_factor"] if case.info["rescale"] else 1.0
    (found,) = detector.decode(outputs, [(height, width)], [factor])
    case.check_detections(0, *found)


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
    detector = build(spec, init=False)
    entries = {entry["key"]: entry for entry in published["keys"]}
    renamed = rename_detector(entries, kinds(spec))
    state = detector.state_dict()
    assert {k: list(v.shape) for k, v in state.items()} == {
        k: e["shape"] for k, e in renamed.items()
    }
    params = dict(detector.named_parameters())
    assert sum(p.numel() for p in params.values()) == published["num_param_elements"]
    frozen = {k for k, e in renamed.items() if e["kind"] == "param" and e.get("frozen")}
    assert {k for k, p in params.items() if not p.requires_grad} == frozen
