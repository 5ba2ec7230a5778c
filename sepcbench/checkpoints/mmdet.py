"""Checkpoints of mmdetection 1.x, 2.x and 3.x, with the SEPC neck of its authors or UniverseNet.

Sources: the state dicts of the released SEPC detectors (mmdetection 1.1, github.com/jshilong/SEPC)
and of mmdetection 2.25; UniverseNet's SEPC neck (github.com/shinya7y/UniverseNet).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from typing import Any

from torch import Tensor

from sepcbench.checkpoints.class_names import COCO
from sepcbench.checkpoints.contents import Contents
from sepcbench.checkpoints.format import Format, Reason, Renamed, Rules, rename_keys
from sepcbench.checkpoints.mmdet_config import (
    config_of,
    major_of,
    obstacles,
    settings,
    version_of,
)
from sepcbench.errors import CheckpointError
from sepcbench.specs import FpnSpec, PconvSpec, ResNetSpec, SepcSpec, VariantSpec

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
# RetinaNet, FreeAnchor and FSAF have the same names; FCOS others in 1.x than from 2.x on
HEAD: Rules = (
    (r"^bbox_head\.cls_convs\.(\d+)\.conv\.", r"head.cls_tower.\1.conv."),
    (r"^bbox_head\.reg_convs\.(\d+)\.conv\.", r"head.box_tower.\1.conv."),
    (r"^bbox_head\.cls_convs\.(\d+)\.gn\.", r"head.cls_tower.\1.norm."),
    (r"^bbox_head\.reg_convs\.(\d+)\.gn\.", r"head.box_tower.\1.norm."),
    (r"^bbox_head\.(?:retina|fcos|conv|atss)_cls\.", "head.cls_pred."),
    (r"^bbox_head\.(?:retina|fcos|conv|atss)_reg\.", "head.box_pred."),
    (r"^bbox_head\.(?:fcos|conv|atss)_centerness\.", "head.centerness_pred."),
    (r"^bbox_head\.scales\.(\d+)\.scale$", r"head.scales.\1"),
    # Faster and Mask R-CNN from 2.x on
    (r"^rpn_head\.rpn_conv\.", "head.rpn.conv."),
    (r"^rpn_head\.rpn_cls\.", "head.rpn.cls_pred."),
    (r"^rpn_head\.rpn_reg\.", "head.rpn.box_pred."),
    (r"^roi_head\.bbox_head\.shared_fcs\.0\.", "head.box_head.body.fc1."),
    (r"^roi_head\.bbox_head\.shared_fcs\.1\.", "head.box_head.body.fc2."),
    (r"^roi_head\.bbox_head\.fc_cls\.", "head.box_head.cls_pred."),
    (r"^roi_head\.bbox_head\.fc_reg\.", "head.box_head.box_pred."),
    (r"^roi_head\.mask_head\.convs\.(\d+)\.conv\.", r"head.mask_head.convs.\1."),
    (r"^roi_head\.mask_head\.upsample\.", "head.mask_head.deconv."),
    (r"^roi_head\.mask_head\.conv_logits\.", "head.mask_head.pred."),
)

HEAD_OF_CONFIG = {
    "RetinaHead": "retina",
    "SepcRetinaHead": "retina",
    "FreeAnchorRetinaHead": "free_anchor",
    "SepcFreeAnchorRetinaHead": "free_anchor",
    "FSAFHead": "fsaf",
    "FCOSHead": "fcos",
    "ATSSHead": "atss",
    "ATSSSEPCHead": "atss",
    "Shared2FCBBoxHead": "rcnn",
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


def _has(contents: Contents, pattern: str) -> str | None:
    """The first key that matches."""
    return next((key for key in contents.state if re.match(pattern, key)), None)


def _recognise(contents: Contents, major: int) -> tuple[Reason, ...]:
    """What says that a file is of this major version; also where nothing says which it is."""
    head = _has(contents, r"(?:roi_head\.)?bbox_head\.")
    if head is None or _has(contents, r"neck\.1\.pconvs\."):
        return ()
    if head.startswith("roi_head.") and major == 1:  # in 1.x there is no such module
        return ()
    stated, authors = major_of(contents), _has(contents, r"neck\.1\.Pconvs\.")
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
        and all(neck.top_down and neck.lateral for neck in spec.necks if isinstance(neck, FpnSpec))
    )


# the last convs of heads whose parameters otherwise have the same names and shapes
_HEAD_OF_KEY = (
    (r"bbox_head\.(?:fcos|conv)_centerness\.", "fcos"),
    (r"bbox_head\.atss_centerness\.", "atss"),
    (r"roi_head\.bbox_head\.", "rcnn"),
)


def _heads(contents: Contents) -> tuple[str, ...]:
    """From the configuration, or else from the names of the parameters."""
    types = config_of(contents).types("bbox_head")
    named = dict.fromkeys(HEAD_OF_CONFIG.get(name, name) for name in types)
    shown = (head for pattern, head in _HEAD_OF_KEY if _has(contents, pattern))
    return tuple(named or shown)


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
        settings=partial(settings, padding=_AUTHORS),
        obstacles=obstacles,
        heads=_heads,
        version=version_of,
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
    settings=partial(settings, padding=_PORT),
    obstacles=obstacles,
    heads=_heads,
    version=version_of,
    classes=_classes,
)
