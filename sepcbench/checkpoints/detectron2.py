"""Checkpoints of detectron2's RetinaNet: the model zoo's .pkl of arrays, and .pth of training.

Sources: the parameter names of detectron2's ResNet, FPN and RetinaNet, and its configuration
`COCO-Detection/retinanet_R_50_FPN_3x`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from sepcbench.checkpoints.class_names import COCO
from sepcbench.checkpoints.contents import Contents
from sepcbench.checkpoints.format import Format, Reason, Renamed, Rules, Setting, rename_keys
from sepcbench.specs import FpnSpec, ResNetSpec, RetinaSpec, VariantSpec

_BODY = r"^backbone\.bottom_up\."


def _stage_rules(stage: int) -> Rules:
    """res2..res5 are layer1..layer4; the shortcut is called downsample."""
    old, new = rf"{_BODY}res{stage}\.(\d+)\.", rf"backbone.layer{stage - 1}.\1."
    return (
        (old + r"shortcut\.norm\.", new + "downsample.1."),
        (old + r"shortcut\.", new + "downsample.0."),
        (old + r"conv(\d)\.norm\.", new + r"bn\2."),
        (old + r"conv(\d)\.", new + r"conv\2."),
    )


RULES: Rules = (
    (_BODY + r"stem\.conv1\.norm\.", "backbone.bn1."),
    (_BODY + r"stem\.conv1\.", "backbone.conv1."),
    *(rule for stage in (2, 3, 4, 5) for rule in _stage_rules(stage)),
    *((rf"^backbone\.fpn_lateral{i + 3}\.", f"necks.0.laterals.{i}.conv.") for i in range(3)),
    *((rf"^backbone\.fpn_output{i + 3}\.", f"necks.0.outputs.{i}.conv.") for i in range(3)),
    (r"^backbone\.top_block\.p6\.", "necks.0.extras.convs.0.conv."),
    (r"^backbone\.top_block\.p7\.", "necks.0.extras.convs.1.conv."),
    # conv, ReLU, conv, ReLU, ...
    *(
        (rf"^head\.{published}_subnet\.{2 * i}\.", f"head.{ours}_tower.{i}.conv.")
        for published, ours in (("cls", "cls"), ("bbox", "box"))
        for i in range(4)
    ),
    (r"^head\.cls_score\.", "head.cls_pred."),
    (r"^head\.bbox_pred\.", "head.box_pred."),
)


def _recognise(contents: Contents) -> tuple[Reason, ...]:
    key = next((key for key in contents.state if re.match(_BODY, key)), None)
    if key is None or "head.cls_score.weight" not in contents.state:
        return ()
    return (Reason("format detectron2", f"'{key}': names of detectron2's RetinaNet"),)


def _rename(state: Mapping[str, Tensor]) -> Renamed:
    return rename_keys(state, RULES)


def _arrange(state: dict[str, Tensor], spec: VariantSpec) -> dict[str, Tensor]:
    """In a cell, detectron2's anchors go size by size; here, ratio by ratio."""
    if not isinstance(spec.head, RetinaSpec):
        return state
    sizes, ratios = spec.head.scales_per_octave, len(spec.head.ratios)
    arranged = dict(state)
    for key in state:
        if key.startswith(("head.cls_pred.", "head.box_pred.")):
            split = state[key].unflatten(0, (sizes, ratios, -1))  # (S, R, K or 4, ...)
            arranged[key] = split.transpose(0, 1).flatten(0, 2).contiguous()
    return arranged


def _settings(contents: Contents, spec: VariantSpec) -> tuple[Setting, ...]:
    why = "detectron2's RetinaNet is so; neither keys nor shapes show it"
    found = [
        Setting("backbone.stride_in", "1x1", why),
        Setting("necks.0.relu_between", True, why),
    ]
    for name, field in (("pixel_mean", "mean"), ("pixel_std", "std")):
        stored: Any = contents.state.get(name)
        if isinstance(stored, Tensor) and stored.numel() == 3:
            values = tuple(round(v, 4) for v in stored.flatten().to(torch.float64).tolist())
            found.append(Setting(f"conventions.{field}", values, f"'{name}' in the file"))
    return tuple(found)


def _suits(spec: VariantSpec) -> bool:
    return (
        isinstance(spec.backbone, ResNetSpec)
        and isinstance(spec.head, RetinaSpec)
        and spec.conventions.name == "native"
        and len(spec.necks) == 1
        and isinstance(spec.necks[0], FpnSpec)
    )


FORMAT = Format(
    name="detectron2",
    producer="detectron2",
    conventions="detectron2",
    recognise=_recognise,
    rename=_rename,
    suits=_suits,
    ignored=re.compile(r"\.num_batches_tracked$|^pixel_(?:mean|std)$|^anchor_generator\."),
    settings=_settings,
    arrange=_arrange,
    classes=lambda contents, count: COCO if count == len(COCO) else (),
)
