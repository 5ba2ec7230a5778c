"""Named variants, such as `retinanet_r50_sepc`, and overriding their fields by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from sepcbench.codec import coerce, fields_of
from sepcbench.errors import UsageError, unknown
from sepcbench.specs import (
    BACKBONE_TYPES,
    CONVENTIONS,
    HEAD_TYPES,
    NATIVE,
    NECK_TYPES,
    BackboneSpec,
    Conventions,
    FpnSpec,
    FreeAnchorSpec,
    FsafSpec,
    HeadSpec,
    NeckSpec,
    PafpnSpec,
    PconvSpec,
    ResNetSpec,
    RetinaSpec,
    SepcSpec,
    TinySpec,
    VariantSpec,
)

_BACKBONES: dict[str, BackboneSpec] = {
    "r18": ResNetSpec(depth=18),
    "r34": ResNetSpec(depth=34),
    "r50": ResNetSpec(depth=50),
    "r101": ResNetSpec(depth=101),
    "r152": ResNetSpec(depth=152),
    "tiny": TinySpec(),
}

# What follows the pyramid of the backbone: the fusing neck, and the tower where a neck is it.
_NECKS: dict[str, tuple[NeckSpec, ...]] = {
    "fpn": (FpnSpec(),),
    "pafpn": (PafpnSpec(),),
    "pconv": (FpnSpec(), PconvSpec()),
    "pconv_single": (FpnSpec(), PconvSpec(norm="single")),
    "pconv_independent": (FpnSpec(), PconvSpec(norm="independent")),
    "pconv_ibn": (FpnSpec(), PconvSpec(norm="integrated")),
    "pconv_gn": (FpnSpec(), PconvSpec(norm="gn")),
    "sepc_lite": (FpnSpec(), SepcSpec(deform="lite")),
    "sepc": (FpnSpec(), SepcSpec(deform="full")),
}

# The head of each detector, given the number of convs in its towers, and the backbones it is
# named with.
_HEADS: dict[str, tuple[Callable[[int], HeadSpec], tuple[str, ...]]] = {
    "retinanet": (lambda depth: RetinaSpec(depth=depth), tuple(_BACKBONES)),
    "freeanchor": (lambda depth: FreeAnchorSpec(depth=depth), ("r50", "r101", "tiny")),
    "fsaf": (lambda depth: FsafSpec(depth=depth), ("r50", "r101", "tiny")),
}

# torchvision's models, whose labels are COCO's category ids with 0 for the background
_OTHERS: tuple[VariantSpec, ...] = (
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
)

_TINY_CHANNELS = 32
_TINY_CONVENTIONS = replace(NATIVE, short_side=128, long_side=128)


def _detector(head: str, backbone: str, neck: str) -> VariantSpec:
    necks, make = _NECKS[neck], _HEADS[head][0]
    name = f"{head}_{backbone}_{neck}"
    spec = VariantSpec(name, _BACKBONES[backbone], necks, make(0 if len(necks) > 1 else 4))
    return _shrink(spec) if backbone == "tiny" else spec


def _shrink(spec: VariantSpec) -> VariantSpec:
    """The same detector in 32 channels, towers half as deep, for 128-pixel generated images."""
    necks = tuple(_shrink_neck(neck) for neck in spec.necks)
    depth = spec.head.depth // 2
    head = replace(spec.head, channels=_TINY_CHANNELS, groups=8, depth=depth)
    return replace(spec, necks=necks, head=head, num_classes=3, conventions=_TINY_CONVENTIONS)


def _shrink_neck(neck: NeckSpec) -> NeckSpec:
    small = {"channels": _TINY_CHANNELS, "groups": 8, "depth": getattr(neck, "depth", 2) // 2}
    fields = fields_of(type(neck))
    changes: dict[str, Any] = {name: value for name, value in small.items() if name in fields}
    return replace(neck, **changes)


VARIANTS: dict[str, VariantSpec] = {
    spec.name: spec
    for spec in (
        *(
            _detector(head, backbone, neck)
            for head, (_, backbones) in _HEADS.items()
            for backbone in backbones
            for neck in _NECKS
        ),
        *_OTHERS,
    )
}


def variant(name: str, overrides: dict[str, Any] | None = None) -> VariantSpec:
    """Find a named variant and override fields of it.

    Args:
        name: one of `VARIANTS`.
        overrides: field path to value; see `override`.

    Raises:
        UsageError: no such variant or field, or a value that does not fit.
    """
    if name not in VARIANTS:
        raise unknown("variant", name, VARIANTS, "see `sepcbench list variants`")
    spec = VARIANTS[name]
    for path, value in (overrides or {}).items():
        spec = override(spec, path, value)
    return spec


def override(spec: VariantSpec, path: str, value: Any) -> VariantSpec:
    """Set one field of a variant.

    Args:
        spec: the variant.
        path: a field of the variant (`num_classes`), a dotted path (`necks.1.depth`), or the
            bare name of a part's field (`norm`): looked for in the necks from the last to the
            first, then in the head, the conventions and the backbone.
        value: the value, or its text.
    """
    if path == "conventions" and isinstance(value, str):
        if value not in CONVENTIONS:
            raise unknown("conventions", value, CONVENTIONS)
        return replace(spec, conventions=conventions_for(spec, value))
    keys = path.split(".")
    if len(keys) == 1 and keys[0] not in fields_of(VariantSpec):
        keys = _find(spec, keys[0])
    return _set(spec, keys, value, path)  # type: ignore[no-any-return]


def conventions_for(spec: VariantSpec, name: str) -> Conventions:
    """The named conventions as the published code uses them for this detector.

    The image size stays the variant's. The released FSAF baseline was tested on images padded to
    a multiple of 384, every FSAF with a PConv or SEPC tower to 32.

    Args:
        spec: the variant.
        name: one of `CONVENTIONS`.
    """
    old = spec.conventions
    named = replace(CONVENTIONS[name], short_side=old.short_side, long_side=old.long_side)
    if name == "mmdet1" and isinstance(spec.head, FsafSpec) and spec.head.depth > 0:
        return replace(named, pad_divisor=384)
    return named


def _find(spec: VariantSpec, name: str) -> list[str]:
    places = [["necks", str(i)] for i in reversed(range(len(spec.necks)))]
    places += [["head"], ["conventions"], ["backbone"]]
    known: list[str] = list(fields_of(VariantSpec))
    for place in places:
        fields = fields_of(type(_get(spec, place)))
        if name in fields:
            return [*place, name]
        known += [".".join([*place, key]) for key in fields] + list(fields)
    raise unknown("field", name, known, f"see `sepcbench show {spec.name}`")


def _get(node: Any, keys: list[str]) -> Any:
    for key in keys:
        node = node[int(key)] if isinstance(node, tuple) else getattr(node, key)
    return node


def _set(node: Any, keys: list[str], value: Any, path: str) -> Any:
    """Rebuild a frozen tree with one leaf changed."""
    key, rest = keys[0], keys[1:]
    if isinstance(node, tuple):
        if not key.isdigit() or int(key) >= len(node):
            raise UsageError(f"field '{path}': there is no item '{key}', only 0 to {len(node) - 1}")
        items = list(node)
        items[int(key)] = _set(items[int(key)], rest, value, path) if rest else value
        return tuple(items)
    if not dataclasses.is_dataclass(node):
        raise UsageError(f"field '{path}': '{key}' is inside a plain value")
    hints = fields_of(type(node))
    if key not in hints:
        raise unknown("field", path, [".".join([*path.split(".")[: -len(keys)], k]) for k in hints])
    new = (
        _set(getattr(node, key), rest, value, path)
        if rest
        else coerce(value, hints[key], f"field '{path}'")
    )
    return replace(node, **{key: new})  # type: ignore[type-var]


def spec_types() -> dict[str, dict[str, type]]:
    """The spec types by kind of part, for tables and tests."""
    return {"backbone": BACKBONE_TYPES, "neck": NECK_TYPES, "head": HEAD_TYPES}
