"""Named variants and overriding their fields."""

import pytest

from sepcbench.errors import UsageError
from sepcbench.specs import BACKBONE_TYPES, HEAD_TYPES, NECK_TYPES, PconvSpec
from sepcbench.variants import VARIANTS, conventions_for, spec_types, variant

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


def test_names_are_the_specs_names():
    assert all(name == spec.name for name, spec in VARIANTS.items())


def test_a_tower_in_the_neck_leaves_the_head_without_convs():
    for spec in VARIANTS.values():
        full = 2 if spec.backbone.TYPE == "tiny" else 4
        assert spec.head.depth == (0 if len(spec.necks) > 1 else full)


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


def test_spec_types_are_the_tables():
    assert spec_types() == {"backbone": BACKBONE_TYPES, "neck": NECK_TYPES, "head": HEAD_TYPES}
    assert NECK_TYPES["pconv"] is PconvSpec
