"""Files of every format: what they are taken for, and the detector that comes of them."""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import Any

import lookalikes
import numpy as np
import pytest
import safetensors.torch
import torch
import torchvision
from lookalikes import RELEASED, save_mmdet, shapes, variant_of, weights
from torch import nn

import sepcbench
from sepcbench.checkpoints import FORMATS
from sepcbench.checkpoints.fitting import wanted_shapes
from sepcbench.checkpoints.inspection import Inspection
from sepcbench.checkpoints.loading import inspect, load
from sepcbench.checkpoints.matching import Wishes
from sepcbench.detectors import build
from sepcbench.errors import CheckpointError, UsageError
from sepcbench.heads.outputs import cells_first
from sepcbench.specs import CONVENTIONS
from sepcbench.variants import VARIANTS, variant

BASELINE = "keys11/retina_baseline"


def why(found: Inspection, what: str) -> str:
    reasons = {reason.what: reason.why for reason in found.reasons}
    assert what in reasons, list(reasons)
    return reasons[what]


@pytest.mark.parametrize(
    "name",
    [
        *(n for n in VARIANTS if "_tiny" in n),
        *(pytest.param(n, marks=pytest.mark.slow) for n in VARIANTS if "_r50" in n),
    ],
)
def test_shapes_built_in_parts_are_those_of_the_detector(name: str) -> None:
    spec = variant(name)
    state = build(spec, init=False).state_dict()
    assert wanted_shapes(spec) == {key: tuple(value.shape) for key, value in state.items()}


def test_every_format_has_a_file_that_it_recognises(tmp_path: Path) -> None:
    """And only one recognises each, but for mmdetection without a version."""
    from sepcbench.checkpoints import native
    from sepcbench.checkpoints.contents import read

    files = {
        "native": tmp_path / "a.safetensors",
        **{f"mmdet{major}": save_mmdet(
            tmp_path / f"{major}.pth", weights(shapes(BASELINE)),
            {"mmdet_version": f"{major}.0.0"}) for major in (1, 2, 3)},
        "universenet": tmp_path / "u.pth",
        "torchvision": tmp_path / "t.pth",
        "torchvision_fcos": tmp_path / "f.pth",
        "torchvision_rcnn": tmp_path / "r.pth",
        "detectron2": tmp_path / "d.pth",
    }  # fmt: skip
    native.save(files["native"], build(variant("retinanet_tiny_fpn")), "abc")
    torch.save(_universenet(), files["universenet"])
    torch.save({"backbone.body.conv1.weight": torch.zeros(1)}, files["torchvision"])
    others = {
        "torchvision_fcos": "head.regression_head.bbox_ctrness.weight",
        "torchvision_rcnn": "rpn.head.cls_logits.weight",
    }
    for name, mark in others.items():
        keys = ("backbone.body.conv1.weight", mark)
        torch.save({key: torch.zeros(1) for key in keys}, files[name])
    torch.save({"model": weights(lookalikes.detectron2_shapes())}, files["detectron2"])
    assert set(files) == set(FORMATS)
    assert {made.conventions for made in FORMATS.values()} <= {*CONVENTIONS, ""}
    for name, path in files.items():
        contents = read(path)
        assert [made.name for made in FORMATS.values() if made.recognise(contents)] == [name]


# --- the released SEPC checkpoints ---------------------------------------------------------------


@pytest.mark.parametrize(("head", "flavour"), RELEASED)
def test_released_checkpoints(tmp_path: Path, head: str, flavour: str) -> None:
    """With the configuration that mmdetection keeps in the file, each is told from all others."""
    pad = 384 if (head, flavour) == ("fsaf", "baseline") else 32
    about = lookalikes.meta(config=lookalikes.config(head, pad), CLASSES=("a",) * 80)
    state = weights(lookalikes.released_shapes(head, flavour))
    path = save_mmdet(tmp_path / "epoch_12.pth", state, about)
    loaded = load(path)
    found, spec = loaded.inspection, loaded.detector.spec
    assert found.variant == spec.name == variant_of(head, flavour)
    assert (found.format, found.conventions) == ("mmdet1", "mmdet1")
    assert found.producer == "mmdetection 1.x, version 1.1.0+4d8557d"
    assert loaded.classes == ("a",) * 80
    assert spec.conventions.pad_divisor == pad
    assert getattr(spec.necks[-1], "extra_padding", 0) == 0
    if flavour != "baseline":
        assert "shapes do not show it" in why(found, "necks.1.extra_padding = 0")
    if head != "fsaf":
        assert "the file names the head" in why(found, f"variant {spec.name}")
        assert spec.head.box_stds == ((0.1, 0.1, 0.2, 0.2) if head == "free_anchor" else (1.0,) * 4)


@pytest.mark.parametrize(("head", "flavour"), RELEASED)
def test_released_checkpoints_without_configuration(
    tmp_path: Path, head: str, flavour: str
) -> None:
    """FSAF's shapes are its own; FreeAnchor's and RetinaNet's are the same, so the user says."""
    state = weights(lookalikes.released_shapes(head, flavour))
    path = save_mmdet(tmp_path / "epoch_12.pth", state, lookalikes.meta())
    found = inspect(path)
    if head == "fsaf":
        assert (found.variant, found.ambiguous, found.problem) == (
            variant_of(head, flavour), None, None)  # fmt: skip
        pad = 384 if flavour == "baseline" else 32
        assert sepcbench.load(path).spec.conventions.pad_divisor == pad
        return
    assert found.variant is None
    assert set(found.fits) == {variant_of(h, flavour) for h in ("retina", "free_anchor")}
    with pytest.raises(CheckpointError) as error:
        load(path)
    for text in ("have the same keys and shapes", "head.box_stds", "add --variant", *found.fits):
        assert text in str(error.value)
    detector = sepcbench.load(path, variant_of(head, flavour))
    assert head == detector.spec.head.TYPE
    assert detector.spec.conventions.name == "mmdet1"


def test_authors_names_tell_the_version_where_the_file_does_not(tmp_path: Path) -> None:
    path = save_mmdet(tmp_path / "x.pth", weights(shapes("keys11/fsaf_sepc")), {})
    found = inspect(path)
    assert found.format == "mmdet1"
    assert "names of the SEPC authors' code" in why(found, "format mmdet1")


def test_a_stated_head_that_the_user_overrules_is_mentioned(tmp_path: Path) -> None:
    about = lookalikes.meta(config=lookalikes.config("free_anchor"))
    path = save_mmdet(tmp_path / "x.pth", weights(shapes("keys11/retina_sepc")), about)
    found = inspect(path, Wishes("retinanet_r50_sepc"))
    assert "names the head free_anchor" in why(found, "variant retinanet_r50_sepc")


# --- mmdetection 2.x and 3.x, UniverseNet --------------------------------------------------------


def test_retinanet_of_an_unknown_version_needs_conventions(tmp_path: Path) -> None:
    path = save_mmdet(tmp_path / "x.pth", weights(shapes(BASELINE)), {})
    with pytest.raises(
        CheckpointError, match=r"mmdetection 1\.x or mmdetection 2\.x .* add --conv"
    ):
        load(path, Wishes("retinanet_r50_fpn"))
    assert inspect(path).format is None
    for name in ("mmdet1", "mmdet2"):
        spec = sepcbench.load(path, "retinanet_r50_fpn", name).spec
        assert spec.conventions == CONVENTIONS[name]


@pytest.mark.parametrize(
    ("about", "name", "conventions"),
    [
        ({"mmdet_version": "2.25.0+abc"}, "mmdet2", "mmdet2"),
        ({"mmcv_version": "0.4.3"}, "mmdet1", "mmdet1"),
        ({"mmcv_version": "1.3.3"}, "mmdet2", "mmdet2"),
        ({"mmengine_version": "0.8.1", "mmdet_version": "3.1.0"}, "mmdet3", "mmdet2"),
    ],
)
def test_the_version_chooses_the_conventions(
    tmp_path: Path, about: dict[str, Any], name: str, conventions: str
) -> None:
    path = save_mmdet(tmp_path / "x.pth", weights(shapes("keys2x/retinanet_r50")), about)
    found = inspect(path, Wishes("retinanet_r50_fpn"))
    assert (found.format, found.conventions) == (name, conventions)


@pytest.mark.parametrize(
    ("about", "rule", "reason"),
    [
        ({"mmdet_version": "2.0.0"}, "anchors", "meta.mmdet_version is 2.0.0"),
        ({"mmdet_version": "2.15.1+abc"}, "anchors", "meta.mmdet_version is 2.15.1+abc"),
        ({"mmdet_version": "2.16.0"}, "pairs", "meta.mmdet_version is 2.16.0"),
        ({"mmdet_version": "3.1.0"}, "pairs", "meta.mmdet_version is 3.1.0"),
        ({"mmengine_version": "0.8.1"}, "pairs", "of mmdetection 3.x"),
        ({"mmcv_version": "1.3.3"}, "pairs", "assumed, as meta.mmdet_version is not there"),
    ],
)
def test_candidates_follow_the_minor_version(
    tmp_path: Path, about: dict[str, Any], rule: str, reason: str
) -> None:
    path = save_mmdet(tmp_path / "x.pth", weights(shapes("keys2x/retinanet_r50")), about)
    found = inspect(path, Wishes("retinanet_r50_fpn"))
    assert reason in why(found, f"conventions.candidates = {rule}")
    assert (("candidates", "anchors") in found.conventions_changed) == (rule == "anchors")
    wishes = Wishes("retinanet_r50_fpn", overrides=(("conventions.candidates", "anchors"),))
    assert ("candidates", "anchors") in inspect(path, wishes).conventions_changed


def _stating(folder: Path, neck: str = "", head: str = "", nms: str = "nms") -> Path:
    """A RetinaNet of mmdetection 2.25 whose configuration says this."""
    text = f"""
model = dict(
    neck=dict(type='FPN', {neck}),
    bbox_head=dict(type='RetinaHead', {head}),
    test_cfg=dict(nms=dict(type='{nms}', iou_threshold=0.5)))
"""
    about = {"mmdet_version": "2.25.0", "config": text}
    return save_mmdet(folder / "x.pth", weights(shapes("keys2x/retinanet_r50")), about)


@pytest.mark.parametrize("relu", [True, False])
def test_relu_before_extra_convs(tmp_path: Path, relu: bool) -> None:
    path = _stating(tmp_path, neck=f"relu_before_extra_convs={relu}")
    assert sepcbench.load(path).spec.necks[0].relu_between is relu


@pytest.mark.parametrize(
    "stated",
    [
        "anchor_generator=dict(type='AnchorGenerator', octave_base_scale=3, "
        "scales_per_octave=1, ratios=[0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.4, 1.6, 1.8])",
        "octave_base_scale=3, scales_per_octave=1, "
        "anchor_ratios=[0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.4, 1.6, 1.8]",
        "anchor_generator=dict(type='AnchorGenerator', scales=[3], "
        "ratios=[0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.4, 1.6, 1.8], strides=[8, 16, 32, 64, 128])",
    ],
)
def test_anchors_are_those_of_the_configuration(tmp_path: Path, stated: str) -> None:
    head = sepcbench.load(_stating(tmp_path, head=stated)).spec.head
    assert (head.base_scale, head.scales_per_octave) == (3.0, 1)
    assert head.ratios == (0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.4, 1.6, 1.8)


@pytest.mark.parametrize(
    ("stated", "line"),
    [
        ({"nms": "soft_nms"}, "'soft_nms' (here 'nms')"),
        ({"neck": "add_extra_convs='on_lateral'"}, "extra levels 'on_lateral'"),
        (
            {"head": "anchor_generator=dict(type='AnchorGenerator', strides=[4, 8, 16, 32, 64])"},
            "anchors with strides = (4.0, 8.0, 16.0, 32.0, 64.0) (here (8, 16, 32, 64, 128))",
        ),
        (
            {"head": "anchor_generator=dict(type='AnchorGenerator', scales=[4, 5, 6])"},
            "anchors with scales = (4.0, 5.0, 6.0)",
        ),
        (
            {"head": "anchor_generator=dict(type='AnchorGenerator', ratios=[1.0])"},
            "anchors with ratios = (1.0,) (here (0.5, 1.0, 2.0))",
        ),
        (
            {"head": "anchor_generator=dict(type='LegacyAnchorGenerator')"},
            "'LegacyAnchorGenerator' (here 'AnchorGenerator')",
        ),
    ],
)
def test_what_a_configuration_asks_for_in_vain_is_stated(
    tmp_path: Path, stated: dict[str, str], line: str
) -> None:
    path = _stating(tmp_path, **stated)
    assert line in (inspect(path).problem or "")
    with pytest.raises(CheckpointError, match="add --conventions mmdet2 to go on without"):
        load(path)
    found = inspect(path, Wishes(conventions="mmdet2"))
    assert found.problem is None
    assert any(r.what.startswith("not followed: ") and line in r.what for r in found.reasons)


def test_the_users_anchors_come_after_those_of_the_configuration(tmp_path: Path) -> None:
    path = _stating(tmp_path, head="octave_base_scale=3")
    detector = sepcbench.load(path)
    assert detector.spec.head.base_scale == 3.0
    wishes = Wishes(overrides=(("head.base_scale", 5.0),))
    assert load(path, wishes).detector.spec.head.base_scale == 5.0


def test_anchors_written_out_as_the_variant_has_them(tmp_path: Path) -> None:
    stated = (
        "anchor_generator=dict(type='AnchorGenerator', scales=[4, 5.04, 6.35], "
        "ratios=[0.5, 1.0, 2.0], strides=[8, 16, 32, 64, 128])"
    )
    assert inspect(_stating(tmp_path, head=stated)).problem is None


def test_mmdetection_3_with_its_histories(tmp_path: Path) -> None:
    text = """
model = dict(
    backbone=dict(type='ResNet', style='caffe', init_cfg=dict(type='Normal', std=0.01)),
    data_preprocessor=dict(mean=[103.53, 116.28, 123.675], std=[1.0, 1.0, 1.0],
                           bgr_to_rgb=False, pad_size_divisor=64),
    bbox_head=dict(type='RetinaHead', anchor_generator=dict(type='AnchorGenerator')),
    test_cfg=dict(nms_pre=500, score_thr=0.1, nms=dict(iou_threshold=0.6), max_per_img=50))
test_pipeline = [dict(scale=(1000, 600), type='Resize', keep_ratio=True)]
test_cfg = dict(type='TestLoop')
"""
    about = {
        "cfg": text,
        "mmengine_version": "0.8.1",
        "dataset_meta": {"classes": [f"c{i}" for i in range(80)]},
    }
    path = tmp_path / "x.pth"
    with lookalikes.mmengine() as history:
        content = {
            "meta": about,
            "state_dict": weights(shapes(BASELINE)),
            "message_hub": {"log_scalars": {"train/loss": history()}},
        }
        torch.save(content, path)
    loaded = load(path)
    how, spec = loaded.detector.spec.conventions, loaded.detector.spec
    assert spec.name == "retinanet_r50_fpn"
    assert loaded.classes[79] == "c79"
    assert (how.channels, how.mean, how.std) == ("bgr", (103.53, 116.28, 123.675), (1.0, 1.0, 1.0))
    assert (how.pad_divisor, how.short_side, how.long_side) == (64, 600, 1000)
    assert (how.candidates_per_level, how.score_threshold, how.nms_iou, how.max_detections) == (
        500, 0.1, 0.6, 50)  # fmt: skip
    assert spec.backbone.stride_in == "1x1"
    assert ("nms_iou", "0.6") in loaded.inspection.conventions_changed


def _universenet() -> dict[str, torch.Tensor]:
    names = (("Pconvs", "pconvs"), ("Pconv", "pconv"), ("lbn", "bn_loc"), ("cbn", "bn_cls"))
    state = {}
    for key, value in weights(shapes("keys11/retina_sepc")).items():
        for old, new in names:
            key = key.replace(f".{old}.", f".{new}.")
        state[key] = value
    return state


def test_universenet(tmp_path: Path) -> None:
    path = save_mmdet(tmp_path / "x.pth", _universenet(), {"mmdet_version": "2.18.0"})
    loaded = load(path, Wishes("retinanet_r50_sepc"))
    assert loaded.inspection.format == "universenet"
    assert loaded.detector.spec.conventions == CONVENTIONS["mmdet2"]
    assert loaded.detector.spec.necks[1].extra_padding == 0
    about = {"mmdet_version": "2.18.0", "config": "neck = [dict(type='SEPC', lcconv_padding=1)]"}
    path = save_mmdet(tmp_path / "y.pth", _universenet(), about)
    assert sepcbench.load(path, "retinanet_r50_sepc").spec.necks[1].extra_padding == 1


# --- torchvision ---------------------------------------------------------------------------------


def _torchvision(version: str) -> nn.Module:
    torch.manual_seed(0)
    make = getattr(torchvision.models.detection, f"retinanet_resnet50_fpn{version}")
    model = make(weights=None, weights_backbone=None).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    return model


def _same_maps(detector: nn.Module, model: nn.Module) -> None:
    image = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        ours = detector(image)
        theirs = model.head(list(model.backbone(image).values()))
    split = [level.cls.shape[2] * level.cls.shape[3] * 9 for level in ours]
    logits, deltas = (theirs[k].split(split, dim=1) for k in ("cls_logits", "bbox_regression"))
    for level, cls, box in zip(ours, logits, deltas):
        torch.testing.assert_close(cells_first(level.cls, 91), cls, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(cells_first(level.box, 4), box, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("version", ["", "_v2"])
def test_torchvision_gives_its_own_maps(tmp_path: Path, version: str) -> None:
    model = _torchvision(version)
    torch.save(model.state_dict(), tmp_path / "x.pth")
    loaded = load(tmp_path / "x.pth")
    assert loaded.detector.spec.name == f"torchvision_retinanet_r50{version}"
    assert (loaded.classes[0], loaded.classes[1], loaded.classes[90]) == (
        "__background__", "person", "toothbrush")  # fmt: skip
    _same_maps(loaded.detector, model)


def test_torchvision_with_frozen_bn_has_eps_0(tmp_path: Path) -> None:
    """As its published weights: no counters of batches, and eps 0 while they are used."""
    model = _torchvision("")
    state = {k: v for k, v in model.state_dict().items() if "num_batches_tracked" not in k}
    safetensors.torch.save_file(state, tmp_path / "x.safetensors")
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 0.0
    loaded = load(tmp_path / "x.safetensors")
    assert "frozen BN" in why(loaded.inspection, "backbone.bn_eps = 0.0")
    _same_maps(loaded.detector, model)


def test_torchvision_before_0_13_had_flat_names(tmp_path: Path) -> None:
    """Towers were conv, ReLU, conv, ReLU, ... in one sequence, and FPN's convs had no `.0`."""
    model, old = _torchvision(""), {}
    for key, value in model.state_dict().items():
        key = re.sub(r"(_head\.conv\.)(\d)\.0\.", lambda m: f"{m[1]}{2 * int(m[2])}.", key)
        old[re.sub(r"((?:inner|layer)_blocks\.\d)\.0\.", r"\1.", key)] = value
    assert "head.regression_head.conv.6.weight" in old
    assert "backbone.fpn.inner_blocks.2.bias" in old
    torch.save(old, tmp_path / "x.pth")
    _same_maps(sepcbench.load(tmp_path / "x.pth"), model)


# --- detectron2 ----------------------------------------------------------------------------------


def _detectron2_arrays() -> dict[str, np.ndarray]:
    """As the model zoo's files: all convs of the head 0, so that its biases are its output."""
    state = {}
    for key, shape in lookalikes.detectron2_shapes().items():
        kind = np.ones if "running_var" in key else np.zeros
        state[key] = kind(shape, dtype=np.float32)
    return state


@pytest.mark.parametrize("anchor", [0, 7])
def test_detectron2_anchors_go_size_by_size(tmp_path: Path, anchor: int) -> None:
    """The box of the one anchor that scores has the size and ratio detectron2 gives to it."""
    state = _detectron2_arrays()
    state["head.cls_score.bias"] -= 10
    state["head.cls_score.bias"][anchor * 80 + 17] = 3
    state["anchor_generator.cell_anchors.0"] = np.zeros((9, 4), np.float32)
    state["pixel_mean"] = np.array([103.53, 116.28, 123.675], np.float32).reshape(3, 1, 1)
    state["pixel_std"] = np.ones((3, 1, 1), np.float32)
    path = tmp_path / "model_final.pkl"
    content = {"model": state, "__author__": "Detectron2 Model Zoo"}
    path.write_bytes(pickle.dumps(content, protocol=2))
    loaded = load(path, Wishes(overrides=(("max_detections", 5000),)))
    assert loaded.inspection.format == "detectron2"
    (found,) = loaded.detector.detect(torch.zeros(1, 3, 256, 256), [(256, 256)])
    assert set(found.labels.tolist()) == {17}
    assert loaded.classes[17] == "horse"
    size, ratio = 32 * 2 ** (anchor // 3 / 3), (0.5, 1.0, 2.0)[anchor % 3]
    width = (size * size / ratio) ** 0.5
    wanted = [(width * k, width * ratio * k) for k in (1, 2, 4, 8, 16)]
    whole = found.boxes[(found.boxes > 0).all(1) & (found.boxes < 256).all(1)]
    assert len(whole) > 10
    for x1, y1, x2, y2 in whole.tolist():
        assert any(
            abs(x2 - x1 - w) < 0.01 and abs(y2 - y1 - h) < 0.01 for w, h in wanted
        ), (x2 - x1, y2 - y1)  # fmt: skip


def test_detectron2_needs_its_stride_relu_and_colours(tmp_path: Path) -> None:
    path = tmp_path / "model_final.pth"
    state = {k: torch.from_numpy(v) for k, v in _detectron2_arrays().items()}
    torch.save({"model": state, "optimizer": {}, "iteration": 89999}, path)
    found = inspect(path)
    assert set(found.fits) == {"retinanet_r50_fpn"}
    detector = sepcbench.load(path)
    blocks = detector.backbone.layer2[0]
    assert (blocks.conv1.stride, blocks.conv2.stride) == ((2, 2), (1, 1))
    assert detector.necks[0].extras.relu_between
    assert detector.spec.conventions.channels == "bgr"


# --- native --------------------------------------------------------------------------------------


def test_native_checkpoints_carry_their_own_conventions(tmp_path: Path) -> None:
    from sepcbench.checkpoints import native

    spec = variant("retinanet_tiny_sepc", {"num_classes": 5, "score_threshold": 0.2, "depth": 2})
    torch.manual_seed(0)
    made = build(spec)
    native.save(tmp_path / "x.safetensors", made, "abcde")
    loaded = load(tmp_path / "x.safetensors")
    assert loaded.detector.spec == spec
    assert loaded.classes == tuple("abcde")
    for key, value in made.state_dict().items():
        assert torch.equal(loaded.detector.state_dict()[key], value), key
    changed = sepcbench.load(tmp_path / "x.safetensors", conventions="mmdet1", nms_iou=0.7).spec
    assert changed.conventions.name == "mmdet1"
    assert changed.conventions.nms_iou == 0.7
    assert changed.conventions.short_side == 128


# --- what the user says --------------------------------------------------------------------------


def test_fields_are_overridden_one_by_one(tmp_path: Path) -> None:
    path = save_mmdet(tmp_path / "x.pth", weights(shapes("keys11/fsaf_sepc")), lookalikes.meta())
    wishes = Wishes(overrides=(("conventions.nms_iou", "0.6"), ("extra_padding", 1)))
    loaded = load(path, wishes)
    assert loaded.detector.spec.conventions.nms_iou == 0.6
    assert loaded.detector.spec.necks[1].extra_padding == 1
    assert why(loaded.inspection, "extra_padding = 1") == "asked for"
    assert loaded.detector.spec.conventions.box_offset == 1
    ours = sepcbench.load(path, conventions="torchvision").spec.conventions
    assert ours.name == "torchvision"
    for wishes, line in (
        (Wishes("fsaf_r50_sep"), "did you mean 'fsaf_r50_sepc'"),
        (Wishes(conventions="mmdet4"), "unknown conventions 'mmdet4'"),
        (Wishes(overrides=(("nms_iuo", "1"),)), "nms_iou"),
    ):
        with pytest.raises(UsageError, match=line):
            load(path, wishes)


def test_depth_outside_the_table_by_override(tmp_path: Path) -> None:
    state = {k: v for k, v in weights(shapes("keys11/fsaf_sepc")).items() if "Pconvs.3" not in k}
    path = save_mmdet(tmp_path / "x.pth", state, lookalikes.meta())
    with pytest.raises(CheckpointError, match=r"does not fit fsaf_r50_sepc, the nearest, nor any"):
        load(path)
    assert sepcbench.load(path, **{"necks.1.depth": 3}).spec.necks[1].depth == 3


def test_other_numbers_of_classes(tmp_path: Path) -> None:
    state = weights(shapes(BASELINE))
    state |= {k: v[:180] for k, v in state.items() if "retina_cls" in k}
    about = lookalikes.meta(CLASSES=tuple(f"c{i}" for i in range(20)))
    loaded = load(save_mmdet(tmp_path / "x.pth", state, about), Wishes("retinanet_r50_fpn"))
    assert loaded.detector.spec.num_classes == 20
    assert loaded.classes[19] == "c19"
