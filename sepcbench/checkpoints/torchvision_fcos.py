"""Checkpoints of torchvision's `fcos_resnet50_fpn`."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from sepcbench.checkpoints.contents import Contents
from sepcbench.checkpoints.format import Format, Reason, Renamed, Rules, Setting, rename_keys
from sepcbench.checkpoints.torchvision_retinanet import BODY, class_names
from sepcbench.specs import FcosSpec, VariantSpec

_MARK = "head.regression_head.bbox_ctrness.weight"

RULES: Rules = (
    *BODY,
    # conv, GN, ReLU, conv, GN, ReLU, ... in one sequence
    *(
        (rf"^head\.{published}_head\.conv\.{3 * i + j}\.", f"head.{ours}_tower.{i}.{layer}.")
        for published, ours in (("classification", "cls"), ("regression", "box"))
        for i in range(4)
        for j, layer in enumerate(("conv", "norm"))
    ),
    (r"^head\.classification_head\.cls_logits\.", "head.cls_pred."),
    (r"^head\.regression_head\.bbox_reg\.", "head.box_pred."),
    (r"^head\.regression_head\.bbox_ctrness\.", "head.centerness_pred."),
)


def _recognise(contents: Contents) -> tuple[Reason, ...]:
    if _MARK not in contents.state:
        return ()
    return (Reason("format torchvision_fcos", f"'{_MARK}': names of torchvision's FCOS"),)


def _rename(state: Mapping[str, Tensor]) -> Renamed:
    return rename_keys(state, RULES)


def _settings(contents: Contents, spec: VariantSpec) -> tuple[Setting, ...]:
    why = "torchvision's FCOS is built so; neither keys nor shapes show it"
    return (
        Setting("conventions.score_threshold", 0.2, why),
        Setting("conventions.nms_iou", 0.6, why),
        Setting("conventions.max_detections", 100, why),
    )


FORMAT = Format(
    name="torchvision_fcos",
    producer="torchvision",
    conventions="torchvision",
    recognise=_recognise,
    rename=_rename,
    suits=lambda spec: spec.conventions.name == "torchvision" and isinstance(spec.head, FcosSpec),
    settings=_settings,
    classes=class_names,
)
