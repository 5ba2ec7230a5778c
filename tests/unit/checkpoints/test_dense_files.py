"""mmdetection's FCOS and ATSS on disk: told apart by names, set as their configuration says."""

from __future__ import annotations

from pathlib import Path

import lookalikes
import pytest
import torch
from lookalikes import save_mmdet, shapes, weights

from sepcbench.checkpoints.loading import inspect, load
from sepcbench.specs import AtssSpec, FcosSpec

CONFIG = """
model = dict(
    neck=dict(type='FPN', add_extra_convs='on_output', relu_before_extra_convs=True),
    bbox_head=dict(type='{head}', {fields}),
    test_cfg=dict(nms_pre=1000, score_thr=0.05, nms=dict(type='nms', iou_threshold={iou})))
"""


def state(head: str) -> dict[str, torch.Tensor]:
    """FCOS differs from ATSS in names alone; `fcos` are those of 1.x, `conv` those of 2.x."""
    found = weights(shapes("keys2x/atss_r50"))
    return {key.replace(".atss_", f".{head}_"): value for key, value in found.items()}


def config(head: str, fields: str = "", iou: float = 0.5) -> dict[str, object]:
    text = CONFIG.format(head=head, fields=fields, iou=iou)
    return lookalikes.meta(mmdet_version="2.18.0", config=text)


@pytest.mark.parametrize(
    ("names", "version", "variant", "conventions"),
    [
        ("fcos", "1.2.0", "fcos_r50_fpn", "mmdet1"),
        ("conv", "2.18.0", "fcos_r50_fpn", "mmdet2"),
        ("atss", "1.2.0", "atss_r50_fpn", "mmdet1"),
        ("atss", "2.18.0", "atss_r50_fpn", "mmdet2"),
    ],
)
def test_names_tell_the_head(
    tmp_path: Path, names: str, version: str, variant: str, conventions: str
) -> None:
    about = {"mmdet_version": version}
    found = load(save_mmdet(tmp_path / "x.pth", state(names), about))
    spec = found.detector.spec
    assert (spec.name, spec.conventions.name) == (variant, conventions)
    assert spec.conventions.nms_iou == (0.6 if names == "atss" else 0.5)
    assert found.detector.head.scales[4].shape == ()


def test_a_published_fcos_keeps_its_defaults(tmp_path: Path) -> None:
    path = save_mmdet(tmp_path / "x.pth", state("conv"), config("FCOSHead"))
    spec = load(path).detector.spec
    assert spec.head == FcosSpec()
    assert spec.necks[0].relu_between


def test_improvements_come_from_the_configuration(tmp_path: Path) -> None:
    fields = (
        "centerness_on_reg=True, norm_on_bbox=True, center_sampling=True, "
        "center_sample_radius=2, loss_bbox=dict(type='GIoULoss', loss_weight=1.0)"
    )
    path = save_mmdet(tmp_path / "x.pth", state("conv"), config("FCOSHead", fields, iou=0.6))
    spec = load(path).detector.spec
    assert spec.head == FcosSpec(
        centerness_on="box", normalise_boxes=True, centre_radius=2.0, box_loss="giou"
    )
    assert spec.conventions.nms_iou == 0.6


def test_atss_has_the_anchors_of_its_configuration(tmp_path: Path) -> None:
    fields = (
        "anchor_generator=dict(type='AnchorGenerator', octave_base_scale=6, scales_per_octave=1, "
        "ratios=[1.0], strides=[8, 16, 32, 64, 128]), "
        "bbox_coder=dict(target_stds=[0.2, 0.2, 0.4, 0.4])"
    )
    path = save_mmdet(tmp_path / "x.pth", state("atss"), config("ATSSHead", fields, iou=0.6))
    spec = load(path).detector.spec
    assert spec.head == AtssSpec(base_scale=6.0, box_stds=(0.2, 0.2, 0.4, 0.4))


def test_a_head_that_asks_for_another_nms_is_refused_for_points_too(tmp_path: Path) -> None:
    about = config("FCOSHead")
    about["config"] = str(about["config"]).replace("type='nms'", "type='soft_nms'")
    found = inspect(save_mmdet(tmp_path / "x.pth", state("conv"), about))
    assert "soft_nms" in str(found.problem)
