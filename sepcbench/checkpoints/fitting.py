"""Which variant a state dict is of: keys and shapes side by side with those of the variants."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor, nn

from sepcbench.backbones import BACKBONES
from sepcbench.checkpoints import native
from sepcbench.checkpoints.format import Format, Renamed
from sepcbench.heads import HEADS
from sepcbench.necks import NECKS
from sepcbench.specs import NATIVE, BackboneSpec, HeadSpec, NeckSpec, VariantSpec

Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]


@dataclass(frozen=True)
class Differences:
    """How a state dict differs from the one wanted.

    Attributes:
        missing: keys of the variant that are not in the file.
        unexpected: keys of the file, under their published names, that the variant has not.
        shapes: published key, shape in the file, shape in the variant.
    """

    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    shapes: tuple[tuple[str, Shape, Shape], ...] = ()

    @property
    def count(self) -> int:
        """How many keys differ."""
        return len(self.missing) + len(self.unexpected) + len(self.shapes)

    def line(self) -> str:
        """All in one line, long lists shortened with their count; empty if there are none."""
        shapes = [
            f"{key} {list(found)} in the file, {list(wanted)} in the variant"
            for key, found, wanted in self.shapes
        ]
        kinds = (
            ("missing", self.missing),
            ("unexpected", self.unexpected),
            ("other shapes", shapes),
        )
        return "; ".join(native.listed(kind, list(items)) for kind, items in kinds if items)


def compare(renamed: Renamed, wanted: Shapes, made_by: Format) -> Differences:
    """Compare keys and shapes; those that the format's table allows are passed over.

    Args:
        renamed: the tensors of the file.
        wanted: of the variant.
        made_by: the format of the file.
    """
    allowed, found = made_by.ignored.search, shapes_of(renamed.state)
    name = renamed.published
    unexpected = (*(name[key] for key in found if key not in wanted), *renamed.left_over)
    return Differences(
        missing=tuple(key for key in wanted if key not in found and not allowed(key)),
        unexpected=tuple(key for key in unexpected if not allowed(key)),
        shapes=tuple(
            (name[key], found[key], shape)
            for key, shape in wanted.items()
            if key in found and found[key] != shape
        ),
    )


def shapes_of(state: Mapping[str, Tensor]) -> dict[str, Shape]:
    """The shape of every tensor."""
    return {key: tuple(value.shape) for key, value in state.items()}


def wanted_shapes(spec: VariantSpec) -> dict[str, Shape]:
    """The state dict's keys and shapes of a variant; each part is built once, without memory."""
    shapes, channels = _backbone(spec.backbone)
    wanted = {f"backbone.{key}": shape for key, shape in shapes}
    for i, neck in enumerate(spec.necks):
        shapes, channels = _neck(neck, channels)
        wanted |= {f"necks.{i}.{key}": shape for key, shape in shapes}
    shapes = _head(spec.head, channels, spec.num_classes, spec.strides)
    return wanted | {f"head.{key}": shape for key, shape in shapes}


_Part = tuple[tuple[str, Shape], ...]


@lru_cache(maxsize=64)
def _backbone(spec: BackboneSpec) -> tuple[_Part, tuple[int, ...]]:
    with torch.device("meta"):
        module = BACKBONES[type(spec)](spec)
    return _part(module), tuple(module.channels)  # type: ignore[arg-type]


@lru_cache(maxsize=256)
def _neck(spec: NeckSpec, channels: tuple[int, ...]) -> tuple[_Part, tuple[int, ...]]:
    with torch.device("meta"):
        module = NECKS[type(spec)](spec, channels)
    return _part(module), tuple(module.out_channels)  # type: ignore[arg-type]


@lru_cache(maxsize=1024)
def _head(
    spec: HeadSpec, channels: tuple[int, ...], num_classes: int, strides: tuple[int, ...]
) -> _Part:
    with torch.device("meta"):
        return _part(HEADS[type(spec)](spec, channels, num_classes, strides, NATIVE))


def _part(module: nn.Module) -> _Part:
    return tuple(shapes_of(module.state_dict()).items())


def with_classes(spec: VariantSpec, found: Shapes) -> VariantSpec:
    """The variant with as many classes as the file has; unchanged if its shapes do not tell.

    The number of classes scales the first dimension of the last layers linearly.
    """
    one, two = (wanted_shapes(replace(spec, num_classes=n)) for n in (1, 2))
    counts = set()
    for key, shape in one.items():
        step = two[key][0] - shape[0] if shape else 0
        if step and key in found and found[key]:
            count, rest = divmod(found[key][0] - shape[0], step)
            counts.add(count + 1 if rest == 0 and count >= 0 else None)
    only = counts.pop() if len(counts) == 1 else None
    return replace(spec, num_classes=only) if only else spec
