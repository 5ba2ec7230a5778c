"""Checkpoints of torchvision's `retinanet_resnet50_fpn` and `retinanet_resnet50_fpn_v2`."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from sepcbench.checkpoints.class_names import TORCHVISION
from sepcbench.checkpoints.contents import Contents
from sepcbench.checkpoints.format import Format, Reason, Renamed, Rules, Setting, rename_keys
from sepcbench.specs import ResNetSpec, RetinaSpec, VariantSpec

BODY: Rules = (
    (r"^backbone\.body\.((?:conv1|bn1|layer[1-4])\.)", r"backbone.\1"),
    (r"^backbone\.fpn\.inner_blocks\.(\d+)\.0\.", r"necks.0.laterals.\1.conv."),
    (r"^backbone\.fpn\.layer_blocks\.(\d+)\.0\.", r"necks.0.outputs.\1.conv."),
    # before torchvision 0.13
    (r"^backbone\.fpn\.inner_blocks\.(\d+)\.(?=weight|bias)", r"necks.0.laterals.\1.conv."),
    (r"^backbone\.fpn\.layer_blocks\.(\d+)\.(?=weight|bias)", r"necks.0.outputs.\1.conv."),
    (r"^backbone\.fpn\.extra_blocks\.p6\.", "necks.0.extras.convs.0.conv."),
    (r"^backbone\.fpn\.extra_blocks\.p7\.", "necks.0.extras.convs.1.conv."),
)
"""Of ResNet and FPN, the same in all of torchvision's detectors."""

RULES: Rules = (
    *BODY,
    *(
        rule
        for published, ours in (("classification", "cls"), ("regression", "box"))
        for rule in (
            (rf"^head\.{published}_head\.conv\.(\d+)\.0\.", rf"head.{ours}_tower.\1.conv."),
            (rf"^head\.{published}_head\.conv\.(\d+)\.1\.", rf"head.{ours}_tower.\1.norm."),
        )
    ),
    (r"^head\.classification_head\.cls_logits\.", "head.cls_pred."),
    (r"^head\.regression_head\.bbox_reg\.", "head.box_pred."),
)
OTHERS = {"head.regression_head.bbox_ctrness.weight", "rpn.head.cls_logits.weight"}
"""Keys of torchvision's detectors that are no RetinaNets and share names with them."""
_OLD_TOWER = "head.classification_head.conv.0.weight"


def _recognise(contents: Contents) -> tuple[Reason, ...]:
    marks = ("backbone.body.conv1.weight", "head.classification_head.cls_logits.weight")
    if not any(mark in contents.state for mark in marks) or OTHERS.intersection(contents.state):
        return ()
    key = next(mark for mark in marks if mark in contents.state)
    return (Reason("format torchvision", f"'{key}': names of torchvision's RetinaNet"),)


def _rename(state: Mapping[str, Tensor]) -> Renamed:
    if _OLD_TOWER not in state:
        return rename_keys(state, RULES)
    # before torchvision 0.13 the towers were conv, ReLU, conv, ReLU, ... in one sequence
    old = tuple(
        (rf"^head\.{published}_head\.conv\.{2 * i}\.", f"head.{ours}_tower.{i}.conv.")
        for published, ours in (("classification", "cls"), ("regression", "box"))
        for i in range(4)
    )
    return rename_keys(state, (*old, *RULES))


def bn_settings(contents: Contents, spec: VariantSpec) -> tuple[Setting, ...]:
    """Frozen BN has no counter of batches, and torchvision's published weights need eps 0."""
    if not isinstance(spec.backbone, ResNetSpec):
        return ()
    counted = any(k.startswith("backbone.") and k.endswith("num_batches_tracked")
                  for k in contents.state)  # fmt: skip
    if counted:
        why = "the backbone has num_batches_tracked: ordinary BN, as torchvision builds it"
        return (Setting("backbone.bn_eps", 1e-5, why),)
    why = (
        "the backbone has no num_batches_tracked: frozen BN, whose eps torchvision sets to 0 for "
        "its published weights"
    )
    return (Setting("backbone.bn_eps", 0.0, why),)


def class_names(contents: Contents, count: int) -> tuple[str, ...]:
    """COCO's by category id, if there are as many."""
    return TORCHVISION if count == len(TORCHVISION) else ()


FORMAT = Format(
    name="torchvision",
    producer="torchvision",
    conventions="torchvision",
    recognise=_recognise,
    rename=_rename,
    suits=lambda spec: spec.conventions.name == "torchvision" and isinstance(spec.head, RetinaSpec),
    settings=bn_settings,
    classes=class_names,
)
