"""Named variants and overriding their fields."""

from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace

import pytest

from sepcbench.errors import UsageError
from sepcbench.named_backbones import NAMED_BACKBONES
from sepcbench.overriding import conventions_for
from sepcbench.shrinking import shrink
from sepcbench.specs import (
    BACKBONE_TYPES,
    HEAD_TYPES,
    NECK_TYPES,
    PconvSpec,
    ResNetSpec,
    TimmSpec,
    TowerSpec,
)
from sepcbench.variants import DETECTORS, VARIANTS, parts_of, spec_types, variant, variant_twin

NECKS = ("fpn", "pafpn", "pconv", "pconv_ibn", "sepc_lite", "sepc")
NORMS = ("pconv_single", "pconv_independent", "pconv_gn")


def test_the_promised_names_exist():
    for backbone in ("r18", "r50", "tiny"):
        for neck in NECKS:
            assert f"retinanet_{backbone}_{neck}" in VARIANTS
    for norm in NORMS:
        assert f"retinanet_r50_{norm}" in VARIANTS
    for head in ("freeanchor", "fsaf"):
        for backbone in ("r50", "r101", "tiny"):
            assert all(f"{head}_{backbone}_{neck}" in VARIANTS for neck in NECKS + NORMS)
    for head in ("fcos", "atss", "reppoints"):
        assert all(f"{head}_r50_{neck}" in VARIANTS for neck in (*NECKS, "dcn_head"))
    for rival in ("nas_fpn", "hrfpn", "bfp", "bifpn"):
        assert f"freeanchor_r50_{rival}" in VARIANTS
    for head in ("rpn", "fast_rcnn", "faster_rcnn", "mask_rcnn"):
        assert all(f"{head}_tiny_{neck}" in VARIANTS for neck in ("fpn", "c4", "finest", "pconv"))


def test_names_are_the_specs_names():
    assert all(name == spec.name for name, spec in VARIANTS.items())


def test_a_tower_in_the_neck_leaves_the_head_without_convs():
    for name, spec in VARIANTS.items():
        if isinstance(spec.head, TowerSpec):
            assert (spec.head.depth == 0) == spec.necks[-1].tower, name


def test_any_detector_backbone_and_neck_make_a_name():
    """Also combinations that are not listed."""
    assert "fcos_r152_sepc" not in list(VARIANTS)
    spec = VARIANTS["fcos_r152_sepc"]
    assert (spec.name, spec.backbone.depth, spec.head.depth) == ("fcos_r152_sepc", 152, 0)
    assert VARIANTS["fcos_timm:convnext_tiny_fpn"].backbone == TimmSpec("convnext_tiny")
    for name in ("fcos_r50", "r50_fpn", "fcos_r50_c4", "fcos_sepc", "fcos__sepc", ""):
        assert name not in VARIANTS


def test_every_combination_has_one_reading():
    combined = [
        (detector, backbone, neck)
        for detector, made in DETECTORS.items()
        for backbone in (*NAMED_BACKBONES, "timm:x", "timm:hrnet_w18")
        for neck in made.necks
    ]
    assert len({"_".join(parts) for parts in combined}) == len(combined)
    for parts in combined:
        assert parts_of("_".join(parts)) == parts


def test_a_c4_baseline_has_no_c5_and_needs_a_resnet():
    spec = VARIANTS["faster_rcnn_r50_c4"]
    assert (spec.backbone.last_stage, spec.levels, spec.head.box_head) == (4, (4,), "conv5")
    with pytest.raises(UsageError, match="C4 baseline needs a ResNet: backbone 'timm hrnet_w18'"):
        variant("faster_rcnn_hrnet_w18_c4")
    with pytest.raises(UsageError, match="C4 baseline"):
        variant("rpn_r50_c4", {"backbone": "timm:x"})


@pytest.mark.parametrize("backbone", NAMED_BACKBONES)
@pytest.mark.parametrize("detector", ["fast_rcnn", "faster_rcnn", "mask_rcnn"])
def test_a_conv5_head_is_of_plain_bottlenecks_only(detector, backbone):
    name = f"{detector}_{backbone}_c4"
    if backbone in ("r50", "r101", "r152", "tiny"):
        assert variant(name).levels == (4,)
        assert variant(f"{detector}_r50_c4", {"backbone": backbone}).backbone.last_stage == 4
        return
    for given in ((name, {}), (f"{detector}_r50_c4", {"backbone": backbone})):
        with pytest.raises(UsageError) as caught:
            variant(*given)
        assert "\n" not in str(caught.value)
        assert "r50, r101, r152 or tiny" in str(caught.value)


@pytest.mark.parametrize(
    "field",
    [
        {"bn": "train"},
        {"bn_eps": 0.0},
        {"stride_in": "1x1"},
        {"deform": "v1"},
        {"frozen_stages": 4},
    ],
)
def test_a_conv5_head_does_not_follow_options_of_the_backbone(field):
    """Its stage would be another than the backbone's: refused, not built."""
    (name, value), *_ = field.items()
    with pytest.raises(UsageError, match="plain ResNet"):
        variant("faster_rcnn_r50_c4", {f"backbone.{name}": value})
    assert not ResNetSpec(**field).plain_last_stage


def test_an_rpn_alone_reads_c4_of_any_resnet():
    spec = variant("rpn_x101_64x4d_c4")
    assert (spec.levels, spec.backbone.groups, spec.backbone.last_stage) == ((4,), 64, 4)


def test_ablations_of_the_fpn_paper():
    """Anchors of 32 to 512 pixels on every one of them (arXiv 1612.03144, tables 1 to 3)."""
    for neck in ("fpn", "c4", "c5", "bottom_up", "top_down", "finest"):
        spec = VARIANTS[f"rpn_r50_{neck}"]
        sizes = {scale * stride for scale in spec.head.scales for stride in spec.strides}
        assert {32, 64, 128, 256, 512} == sizes, neck
    assert VARIANTS["rpn_r50_finest"].levels == (2,)
    assert VARIANTS["rpn_r50_fpn"].levels == (2, 3, 4, 5, 6)


def test_a_backbone_can_be_set_by_name():
    assert variant("fcos_r50_fpn", {"backbone": "r101"}).backbone.depth == 101
    assert variant("fcos_r50_fpn", {"backbone": "timm:convnext_tiny"}).backbone.TYPE == "timm"
    with pytest.raises(UsageError, match="did you mean 'r101'"):
        variant("fcos_r50_fpn", {"backbone": "r1O1"})


def test_twins_are_tiny_and_keep_what_tells_rows_apart():
    twin = variant_twin("retinanet_r50_pconv", {"necks.1.depth": 6, "norm": "gn"})
    assert twin.backbone.TYPE == "tiny"
    assert (twin.necks[1].depth, twin.necks[1].norm, twin.necks[1].channels) == (6, "gn", 32)
    assert variant_twin("retinanet_r50_pconv").necks[1].depth == 2
    assert variant_twin("freeanchor_x101_64x4d_dcn_sepc").backbone.deform == "v1"
    assert variant_twin("faster_rcnn_r50_c4").backbone.last_stage == 4
    assert variant_twin("fcos_r50_fpn", {"backbone": "r101"}).backbone.TYPE == "tiny"


def test_shrinking_what_is_small_again_changes_no_sizes():
    """The named tiny variants are the twins of the large ones."""
    for name in ("retinanet_tiny_sepc", "fcos_tiny_fpn", "mask_rcnn_tiny_fpn"):
        twin = variant_twin(name.replace("_tiny_", "_r50_"))
        assert replace(twin, name=name) == VARIANTS[name]


@pytest.mark.parametrize("neck", ["pconv", "sepc"])
def test_a_twin_of_one_pconv_has_one(neck):
    assert variant_twin(f"retinanet_r50_{neck}", {"depth": 1}).necks[1].depth == 1
    assert variant_twin(f"retinanet_r50_{neck}", {"necks.1.depth": 1}).necks[1].depth == 1


@pytest.mark.parametrize(("depth", "small"), [(0, 0), (1, 1), (2, 1), (3, 1), (4, 2), (6, 3)])
def test_towers_are_halved_but_do_not_vanish(depth, small):
    large = VARIANTS["retinanet_r50_fpn"]
    assert shrink(replace(large, head=replace(large.head, depth=depth))).head.depth == small


def test_a_twin_of_few_samples_has_some():
    assert variant_twin("faster_rcnn_r50_fpn", {"head.samples": 2}).head.samples == 2


# whole numbers of 128 and more that a twin has: not widths, or the backbone's
LARGE = {
    "TinySpec.channels",
    "RcnnSpec.fc_channels",
    "RcnnSpec.samples",
    "RpnSpec.before_nms",
    "RpnSpec.proposals",
    "RpnSpec.train_before_nms",
    "RpnSpec.train_proposals",
    "Conventions.short_side",
    "Conventions.long_side",
    "Conventions.max_detections",
    "Conventions.candidates_per_level",
}


def _large(part: object, place: str = "") -> Iterator[str]:
    if is_dataclass(part):
        for field in fields(part):
            yield from _large(getattr(part, field.name), f"{type(part).__name__}.{field.name}")
    elif isinstance(part, tuple):
        for item in part:
            yield from _large(item, place)
    elif isinstance(part, int) and part >= 128:
        yield place


def test_no_width_stays_large_in_a_twin():
    """A new field of a width needs its line in `shrinking`, or else one here."""
    found = {place for name in VARIANTS for place in _large(variant_twin(name))}
    assert found == LARGE
    assert "FpnSpec.channels" in set(_large(VARIANTS["fcos_r50_fpn"]))
    assert variant_twin("faster_rcnn_r50_fpn").head.fc_channels == 128  # of 1024


def test_overrides_by_path_bare_name_and_text():
    spec = variant(
        "retinanet_r50_sepc",
        {"necks.1.depth": "6", "norm": "gn", "conventions": "mmdet1", "ratios": "0.5,1"},
    )
    assert spec.necks[1].depth == 6
    assert spec.necks[1].norm == "gn"
    assert spec.conventions.box_offset == 1
    assert spec.head.ratios == (0.5, 1.0)


def test_a_bare_name_goes_to_the_tower():
    """`norm` and `depth` mean the tower's: the last neck's, or the head's where it has it."""
    assert variant("retinanet_r50_pconv", {"depth": 3}).necks[1].depth == 3
    plain = variant("retinanet_r50_fpn", {"depth": 3, "norm": "gn"})
    assert (plain.head.depth, plain.head.norm) == (3, "gn")
    assert plain.backbone.depth == 50


def test_conventions_keep_the_variants_image_size():
    spec = variant("retinanet_tiny_fpn", {"conventions": "mmdet1"})
    assert (spec.conventions.name, spec.conventions.short_side) == ("mmdet1", 128)


@pytest.mark.parametrize(
    ("name", "divisor"),
    [("fsaf_r50_fpn", 384), ("fsaf_r50_pconv", 32), ("freeanchor_r50_fpn", 32)],
)
def test_the_released_fsaf_baseline_is_padded_further(name, divisor):
    assert conventions_for(variant(name), "mmdet1").pad_divisor == divisor
    assert variant(name, {"conventions": "mmdet1"}).conventions.pad_divisor == divisor
    assert conventions_for(variant(name), "mmdet2").pad_divisor == 32


@pytest.mark.parametrize(
    ("name", "sets", "words"),
    [
        ("retinanet_r50_sepcc", {}, "did you mean 'retinanet_r50_sepc'"),
        ("retinanet_r50_sepc", {"necks.1.dept": 3}, "did you mean 'necks.1.depth'"),
        ("retinanet_r50_sepc", {"nrom": "gn"}, "did you mean 'norm'"),
        ("retinanet_r50_sepc", {"norm": "igr"}, "unknown value 'igr'"),
        ("fsaf_r50_fpn", {"ratios": "0.5,1"}, "one anchor per cell"),
        ("fsaf_r50_fpn", {"side_unit": 0}, "side_unit is above 0"),
        ("retinanet_r50_sepc", {"necks.4.depth": 3}, "only 0 to 1"),
        ("retinanet_r50_sepc", {"depth": "x"}, "expected int"),
        ("retinanet_r50_sepc", {"depth": 0}, "at least 1"),
        ("retinanet_r50_sepc", {"conventions": "mmdet3"}, "did you mean 'mmdet"),
        ("retinanet_r50_sepc", {"name.x": 1}, "inside a plain value"),
    ],
)
def test_bad_names_and_values_are_one_line(name, sets, words):
    with pytest.raises(UsageError) as caught:
        variant(name, sets)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("retinanet_r50_sepcc", "neck of retinanet 'sepcc', the nearest is 'sepc'; did you mean"),
        ("retinanet_r51_fpn", "unknown backbone 'r51', the nearest is 'r50'; did you mean"),
        ("retinanettt_r50_fpn", "detector 'retinanettt', the nearest is 'retinanet'; did you mean"),
        ("faster_rcn_x101_64x4_nas_fpn", "unknown detector 'faster_rcn', the nearest is 'faster_"),
        ("faster_rcnn_x101_64x4_fpn", "backbone 'x101_64x4', the nearest is 'x101_64x4d'; did you"),
        ("fcos_r50_c4", "unknown neck of fcos 'c4', known: fpn, pafpn, bfp"),
        ("RetinaNet_r50_fpn", "the nearest is 'retinanet'; did you mean 'retinanet_r50_fpn'?"),
        ("fcos_timm:convnext_tiny_fnp", "did you mean 'fcos_timm:convnext_tiny_fpn'?"),
        ("retinanet_r51_sepcc", "'r51', the nearest is 'r50', unknown neck of retinanet 'sepcc'"),
        ("retinanet_xyz_fpn", "unknown backbone 'xyz', known: r18, r34"),
        ("torchvision_retinanet_r51", "did you mean 'torchvision_retinanet_r50'?"),
        ("rpn_r50", "unknown variant 'rpn_r50'; did you mean 'rpn_r50_"),
        ("some_other_thing", "unknown variant 'some_other_thing' (see"),
        ("", "unknown variant ''"),
        ("___", "unknown variant '___'"),
    ],
)
def test_an_unknown_name_says_which_part_is_unknown(name, words):
    with pytest.raises(UsageError) as caught:
        variant(name)
    assert words in str(caught.value)
    assert str(caught.value).startswith(f"unknown variant '{name}'")
    assert "\n" not in str(caught.value)


def test_what_is_meant_by_an_unknown_name_is_a_variant():
    for name in VARIANTS:
        with pytest.raises(UsageError) as caught:
            variant(f"{name}x")
        meant = str(caught.value).partition("did you mean '")[2].partition("'")[0]
        assert meant in VARIANTS, caught.value


def test_spec_types_are_the_tables():
    assert spec_types() == {"backbone": BACKBONE_TYPES, "neck": NECK_TYPES, "head": HEAD_TYPES}
    assert NECK_TYPES["pconv"] is PconvSpec
