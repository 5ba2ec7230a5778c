"""Checkpoints of mmdetection 1.x, 2.x and 3.x, with the SEPC neck of its authors or UniverseNet.

Sources: the state dicts of the released SEPC detectors (mmdetection 1.1, github.com/jshilong/SEPC)
and of mmdetection 2.25; UniverseNet's SEPC neck (github.com/shinya7y/UniverseNet).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from torch import Tensor

from sepcbench.checkpoints.class_names import COCO
from sepcbench.checkpoints.config_text import ConfigText
from sepcbench.checkpoints.contents import Contents
from sepcbench.checkpoints.format import Format, Reason, Renamed, Rules, Setting, rename_keys
from sepcbench.errors import CheckpointError
from sepcbench.specs import (
    FreeAnchorSpec,
    PconvSpec,
    ResNetSpec,
    RetinaSpec,
    SepcSpec,
    VariantSpec,
)

BACKBONE: Rules = ((r"^backbone\.((?:conv1|bn1|layer[1-4])\.)", r"backbone.\1"),)
# a single neck has no number
FUSING: Rules = (
    (r"^neck\.(?:0\.)?lateral_convs\.(\d+)\.conv\.", r"necks.0.laterals.\1.conv."),
    (r"^neck\.(?:0\.)?lateral_convs\.(\d+)\.gn\.", r"necks.0.laterals.\1.norm."),
    (r"^neck\.(?:0\.)?fpn_convs\.(\d+)\.conv\.", r"necks.0.outputs.\1.conv."),
    (r"^neck\.(?:0\.)?fpn_convs\.(\d+)\.gn\.", r"necks.0.outputs.\1.norm."),
    (r"^neck\.(?:0\.)?downsample_convs\.(\d+)\.conv\.", r"necks.0.downs.\1.conv."),
    (r"^neck\.(?:0\.)?pafpn_convs\.(\d+)\.conv\.", r"necks.0.bottom_up.\1.conv."),
)
_KERNELS = ("up", "same", "down")
SEPC: Rules = (
    *(
        (rf"^neck\.1\.Pconvs\.(\d+)\.Pconv\.{i}\.", rf"necks.1.blocks.\1.conv.{name}.")
        for i, name in enumerate(_KERNELS)
    ),
    (r"^neck\.1\.Pconvs\.(\d+)\.bn\.", r"necks.1.blocks.\1.norm."),
    (r"^neck\.1\.cbn\.", "necks.1.cls.norm."),
    (r"^neck\.1\.lbn\.", "necks.1.loc.norm."),
    (r"^neck\.1\.cconv\.", "necks.1.cls.conv."),
    (r"^neck\.1\.lconv\.", "necks.1.loc.conv."),
)
UNIVERSENET_SEPC: Rules = (
    *(
        (rf"^neck\.1\.pconvs\.(\d+)\.pconv\.{i}\.", rf"necks.1.blocks.\1.conv.{name}.")
        for i, name in enumerate(_KERNELS)
    ),
    (r"^neck\.1\.pconvs\.(\d+)\.bn\.", r"necks.1.blocks.\1.norm."),
    (r"^neck\.1\.bn_cls\.", "necks.1.cls.norm."),
    (r"^neck\.1\.bn_loc\.", "necks.1.loc.norm."),
    (r"^neck\.1\.cconv\.", "necks.1.cls.conv."),
    (r"^neck\.1\.lconv\.", "necks.1.loc.conv."),
)
# RetinaNet, FreeAnchor and FSAF have the same names
HEAD: Rules = (
    (r"^bbox_head\.cls_convs\.(\d+)\.conv\.", r"head.cls_tower.\1.conv."),
    (r"^bbox_head\.reg_convs\.(\d+)\.conv\.", r"head.box_tower.\1.conv."),
    (r"^bbox_head\.cls_convs\.(\d+)\.gn\.", r"head.cls_tower.\1.norm."),
    (r"^bbox_head\.reg_convs\.(\d+)\.gn\.", r"head.box_tower.\1.norm."),
    (r"^bbox_head\.retina_cls\.", "head.cls_pred."),
    (r"^bbox_head\.retina_reg\.", "head.box_pred."),
)

HEAD_OF_CONFIG = {
    "RetinaHead": "retina",
    "SepcRetinaHead": "retina",
    "FreeAnchorRetinaHead": "free_anchor",
    "SepcFreeAnchorRetinaHead": "free_anchor",
    "FSAFHead": "fsaf",
}
"""From the class of the head in a configuration to the type of its spec here."""

_OFFSET = re.compile(r"\.conv_offset\.")
_LATERAL = re.compile(r"^necks\.0\.laterals\.(\d+)\.")
_OUTPUT = re.compile(r"^necks\.0\.outputs\.(\d+)\.")


def rename(state: Mapping[str, Tensor], sepc: Rules = SEPC) -> Renamed:
    """Rename the parameters of a whole detector.

    Args:
        state: published name (`backbone.`, `neck.` or `neck.0.`, `bbox_head.`) to tensor.
        sepc: the names of the SEPC neck.
    """
    first = rename_keys(state, (*BACKBONE, *FUSING, *sepc, *HEAD))
    laterals = len({match[1] for key in first.state if (match := _LATERAL.match(key))})
    final = {key: _split_extras(_OFFSET.sub(".offset.", key), laterals) for key in first.state}
    return Renamed(
        {final[key]: value for key, value in first.state.items()},
        {final[key]: name for key, name in first.published.items()},
        first.left_over,
    )


def _split_extras(key: str, laterals: int) -> str:
    """The published 3x3 convs past the laterals are the stride-2 convs of the extra levels."""
    match = _OUTPUT.match(key)
    if match is None or int(match[1]) < laterals:
        return key
    return _OUTPUT.sub(f"necks.0.extras.convs.{int(match[1]) - laterals}.", key)


def rename_detector(state: Mapping[str, Any]) -> dict[str, Any]:
    """Rename as `rename` does; every key must have a place here."""
    renamed = rename(state)
    if renamed.left_over:
        raise CheckpointError(f"parameter '{renamed.left_over[0]}' has no place here")
    return renamed.state


# --- what the file says ----------------------------------------------------------------------


def _config(contents: Contents) -> ConfigText:
    """`config` in mmdetection 1.x and 2.x, `cfg` in 3.x."""
    text = contents.meta.get("config") or contents.meta.get("cfg") or ""
    return ConfigText(text if isinstance(text, str) else "")


def _version(contents: Contents) -> str:
    return str(contents.meta.get("mmdet_version") or "")


def _major(contents: Contents) -> int | None:
    """The major version of mmdetection: it writes its own, or that of the library below it."""
    if "mmengine_version" in contents.meta:
        return 3
    own = re.match(r"(\d+)\.", _version(contents))
    if own:
        return max(1, int(own[1]))
    below = re.match(r"(\d+)\.(\d+)", str(contents.meta.get("mmcv_version") or ""))
    if below:  # mmdetection 2.0 came with mmcv 0.5
        return 1 if (int(below[1]), int(below[2])) < (0, 5) else 2
    return None


def _has(contents: Contents, pattern: str) -> str | None:
    """The first key that matches."""
    return next((key for key in contents.state if re.match(pattern, key)), None)


def _recognise(contents: Contents, major: int) -> tuple[Reason, ...]:
    """What says that a file is of this major version; also where nothing says which it is."""
    head = _has(contents, r"bbox_head\.")
    if head is None or _has(contents, r"neck\.1\.pconvs\."):
        return ()
    stated, authors = _major(contents), _has(contents, r"neck\.1\.Pconvs\.")
    name = f"mmdet{major}"
    if stated is not None:
        if stated != major:
            return ()
        key = next(k for k in ("mmengine_version", "mmdet_version", "mmcv_version")
                   if k in contents.meta)  # fmt: skip
        return (Reason(f"format {name}", f"meta.{key} is {contents.meta[key]}"),)
    if authors:
        return (Reason(f"format {name}", f"'{authors}': names of the SEPC authors' code, which is "
                       "built on mmdetection 1.1"),) if major == 1 else ()  # fmt: skip
    return (Reason(f"format {name}", f"names such as '{head}', but meta names no version"),)


def _recognise_universenet(contents: Contents) -> tuple[Reason, ...]:
    key = _has(contents, r"neck\.1\.pconvs\.")
    return (Reason("format universenet", f"'{key}': names of UniverseNet's SEPC"),) if key else ()


def _suits(spec: VariantSpec) -> bool:
    """ResNets with the necks here; where a tower of PConvs has BN, it is iBN."""
    towers = [neck for neck in spec.necks if isinstance(neck, (PconvSpec, SepcSpec))]
    return (
        isinstance(spec.backbone, ResNetSpec)
        and spec.conventions.name == "native"
        and all(neck.norm in ("none", "integrated") for neck in towers)
        and all(neck.branches == "combined" for neck in towers if isinstance(neck, PconvSpec))
    )


def _heads(contents: Contents) -> tuple[str, ...]:
    types = _config(contents).types("bbox_head")
    return tuple(dict.fromkeys(HEAD_OF_CONFIG.get(name, name) for name in types))


def _classes(contents: Contents, count: int) -> tuple[str, ...]:
    """`CLASSES` in 1.x and 2.x, `dataset_meta` in 3.x; else COCO's if there are 80."""
    meta = contents.meta
    data = meta.get("dataset_meta")
    named = meta.get("CLASSES")
    if isinstance(data, Mapping):
        named = data.get("classes", data.get("CLASSES"))
    if isinstance(named, (list, tuple)) and len(named) == count:
        return tuple(str(name) for name in named)
    return COCO if count == len(COCO) and not named else ()


# --- what the weights need and do not show -----------------------------------------------------

_CONFIG = "the configuration in the file says so"


def _settings(contents: Contents, spec: VariantSpec, padding: str) -> tuple[Setting, ...]:
    config = _config(contents)
    return (
        *_padding(config, spec, padding),
        *_box_stds(config, spec),
        *_image(config),
        *_selection(config),
    )


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
    if isinstance(spec.head, (RetinaSpec, FreeAnchorSpec)) and _numbers(stated, 4):
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


def _selection(config: ConfigText) -> list[Setting]:
    """Which candidates become detections."""
    names: tuple[tuple[str, str, Callable[[Any], object]], ...] = (
        ("nms_pre", "candidates_per_level", int),
        ("score_thr", "score_threshold", float),
        ("iou_thr", "nms_iou", float),
        ("iou_threshold", "nms_iou", float),
        ("max_per_img", "max_detections", int),
    )
    found = []
    for name, field, kind in names:
        value = config.value(name, "test_cfg")
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            found.append(Setting(f"conventions.{field}", kind(value), _CONFIG))
    return found


_AUTHORS = (
    "the released SEPC checkpoints were trained without padding in lconv and cconv; shapes do not "
    "show it"
)
_PORT = "UniverseNet's default (lcconv_padding=0); neither shapes nor the file show it"


def _mmdet(major: int, producer: str, conventions: str) -> Format:
    return Format(
        name=f"mmdet{major}",
        producer=producer,
        conventions=conventions,
        recognise=partial(_recognise, major=major),
        rename=rename,
        suits=_suits,
        settings=partial(_settings, padding=_AUTHORS),
        heads=_heads,
        version=_version,
        classes=_classes,
    )


MMDET1 = _mmdet(1, "mmdetection 1.x", "mmdet1")
MMDET2 = _mmdet(2, "mmdetection 2.x", "mmdet2")
MMDET3 = _mmdet(3, "mmdetection 3.x", "mmdet2")
UNIVERSENET = Format(
    name="universenet",
    producer="UniverseNet (mmdetection 2.x)",
    conventions="mmdet2",
    recognise=_recognise_universenet,
    rename=partial(rename, sepc=UNIVERSENET_SEPC),
    suits=_suits,
    settings=partial(_settings, padding=_PORT),
    heads=_heads,
    version=_version,
    classes=_classes,
)
