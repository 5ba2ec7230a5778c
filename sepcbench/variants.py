"""Named variants, such as `retinanet_r50_sepc`: DETECTOR_BACKBONE_NECK, any of each.

The three tables below say what the words stand for. `VARIANTS` finds any combination that makes
sense by its name and lists the ones of the papers and of the tests.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from sepcbench.named_backbones import NAMED_BACKBONES, TIMM, named_backbone
from sepcbench.overriding import field_path, override
from sepcbench.shrinking import shrink
from sepcbench.specs import (
    BACKBONE_TYPES,
    CONVENTIONS,
    HEAD_TYPES,
    NATIVE,
    NECK_TYPES,
    AtssSpec,
    BackboneSpec,
    BfpSpec,
    BifpnSpec,
    FcosSpec,
    FpnSpec,
    FreeAnchorSpec,
    FsafSpec,
    HeadSpec,
    HrfpnSpec,
    MaskSpec,
    NasFpnSpec,
    NeckSpec,
    PafpnSpec,
    PconvSpec,
    RcnnSpec,
    RepPointsSpec,
    ResNetSpec,
    RetinaSpec,
    RpnSpec,
    SepcSpec,
    SingleLevelSpec,
    TinySpec,
    TowerSpec,
    VariantSpec,
)
from sepcbench.variant_names import unknown_variant


@dataclass(frozen=True)
class _Neck:
    """The necks of a detector with the levels and extra levels of `fpn`; what its head becomes."""

    necks: Callable[[FpnSpec], tuple[NeckSpec, ...]]
    head: Callable[[Any], HeadSpec] = lambda head: head
    backbone: Callable[[BackboneSpec], BackboneSpec] = lambda backbone: backbone


def _pafpn(fpn: FpnSpec) -> tuple[NeckSpec, ...]:
    levels = {"first_level": fpn.first_level, "last_level": fpn.last_level}
    return (PafpnSpec(extra=fpn.extra, relu_between=fpn.relu_between, **levels),)


def _hrfpn(fpn: FpnSpec) -> tuple[NeckSpec, ...]:
    return (HrfpnSpec(first_level=fpn.first_level, last_level=fpn.last_level),)


def _tower(neck: NeckSpec) -> _Neck:
    """A neck that stands in for the towers of the head."""
    return _Neck(lambda fpn: (fpn, neck), lambda head: replace(head, depth=0))


def _deformed(head: TowerSpec) -> TowerSpec:
    return replace(head, deform=True)


_FUSIONS: dict[str, _Neck] = {
    "fpn": _Neck(lambda fpn: (fpn,)),
    "pafpn": _Neck(_pafpn),
    "bfp": _Neck(lambda fpn: (fpn, BfpSpec(refine_level=4 - fpn.first_level))),
    "hrfpn": _Neck(_hrfpn),
}
_ONE_STAGE: dict[str, _Neck] = {
    **_FUSIONS,
    "nas_fpn": _Neck(lambda fpn: (NasFpnSpec(),)),
    "bifpn": _Neck(lambda fpn: (BifpnSpec(),)),
    "dcn_head": _Neck(lambda fpn: (fpn,), _deformed),  # type: ignore[arg-type]
    "pconv": _tower(PconvSpec()),
    "pconv_single": _tower(PconvSpec(norm="single")),
    "pconv_independent": _tower(PconvSpec(norm="independent")),
    "pconv_ibn": _tower(PconvSpec(norm="integrated")),
    "pconv_gn": _tower(PconvSpec(norm="gn")),
    "sepc_lite": _tower(SepcSpec(deform="lite")),
    "sepc": _tower(SepcSpec(deform="full")),
}


def _with_rpn(**changes: Any) -> Callable[[Any], Any]:
    """The same head with other fields of its RPN."""

    def changed(head: RpnSpec | RcnnSpec) -> RpnSpec | RcnnSpec:
        if isinstance(head, RpnSpec):
            return replace(head, **changes)
        return head if head.rpn is None else replace(head, rpn=replace(head.rpn, **changes))

    return changed


def _on_c4(head: RpnSpec | RcnnSpec) -> RpnSpec | RcnnSpec:
    """Anchors of 32 to 512 pixels on stride 16; the box head is the ResNet stage that is left."""
    head = _with_rpn(channels=512, scales=(2.0, 4.0, 8.0, 16.0, 32.0))(head)
    return head if isinstance(head, RpnSpec) else replace(head, box_head="conv5", pool_size=14)


# The ablations of the FPN paper's Tables 1 to 3, and what goes after an FPN
_TWO_STAGE: dict[str, _Neck] = {
    **_FUSIONS,
    "pconv": _Neck(lambda fpn: (fpn, PconvSpec(branches="none"))),
    "pconv_ibn": _Neck(lambda fpn: (fpn, PconvSpec(branches="none", norm="integrated"))),
    "c4": _Neck(lambda fpn: (SingleLevelSpec(4),), _on_c4, lambda body: body.without_c5()),
    "c5": _Neck(
        lambda fpn: (SingleLevelSpec(5),),
        _with_rpn(channels=512, scales=(1.0, 2.0, 4.0, 8.0, 16.0)),
    ),
    "bottom_up": _Neck(lambda fpn: (replace(fpn, top_down=False),)),
    "top_down": _Neck(lambda fpn: (replace(fpn, lateral=False),)),
    "finest": _Neck(
        lambda fpn: (replace(fpn, finest_only=True),),
        _with_rpn(scales=(8.0, 16.0, 32.0, 64.0, 128.0)),
    ),
}


@dataclass(frozen=True)
class _Detector:
    """A detector without backbone and neck: its head, the FPN it is published with, its necks.

    `listed` are the backbones that `VARIANTS` lists with all necks.
    """

    head: HeadSpec
    fpn: FpnSpec
    necks: Mapping[str, _Neck]
    listed: tuple[str, ...] = ("r50", "tiny")
    nms_iou: float = 0.5


_P2_TO_P6 = FpnSpec(first_level=2, last_level=6, extra="pool")
_RESNETS = ("r18", "r34", "r50", "r101", "r152", "tiny")

DETECTORS: dict[str, _Detector] = {
    "retinanet": _Detector(RetinaSpec(), FpnSpec(), _ONE_STAGE, _RESNETS),
    "freeanchor": _Detector(FreeAnchorSpec(), FpnSpec(), _ONE_STAGE, ("r50", "r101", "tiny")),
    "fsaf": _Detector(FsafSpec(), FpnSpec(), _ONE_STAGE, ("r50", "r101", "tiny")),
    "fcos": _Detector(FcosSpec(), FpnSpec(extra="conv_p5", relu_between=True), _ONE_STAGE),
    "atss": _Detector(AtssSpec(), FpnSpec(extra="conv_p5"), _ONE_STAGE, nms_iou=0.6),
    "reppoints": _Detector(RepPointsSpec(), FpnSpec(conv_norm="gn"), _ONE_STAGE),
    "rpn": _Detector(RpnSpec(), _P2_TO_P6, _TWO_STAGE),
    "fast_rcnn": _Detector(RcnnSpec(rpn=None), _P2_TO_P6, _TWO_STAGE),
    "faster_rcnn": _Detector(RcnnSpec(), _P2_TO_P6, _TWO_STAGE),
    "mask_rcnn": _Detector(RcnnSpec(mask=MaskSpec()), _P2_TO_P6, _TWO_STAGE),
}

# torchvision's models; labels of one stage are COCO's category ids with 0 for the background
_OTHERS: dict[str, VariantSpec] = {
    spec.name: spec
    for spec in (
        VariantSpec(
            "torchvision_retinanet_r50",
            ResNetSpec(bn_eps=0.0),
            (FpnSpec(extra="conv_p5", relu_between=True),),
            RetinaSpec(smooth_l1_beta=0.0),
            num_classes=91,
            conventions=CONVENTIONS["torchvision"],
        ),
        VariantSpec(
            "torchvision_retinanet_r50_v2",
            ResNetSpec(bn="train"),
            (FpnSpec(extra="conv_c5", relu_between=True),),
            RetinaSpec(norm="gn", tower_bias=False, smooth_l1_beta=0.0),
            num_classes=91,
            conventions=CONVENTIONS["torchvision"],
        ),
        VariantSpec(
            "torchvision_fcos_r50",
            ResNetSpec(),
            (FpnSpec(extra="conv_p5", relu_between=True),),
            FcosSpec(
                tower_bias=True,
                centerness_on="box",
                normalise_boxes=True,
                level_scales=False,
                centre_radius=1.5,
                box_loss="giou",
            ),
            num_classes=91,
            conventions=replace(
                CONVENTIONS["torchvision"], score_threshold=0.2, nms_iou=0.6, max_detections=100
            ),
        ),
        *(
            VariantSpec(
                name,
                ResNetSpec(bn_eps=0.0),
                (_P2_TO_P6,),
                RcnnSpec(
                    RpnSpec(train_proposals=2000),
                    smooth_l1_beta=1 / 9,
                    mask=mask,
                    background="first",
                ),
                # its labels leave out the background: 0 is category 1
                num_classes=90,
                conventions=replace(CONVENTIONS["torchvision"], max_detections=100),
            )
            for name, mask in (
                ("torchvision_faster_rcnn_r50", None),
                ("torchvision_mask_rcnn_r50", MaskSpec()),
            )
        ),
    )
}


class _Variants(Mapping[str, VariantSpec]):
    """Every variant by its name, made when it is asked for; goes through the listed ones."""

    def __getitem__(self, name: str) -> VariantSpec:
        if name in _OTHERS:
            return _OTHERS[name]
        parts = parts_of(name)
        if parts is None:
            raise KeyError(name)
        return _compose(*parts)

    def __iter__(self) -> Iterator[str]:
        return iter(_listed())

    def __len__(self) -> int:
        return len(_listed())

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and (name in _OTHERS or parts_of(name) is not None)


VARIANTS: Mapping[str, VariantSpec] = _Variants()


@cache
def _listed() -> tuple[str, ...]:
    names = [
        f"{detector}_{backbone}_{neck}"
        for detector, made in DETECTORS.items()
        for backbone in made.listed
        for neck in made.necks
    ]
    others = [f"{d}_{b}_fpn" for d in ("retinanet", "faster_rcnn") for b in NAMED_BACKBONES]
    rivals = [f"{d}_hrnet_w32_hrfpn" for d in ("freeanchor", "faster_rcnn")]
    return tuple(dict.fromkeys([*names, *others, *rivals, *_OTHERS]))


def parts_of(name: str) -> tuple[str, str, str] | None:
    """The detector, backbone and neck that a name is put together from; None for other names."""
    for detector, made in DETECTORS.items():
        # the longest first: `x_nas_fpn` of timm is `x` with `nas_fpn`, not `x_nas` with `fpn`
        for neck in sorted(made.necks, key=len, reverse=True):
            backbone = name.removeprefix(f"{detector}_").removesuffix(f"_{neck}")
            known = backbone in NAMED_BACKBONES or backbone.startswith(TIMM)
            if known and name == f"{detector}_{backbone}_{neck}":
                return detector, backbone, neck
    return None


@cache
def _compose(detector: str, backbone: str, neck: str) -> VariantSpec:
    made = DETECTORS[detector]
    system = made.necks[neck]
    body = named_backbone(backbone)
    spec = VariantSpec(
        f"{detector}_{backbone}_{neck}",
        system.backbone(body),
        system.necks(made.fpn),
        system.head(made.head),
        conventions=replace(NATIVE, nms_iou=made.nms_iou),
    )
    return shrink(spec) if isinstance(body, TinySpec) else spec


def variant(name: str, overrides: dict[str, Any] | None = None) -> VariantSpec:
    """Find a named variant and override fields of it.

    Args:
        name: one of `VARIANTS`.
        overrides: field path to value; see `override`.

    Raises:
        UsageError: no such variant or field, or a value that does not fit.
    """
    if name not in VARIANTS:
        necks = {detector: made.necks for detector, made in DETECTORS.items()}
        raise unknown_variant(name, necks, VARIANTS)
    spec = VARIANTS[name]
    for path, value in (overrides or {}).items():
        spec = override(spec, path, value)
    return spec


def variant_twin(name: str, overrides: dict[str, Any] | None = None) -> VariantSpec:
    """The small twin of a variant (`sepcbench.shrinking`).

    Overrides of necks and head are made on the twin as they are: they are what tells rows of a
    suite apart. Those of backbone, classes and conventions count only for the large one.

    Args:
        name: one of `VARIANTS`.
        overrides: field path to value; see `override`.

    Raises:
        UsageError: no such variant or field, or a value that does not fit.
    """
    large = variant(name, overrides)
    spec = shrink(large)
    for path, value in (overrides or {}).items():
        if field_path(large, path)[0] in ("necks", "head"):
            spec = override(spec, path, value)
    return spec


def spec_types() -> dict[str, dict[str, type]]:
    """The spec types by kind of part, for tables and tests."""
    return {"backbone": BACKBONE_TYPES, "neck": NECK_TYPES, "head": HEAD_TYPES}
