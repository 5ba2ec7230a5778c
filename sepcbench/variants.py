"""Named variants, such as `retinanet_r50_sepc`, and overriding their fields by name."""

from __future__ import annotations

import dataclasses
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
    FpnSpec,
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

_TINY_CHANNELS = 32
_TINY_CONVENTIONS = replace(NATIVE, short_side=128, long_side=128)


def _retinanet(backbone: str, neck: str) -> VariantSpec:
    necks = _NECKS[neck]
    head = RetinaSpec(depth=0 if len(necks) > 1 else 4)
    spec = VariantSpec(f"retinanet_{backbone}_{neck}", _BACKBONES[backbone], necks, head)
    return _shrink(spec) if backbone == "tiny" else spec


def _shrink(spec: VariantSpec) -> VariantSpec:
    """The same detector in 32 channels, for 128-pixel images of the generated set."""
    necks = tuple(_shrink_neck(neck) for neck in spec.necks)
    head = replace(spec.head, channels=_TINY_CHANNELS, groups=8)
    return replace(spec, necks=necks, head=head, num_classes=3, conventions=_TINY_CONVENTIONS)


def _shrink_neck(neck: NeckSpec) -> NeckSpec:
    changes: dict[str, Any] = {"channels": _TINY_CHANNELS}
    if "groups" in fields_of(type(neck)):
        changes["groups"] = 8
    return replace(neck, **changes)


VARIANTS: dict[str, VariantSpec] = {
    spec.name: spec
    for spec in (_retinanet(backbone, neck) for backbone in _BACKBONES for neck in _NECKS)
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
        named = CONVENTIONS[value]
        old = spec.conventions
        named = replace(named, short_side=old.short_side, long_side=old.long_side)
        return replace(spec, conventions=named)
    keys = path.split(".")
    if len(keys) == 1 and keys[0] not in fields_of(VariantSpec):
        keys = _find(spec, keys[0])
    return _set(spec, keys, value, path)  # type: ignore[no-any-return]


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
