"""What mmdetection's checkpoints say beside their weights: version and configuration."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from sepcbench.checkpoints.config_text import ConfigText
from sepcbench.checkpoints.contents import Contents
from sepcbench.checkpoints.format import Setting
from sepcbench.specs import (
    AnchorHeadSpec,
    AtssSpec,
    FcosSpec,
    FpnSpec,
    FreeAnchorSpec,
    PafpnSpec,
    PconvSpec,
    RcnnSpec,
    RetinaSpec,
    SepcSpec,
    VariantSpec,
)


def config_of(contents: Contents) -> ConfigText:
    """`config` in mmdetection 1.x and 2.x, `cfg` in 3.x."""
    text = contents.meta.get("config") or contents.meta.get("cfg") or ""
    return ConfigText(text if isinstance(text, str) else "")


def version_of(contents: Contents) -> str:
    """Of mmdetection; empty if the file does not say."""
    return str(contents.meta.get("mmdet_version") or "")


def major_of(contents: Contents) -> int | None:
    """The major version of mmdetection: it writes its own, or that of the library below it."""
    if "mmengine_version" in contents.meta:
        return 3
    own = re.match(r"(\d+)\.", version_of(contents))
    if own:
        return max(1, int(own[1]))
    below = re.match(r"(\d+)\.(\d+)", str(contents.meta.get("mmcv_version") or ""))
    if below:  # mmdetection 2.0 came with mmcv 0.5
        return 1 if (int(below[1]), int(below[2])) < (0, 5) else 2
    return None


_CONFIG = "the configuration in the file says so"


def settings(contents: Contents, spec: VariantSpec, padding: str) -> tuple[Setting, ...]:
    """What the weights need and do not show.

    Args:
        contents: of the file.
        spec: the variant under the named conventions.
        padding: why the extra convs of a SEPC neck have none where the file does not say.
    """
    config = config_of(contents)
    return (
        *_padding(config, spec, padding),
        *_box_stds(config, spec),
        *_image(config),
        *_selection(config, "rcnn" if isinstance(spec.head, RcnnSpec) else "test_cfg"),
        *_candidates(contents, spec),
        *_extra_levels(config, spec),
        *_anchors(config, spec),
        *_fcos(config, spec),
        *_two_stage(config, spec),
    )


def obstacles(contents: Contents, spec: VariantSpec) -> tuple[str, ...]:
    """What the configuration asks for, shapes do not show, and `spec` with its settings is not."""
    config, head = config_of(contents), spec.head
    found = []
    if config.value("add_extra_convs", "neck") == "on_lateral":
        found.append("extra levels 'on_lateral' (here from C5 or P5)")
    kinds = {"nms": config.types("nms")}
    if isinstance(head, AnchorHeadSpec):
        found += _other_anchors(config, head, spec.strides)
        kinds["AnchorGenerator"] = config.types("anchor_generator")
    found += [f"'{name}' (here '{ours}')" for ours, names in kinds.items()
              for name in dict.fromkeys(names) if name != ours]  # fmt: skip
    return tuple(found)


def _other_anchors(config: ConfigText, head: AnchorHeadSpec, strides: tuple[int, ...]) -> list[str]:
    stated = _stated_anchors(config)
    here = {"base_scale": head.base_scale, "scales_per_octave": head.scales_per_octave,
            "ratios": head.ratios, "strides": strides,
            "scales": tuple(head.base_scale * 2 ** (i / head.scales_per_octave)
                            for i in range(head.scales_per_octave))}  # fmt: skip
    return [
        f"anchors with {name} = {value} (here {here[name]})"
        for name, value in stated.items()
        if not _same(value, here[name])
    ]


def _padding(config: ConfigText, spec: VariantSpec, why: str) -> list[Setting]:
    """Of the extra convs of a SEPC neck: shapes of weights do not show it."""
    if not isinstance(spec.necks[-1], (PconvSpec, SepcSpec)):
        return []
    field = f"necks.{len(spec.necks) - 1}.extra_padding"
    stated = config.value("lcconv_padding")
    if stated in (0, 1):
        return [Setting(field, stated, _CONFIG)]
    return [Setting(field, 0, why)]


def _box_stds(config: ConfigText, spec: VariantSpec) -> list[Setting]:
    stated: Any = config.value("target_stds", "bbox_head")
    if isinstance(spec.head, (RetinaSpec, FreeAnchorSpec, AtssSpec)) and _numbers(stated, 4):
        return [Setting("head.box_stds", tuple(float(v) for v in stated), _CONFIG)]
    return []


def _image(config: ConfigText) -> list[Setting]:
    """How images are resized, normalised and padded, and the kind of ResNet that goes with it."""
    found: dict[str, object] = {}
    for name in ("mean", "std"):
        triples = [value for value in config.values(name) if _numbers(value, 3)]
        if len(triples) == 1:
            found[f"conventions.{name}"] = tuple(float(v) for v in triples[0])
    to_rgb = config.values("to_rgb") + config.values("bgr_to_rgb")
    if len(to_rgb) == 1 and isinstance(to_rgb[0], bool):
        found["conventions.channels"] = "rgb" if to_rgb[0] else "bgr"
    divisor = config.value("size_divisor", "test_pipeline") or config.value("pad_size_divisor")
    if isinstance(divisor, int) and divisor >= 1:
        found["conventions.pad_divisor"] = divisor
    scale: Any = config.value("img_scale", "test_pipeline") or config.value(
        "scale", "test_pipeline"
    )
    if _numbers(scale, 2):
        found["conventions.short_side"] = int(min(scale))
        found["conventions.long_side"] = int(max(scale))
    if config.value("style", "backbone") == "caffe":
        found["backbone.stride_in"] = "1x1"
    return [Setting(field, value, _CONFIG) for field, value in found.items()]


def _numbers(value: Any, count: int) -> bool:
    return (
        isinstance(value, (list, tuple))
        and len(value) == count
        and all(isinstance(v, (int, float)) and v >= 0 for v in value)
    )


def _selection(config: ConfigText, inside: str) -> list[Setting]:
    """Which candidates become detections, from the field `inside` which they are."""
    names: tuple[tuple[str, str, Callable[[Any], object]], ...] = (
        ("nms_pre", "candidates_per_level", int),
        ("score_thr", "score_threshold", float),
        ("iou_thr", "nms_iou", float),
        ("iou_threshold", "nms_iou", float),
        ("max_per_img", "max_detections", int),
    )
    found = []
    for name, field, kind in names:
        value = config.value(name, inside)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            found.append(Setting(f"conventions.{field}", kind(value), _CONFIG))
    return found


def _candidates(contents: Contents, spec: VariantSpec) -> list[Setting]:
    """mmdetection 2.16 changed which predictions of a level go to NMS."""
    if spec.conventions.name != "mmdet2":
        return []
    field, version = "conventions.candidates", version_of(contents)
    rule = (
        "mmdetection 2.0 to 2.15 keeps the best anchors by their best class, and from 2.16 on the "
        "best (anchor, class) pairs"
    )
    numbers = re.match(r"(\d+)\.(\d+)", version)
    if numbers is None:
        if major_of(contents) == 3:
            return [Setting(field, "pairs", f"meta.mmengine_version is of mmdetection 3.x: {rule}")]
        why = f"assumed, as meta.mmdet_version is not there: {rule} (--set {field}=anchors)"
        return [Setting(field, "pairs", why)]
    old = (int(numbers[1]), int(numbers[2])) < (2, 16)
    why = f"meta.mmdet_version is {version}: {rule}"
    return [Setting(field, "anchors" if old else "pairs", why)]


def _extra_levels(config: ConfigText, spec: VariantSpec) -> list[Setting]:
    """The ReLU between the convs of the levels above P5."""
    stated = config.value("relu_before_extra_convs", "neck")
    if isinstance(stated, bool) and isinstance(spec.necks[0], (FpnSpec, PafpnSpec)):
        return [Setting("necks.0.relu_between", stated, _CONFIG)]
    return []


def _anchors(config: ConfigText, spec: VariantSpec) -> list[Setting]:
    """Sizes and ratios of anchors, if there are as many as the shapes of the head say."""
    stated, head = _stated_anchors(config), spec.head
    if not isinstance(head, AnchorHeadSpec):
        return []
    octaves = stated.get("scales_per_octave", head.scales_per_octave)
    if octaves * len(stated.get("ratios", head.ratios)) != head.scales_per_octave * len(
        head.ratios
    ):
        return []
    names = ("base_scale", "scales_per_octave", "ratios")
    return [Setting(f"head.{name}", stated[name], _CONFIG) for name in names if name in stated]


def _fcos(config: ConfigText, spec: VariantSpec) -> list[Setting]:
    """Where centerness comes from, the unit of distances, and what training differs in."""
    if not isinstance(spec.head, FcosSpec):
        return []
    found: dict[str, object] = {}
    if isinstance(on_box := config.value("centerness_on_reg", "bbox_head"), bool):
        found["centerness_on"] = "box" if on_box else "cls"
    if isinstance(in_strides := config.value("norm_on_bbox", "bbox_head"), bool):
        found["normalise_boxes"] = in_strides
    if config.value("center_sampling", "bbox_head") is True:
        radius: Any = config.value("center_sample_radius", "bbox_head")
        found["centre_radius"] = float(radius) if _above_0([radius]) else 1.5
    if config.types("loss_bbox") == ["GIoULoss"]:
        found["box_loss"] = "giou"
    return [Setting(f"head.{field}", value, _CONFIG) for field, value in found.items()]


def _two_stage(config: ConfigText, spec: VariantSpec) -> list[Setting]:
    """Anchors and proposals of the RPN, RoIAlign, and what boxes are divided by."""
    if not isinstance(spec.head, RcnnSpec) or spec.head.rpn is None:
        return []
    found: dict[str, object] = {}
    rows: tuple[tuple[str, str, str, type], ...] = (
        ("nms_pre", "rpn", "head.rpn.before_nms", int),
        ("max_per_img", "rpn", "head.rpn.proposals", int),
        ("iou_threshold", "rpn", "head.rpn.nms_iou", float),
        ("sampling_ratio", "roi_layer", "conventions.roi_samples", int),
    )
    for name, inside, field, kind in rows:
        value: Any = config.value(name, inside)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            found[field] = kind(value)
    for name, count in (
        ("scales", len(spec.head.rpn.scales)),
        ("ratios", len(spec.head.rpn.ratios)),
    ):
        stated: Any = config.value(name, "anchor_generator")
        if _numbers(stated, count):
            found[f"head.rpn.{name}"] = tuple(float(v) for v in stated)
    if _numbers(stds := config.value("target_stds", "bbox_head"), 4):
        found["head.box_stds"] = tuple(float(v) for v in stds)  # type: ignore[union-attr]
    return [Setting(field, value, _CONFIG) for field, value in found.items()]


def _stated_anchors(config: ConfigText) -> dict[str, Any]:
    """The fields of mmdetection 2.x and 3.x (`anchor_generator`) and of 1.x (`bbox_head`)."""
    found: dict[str, Any] = {}
    for name, theirs in (("base_scale", "octave_base_scale"), ("scales_per_octave",) * 2):
        value: Any = config.value(theirs, "bbox_head")
        if _above_0([value]):
            found[name] = float(value) if name == "base_scale" else value
    for name in ("ratios", "strides", "scales"):
        value = config.value(name, "anchor_generator") or config.value(
            f"anchor_{name}", "bbox_head"
        )
        if isinstance(value, (list, tuple)) and value and _above_0(value):
            found[name] = tuple(float(v) for v in value)
    if len(found.get("scales", ())) == 1:
        found |= {"base_scale": found.pop("scales")[0], "scales_per_octave": 1}
    return found


def _above_0(values: Sequence[Any]) -> bool:
    return all(isinstance(v, (int, float)) and not isinstance(v, bool) and v > 0 for v in values)


def _same(one: Any, other: Any) -> bool:
    """Equal numbers, or equal sequences of them, up to rounding in a configuration."""
    if not isinstance(one, tuple):
        one, other = (one,), (other,)
    return len(one) == len(other) and all(map(partial(math.isclose, rel_tol=1e-3), one, other))
