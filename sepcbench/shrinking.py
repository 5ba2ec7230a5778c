"""The small twin of a variant: the same detector for 128-pixel generated images."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from sepcbench.specs import RcnnSpec, ResNetSpec, RpnSpec, TinySpec, VariantSpec

_CHANNELS, _CLASSES, _SIDE = 32, 3, 128

# what becomes of the fields of necks and heads: objects are about a quarter as large as COCO's
_SMALL: dict[str, Callable[[Any], Any]] = {
    "channels": lambda _: _CHANNELS,
    "point_channels": lambda _: _CHANNELS,
    "groups": lambda _: 8,
    "depth": lambda depth: min(depth, max(1, depth // 2)),  # what has convs keeps one
    "stack": lambda stack: (stack + 1) // 2,
    "bn_momentum": lambda _: 0.1,  # statistics have to settle within a few hundred iterations
    "fc_channels": lambda _: 128,
    "canonical_size": lambda size: size / 4,
    # strides stay as they are: a quarter would leave a level's objects only a few points
    "ranges": lambda ranges: tuple(end / 2 for end in ranges),
    # FCOS learns from centres alone, as its authors' later settings do: a short training is enough
    "centre_radius": lambda _: 1.5,
    "samples": lambda samples: max(1, samples // 4),
    "rpn": lambda rpn: None if rpn is None else _small(rpn),
    "mask": lambda mask: None if mask is None else _small(mask),
}


def shrink(spec: VariantSpec) -> VariantSpec:
    """The same detector on the tiny backbone: 32 channels, towers half as deep, 3 classes.

    Args:
        spec: of any size. What its backbone deforms or leaves out, the tiny one does.
    """
    if isinstance(spec.backbone, (ResNetSpec, TinySpec)):
        tiny = TinySpec(deform=spec.backbone.deform, last_stage=spec.backbone.last_stage)
    else:
        tiny = TinySpec()
    return replace(
        spec,
        backbone=tiny,
        necks=tuple(_small(neck) for neck in spec.necks),
        head=_small(spec.head),
        num_classes=_CLASSES,
        conventions=replace(spec.conventions, short_side=_SIDE, long_side=_SIDE),
    )


def _small(part: Any) -> Any:
    fields = [field.name for field in dataclasses.fields(part)]
    changes = {name: _SMALL[name](getattr(part, name)) for name in fields if name in _SMALL}
    if isinstance(part, RpnSpec):
        changes["scales"] = tuple(scale / 2 for scale in part.scales)
    if isinstance(part, RcnnSpec) and part.box_head == "conv5":
        changes["pool_size"] = part.pool_size // 2  # a quarter of the work of its convs
    return replace(part, **changes)
