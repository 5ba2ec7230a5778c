"""Backbones by the short names that variants and overrides use."""

from __future__ import annotations

from sepcbench.errors import unknown
from sepcbench.specs import BackboneSpec, ResNetSpec, TimmSpec, TinySpec

NAMED_BACKBONES: dict[str, BackboneSpec] = {
    "r18": ResNetSpec(depth=18),
    "r34": ResNetSpec(depth=34),
    "r50": ResNetSpec(depth=50),
    "r101": ResNetSpec(depth=101),
    "r152": ResNetSpec(depth=152),
    "tiny": TinySpec(),
    "r50_dcn": ResNetSpec(depth=50, deform="v1"),
    "r50_dcnv2": ResNetSpec(depth=50, deform="v2"),
    "r101_dcn": ResNetSpec(depth=101, deform="v1"),
    "x101_64x4d": ResNetSpec(depth=101, groups=64, group_width=4),
    "x101_64x4d_dcn": ResNetSpec(depth=101, groups=64, group_width=4, deform="v1"),
    "hrnet_w18": TimmSpec("hrnet_w18"),
    "hrnet_w32": TimmSpec("hrnet_w32"),
}
TIMM = "timm:"  # and any backbone of timm behind this, such as timm:convnext_tiny


def named_backbone(name: str) -> BackboneSpec:
    """Find a backbone by its short name, or of timm.

    Raises:
        UsageError: no such name.
    """
    if name.startswith(TIMM):
        return TimmSpec(name.removeprefix(TIMM))
    if name not in NAMED_BACKBONES:
        raise unknown("backbone", name, NAMED_BACKBONES, f"or {TIMM}NAME for any of timm's")
    return NAMED_BACKBONES[name]
