"""Published parameter names of mmdetection and ours."""

from __future__ import annotations

import pytest

from sepcbench.checkpoints.mmdet import UNIVERSENET, rename, rename_detector
from sepcbench.errors import CheckpointError


@pytest.mark.parametrize(
    ("published", "ours"),
    [
        ("backbone.layer1.0.downsample.1.bias", "backbone.layer1.0.downsample.1.bias"),
        ("neck.1.Pconvs.3.Pconv.0.weight", "necks.1.blocks.3.conv.up.weight"),
        ("neck.1.Pconvs.3.Pconv.1.bias", "necks.1.blocks.3.conv.same.bias"),
        (
            "neck.1.Pconvs.0.Pconv.2.conv_offset.weight",
            "necks.1.blocks.0.conv.down.offset.weight",
        ),
        ("neck.1.lconv.conv_offset.bias", "necks.1.loc.conv.offset.bias"),
        ("neck.1.cbn.running_mean", "necks.1.cls.norm.running_mean"),
        ("neck.downsample_convs.1.conv.weight", "necks.0.downs.1.conv.weight"),
        ("bbox_head.reg_convs.2.conv.weight", "head.box_tower.2.conv.weight"),
        ("bbox_head.cls_convs.2.gn.bias", "head.cls_tower.2.norm.bias"),
        ("bbox_head.retina_cls.bias", "head.cls_pred.bias"),
        ("bbox_head.fcos_reg.bias", "head.box_pred.bias"),
        ("bbox_head.conv_centerness.weight", "head.centerness_pred.weight"),
        ("bbox_head.atss_cls.weight", "head.cls_pred.weight"),
        ("bbox_head.scales.3.scale", "head.scales.3"),
    ],
)
def test_names(published: str, ours: str) -> None:
    renamed = rename({published: 1})
    assert renamed.state == {ours: 1}
    assert renamed.published == {ours: published}
    assert renamed.left_over == ()


def test_universenet_calls_the_sepc_neck_otherwise() -> None:
    renamed = UNIVERSENET.rename(
        {"neck.1.pconvs.0.pconv.2.weight": 1, "neck.1.bn_loc.bias": 2, "neck.1.lbn.bias": 3}
    )
    assert renamed.state == {"necks.1.blocks.0.conv.down.weight": 1, "necks.1.loc.norm.bias": 2}
    assert renamed.left_over == ("neck.1.lbn.bias",)


def test_convs_past_the_laterals_are_the_extra_levels() -> None:
    state = {f"neck.{part}.{i}.conv.bias": i for part, n in (("lateral_convs", 3), ("fpn_convs", 5))
             for i in range(n)}  # fmt: skip
    renamed = rename(state)
    assert set(renamed.state) == {
        *(f"necks.0.laterals.{i}.conv.bias" for i in range(3)),
        *(f"necks.0.outputs.{i}.conv.bias" for i in range(3)),
        *(f"necks.0.extras.convs.{i}.conv.bias" for i in range(2)),
    }
    assert renamed.published["necks.0.extras.convs.1.conv.bias"] == "neck.fpn_convs.4.conv.bias"


def test_one_neck_has_no_number_and_several_have() -> None:
    one = rename_detector({"neck.lateral_convs.0.conv.bias": 2})
    two = rename_detector({"neck.0.lateral_convs.0.conv.bias": 2, "neck.1.cconv.bias": 3})
    assert one == {"necks.0.laterals.0.conv.bias": 2}
    assert two == {**one, "necks.1.cls.conv.bias": 3}


def test_unknown_names_are_named() -> None:
    assert rename({"backbone.fc.weight": 0}).left_over == ("backbone.fc.weight",)
    with pytest.raises(CheckpointError, match=r"'backbone.fc.weight' has no place here"):
        rename_detector({"backbone.fc.weight": 0})
