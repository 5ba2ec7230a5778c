"""Setting single fields of a variant by name: `--set norm=gn`, or `set` in a suite's row."""

from __future__ import annotations

import dataclasses
from dataclasses import replace
from typing import Any

from sepcbench.codec import coerce, fields_of
from sepcbench.errors import UsageError, unknown
from sepcbench.named_backbones import named_backbone
from sepcbench.specs import CONVENTIONS, Conventions, FsafSpec, VariantSpec


def override(spec: VariantSpec, path: str, value: Any) -> VariantSpec:
    """Set one field of a variant.

    Args:
        spec: the variant.
        path: a field of the variant (`num_classes`; `backbone` takes a name, and stays without C5
            on a C4 baseline), a dotted path
            (`necks.1.depth`), or the bare name of a part's field (`norm`): looked for in the
            necks from the last to the first, then in the head, the conventions and the backbone.
        value: the value, or its text.
    """
    if path == "backbone" and isinstance(value, str):
        made, whole = named_backbone(value), 5 in spec.backbone.levels
        return replace(spec, backbone=made if whole else made.without_c5())
    if path == "conventions" and isinstance(value, str):
        if value not in CONVENTIONS:
            raise unknown("conventions", value, CONVENTIONS)
        return replace(spec, conventions=conventions_for(spec, value))
    return _set(spec, field_path(spec, path), value, path)  # type: ignore[no-any-return]


def field_path(spec: VariantSpec, path: str) -> list[str]:
    """The keys from a variant down to a field, from a dotted path or a bare name.

    Raises:
        UsageError: no part has a field of this name.
    """
    keys = path.split(".")
    if len(keys) == 1 and keys[0] not in fields_of(VariantSpec):
        return _find(spec, keys[0])
    return keys


def conventions_for(spec: VariantSpec, name: str) -> Conventions:
    """The named conventions as the published code uses them for this detector.

    The image size and the threshold of NMS stay the variant's. The released FSAF baseline was
    tested on images padded to a multiple of 384, every FSAF with a PConv or SEPC tower to 32.

    Args:
        spec: the variant.
        name: one of `CONVENTIONS`.
    """
    old = spec.conventions
    named = replace(
        CONVENTIONS[name],
        short_side=old.short_side,
        long_side=old.long_side,
        nms_iou=old.nms_iou,
    )
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
