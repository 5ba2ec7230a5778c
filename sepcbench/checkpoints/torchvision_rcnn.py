"""Checkpoints of torchvision's `fasterrcnn_resnet50_fpn` and `maskrcnn_resnet50_fpn`."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from sepcbench.checkpoints.class_names import TORCHVISION
from sepcbench.checkpoints.contents import Contents
from sepcbench.checkpoints.format import Format, Reason, Renamed, Rules, Setting, rename_keys
from sepcbench.checkpoints.torchvision_retinanet import BODY, bn_settings
from sepcbench.specs import RcnnSpec, VariantSpec

_MARK = "rpn.head.cls_logits.weight"

RULES: Rules = (
    *BODY,
    (r"^rpn\.head\.conv\.0\.0\.", "head.rpn.conv."),
    (r"^rpn\.head\.cls_logits\.", "head.rpn.cls_pred."),
    (r"^rpn\.head\.bbox_pred\.", "head.rpn.box_pred."),
    (r"^roi_heads\.box_head\.fc6\.", "head.box_head.body.fc1."),
    (r"^roi_heads\.box_head\.fc7\.", "head.box_head.body.fc2."),
    (r"^roi_heads\.box_predictor\.cls_score\.", "head.box_head.cls_pred."),
    (r"^roi_heads\.box_predictor\.bbox_pred\.", "head.box_head.box_pred."),
    (r"^roi_heads\.mask_head\.(\d)\.0\.", r"head.mask_head.convs.\1."),
    (r"^roi_heads\.mask_predictor\.conv5_mask\.", "head.mask_head.deconv."),
    (r"^roi_heads\.mask_predictor\.mask_fcn_logits\.", "head.mask_head.pred."),
    # before torchvision 0.14
    (r"^rpn\.head\.conv\.(?=weight|bias)", "head.rpn.conv."),
    *(
        (rf"^roi_heads\.mask_head\.mask_fcn{i + 1}\.", f"head.mask_head.convs.{i}.")
        for i in range(4)
    ),
)


def _recognise(contents: Contents) -> tuple[Reason, ...]:
    if _MARK not in contents.state:
        return ()
    return (Reason("format torchvision_rcnn", f"'{_MARK}': names of torchvision's Faster R-CNN"),)


def _rename(state: Mapping[str, Tensor]) -> Renamed:
    return rename_keys(state, RULES)


def _settings(contents: Contents, spec: VariantSpec) -> tuple[Setting, ...]:
    why = "torchvision's Faster R-CNN is built so; neither keys nor shapes show it"
    return (
        *bn_settings(contents, spec),
        Setting("conventions.max_detections", 100, why),
        Setting("head.background", "first", why),
    )


def _class_names(contents: Contents, count: int) -> tuple[str, ...]:
    """COCO's by category id, without the background."""
    names = TORCHVISION[1:]
    return names if count == len(names) else ()


FORMAT = Format(
    name="torchvision_rcnn",
    producer="torchvision",
    conventions="torchvision",
    recognise=_recognise,
    rename=_rename,
    suits=lambda spec: spec.conventions.name == "torchvision" and isinstance(spec.head, RcnnSpec),
    settings=_settings,
    classes=_class_names,
)
