"""A complete detector as frozen data."""

from __future__ import annotations

from dataclasses import dataclass, field

from sepcbench.conventions import NATIVE, Conventions
from sepcbench.errors import require
from sepcbench.specs.backbones import BackboneSpec
from sepcbench.specs.heads import HeadSpec, RetinaSpec
from sepcbench.specs.necks import NeckSpec


@dataclass(frozen=True)
class VariantSpec:
    """One complete detector: backbone, chain of necks, head, classes and conventions."""

    name: str
    backbone: BackboneSpec
    necks: tuple[NeckSpec, ...]
    head: HeadSpec = field(default_factory=RetinaSpec)
    num_classes: int = 80
    conventions: Conventions = NATIVE

    def __post_init__(self) -> None:
        require(bool(self.necks), f"variant '{self.name}' has no neck")
        require(self.num_classes >= 1, "num_classes is at least 1")
        fits = not self.head.has_last_stage or self.backbone.plain_last_stage
        require(
            fits,
            f"variant '{self.name}': box head 'conv5' is the last stage of a plain ResNet; its "
            "backbone is r50, r101, r152 or tiny, with that stage as it is there",
        )

    @property
    def levels(self) -> tuple[int, ...]:
        """The pyramid levels of the head, such as (3, 4, 5, 6, 7)."""
        # of the backbone, unless a neck says which it makes of them
        levels = self.backbone.levels
        for neck in self.necks:
            levels = neck.levels or levels
        return levels

    @property
    def strides(self) -> tuple[int, ...]:
        """The stride of each level in pixels, 2^level."""
        return tuple(2**level for level in self.levels)
