"""Published parameter names and ours."""

from __future__ import annotations

import pytest

from sepcbench.checkpoints.mmdet import rename, rename_detector
from sepcbench.errors import CheckpointError, UsageError


@pytest.mark.parametrize(
    ("kind", "published", "ours"),
    [
        ("resnet", "layer1.0.downsample.1.running_var", "layer1.0.downsample.1.running_var"),
        ("sepc", "Pconvs.3.Pconv.0.weight", "blocks.3.conv.up.weight"),
        ("sepc", "Pconvs.3.Pconv.1.bias", "blocks.3.conv.same.bias"),
        ("sepc", "Pconvs.0.Pconv.2.conv_offset.weight", "blocks.0.conv.down.offset.weight"),
        ("sepc", "lconv.conv_offset.bias", "loc.conv.offset.bias"),
        ("sepc", "cbn.running_mean", "cls.norm.running_mean"),
        ("pafpn", "downsample_convs.1.conv.weight", "downs.1.conv.weight"),
        ("retina", "reg_convs.2.conv.weight", "box_tower.2.conv.weight"),
        ("retina", "retina_cls.bias", "cls_pred.bias"),
    ],
)
def test_names(kind: str, published: str, ours: str) -> None:
    assert rename({published: 1}, kind) == {ours: 1}


def test_convs_past_the_laterals_are_the_extra_levels() -> None:
    state = {f"{part}.{i}.conv.bias": i for part, n in (("lateral_convs", 3), ("fpn_convs", 5))
             for i in range(n)}  # fmt: skip
    assert set(rename(state, "fpn")) == {
        *(f"laterals.{i}.conv.bias" for i in range(3)),
        *(f"outputs.{i}.conv.bias" for i in range(3)),
        *(f"extras.convs.{i}.conv.bias" for i in range(2)),
    }


def test_one_neck_has_no_number_and_several_have() -> None:
    head = {"bbox_head.retina_reg.bias": 0, "backbone.bn1.weight": 1}
    one = rename_detector(head | {"neck.lateral_convs.0.conv.bias": 2}, ("fpn",))
    two = rename_detector(
        head | {"neck.0.lateral_convs.0.conv.bias": 2, "neck.1.cconv.bias": 3}, ("fpn", "sepc")
    )
    shared = {"head.box_pred.bias": 0, "backbone.bn1.weight": 1, "necks.0.laterals.0.conv.bias": 2}
    assert one == shared
    assert two == shared | {"necks.1.cls.conv.bias": 3}


def test_unknown_names_are_named() -> None:
    with pytest.raises(CheckpointError, match=r"'fc.weight' is not one of a published 'resnet'"):
        rename({"fc.weight": 0}, "resnet")
    with pytest.raises(CheckpointError, match=r"'ema.x' belongs to no part"):
        rename_detector({"ema.x": 0}, ("fpn",))
    with pytest.raises(UsageError, match="did you mean 'resnet'"):
        rename({}, "resnett")
