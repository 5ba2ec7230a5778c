"""Backbones as frozen data."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal, Self

from sepcbench.errors import require
from sepcbench.specs.parts import AnyBackbone

Deform = Literal["none", "v1", "v2"]
"""Deformable convs in stages 3 to 5: none, offsets only (DCN), offsets and modulation (DCNv2)."""


@dataclass(frozen=True)
class ResNetSpec(AnyBackbone):
    """ResNet or ResNeXt C2..C5 (strides 4, 8, 16, 32), torchvision's layers.

    `frozen_stages=1` freezes the stem and the first stage; BN is in eval mode while training
    ("eval") or trains too ("train"), as the detection papers' recipe says. `bn_eps` is 0 in
    torchvision's published RetinaNet. A bottleneck that halves its maps has the stride in its 3x3
    conv, or in its first 1x1 conv ("1x1": the original Caffe weights, detectron2).

    ResNeXt has `groups` groups of `group_width` channels. `deform` makes the 3x3 convs of stages
    3 to 5 (those of C3, C4, C5) deformable. `last_stage=4` leaves C5 out (C4 baselines, whose
    head has that stage).
    """

    TYPE: ClassVar[str] = "resnet"
    depth: Literal[18, 34, 50, 101, 152] = 50
    frozen_stages: int = 1
    bn: Literal["eval", "train"] = "eval"
    bn_eps: float = 1e-5
    stride_in: Literal["3x3", "1x1"] = "3x3"
    groups: int = 1
    group_width: int = 64
    deform: Deform = "none"
    last_stage: Literal[4, 5] = 5

    def __post_init__(self) -> None:
        require(-1 <= self.frozen_stages <= 4, "frozen_stages is -1 (nothing) to 4 (all)")
        require(self.bn_eps >= 0, "bn_eps is 0 or more")
        require(self.groups >= 1, "groups is at least 1")
        plain = self.depth >= 50 or (self.groups == 1 and self.deform == "none")
        require(plain, "groups and deform need the bottlenecks of depth 50 or more")

    @property
    def label(self) -> str:
        """Its depth, and whether it is deformable."""
        return _with_deform(f"{self.TYPE} {self.depth}", self.deform)

    @property
    def levels(self) -> tuple[int, ...]:
        """Without C5 if `last_stage` says so."""
        return tuple(range(2, self.last_stage + 1))

    @property
    def plain_last_stage(self) -> bool:
        """Not with groups, deformed, or with a BN or strides of its own."""
        free = replace(self, depth=50, frozen_stages=1, last_stage=5)
        return self.depth >= 50 and self.frozen_stages <= 3 and free == ResNetSpec()

    def without_c5(self) -> Self:
        """The same without its last stage."""
        return replace(self, last_stage=4)


@dataclass(frozen=True)
class TinySpec(AnyBackbone):
    """A plain conv backbone of about 0.4 M parameters, C2..C5, for tests and the demo."""

    TYPE: ClassVar[str] = "tiny"
    channels: tuple[int, int, int, int] = (24, 48, 96, 128)
    deform: Deform = "none"
    last_stage: Literal[4, 5] = 5

    def __post_init__(self) -> None:
        require(min(self.channels) >= 8, "channels of the tiny backbone are at least 8 each")

    @property
    def label(self) -> str:
        """Whether it is deformable."""
        return _with_deform(self.TYPE, self.deform)

    @property
    def levels(self) -> tuple[int, ...]:
        """Without C5 if `last_stage` says so."""
        return tuple(range(2, self.last_stage + 1))

    @property
    def plain_last_stage(self) -> bool:
        """A C4 baseline on it has ResNet's stage; it has no deformable one."""
        return self.deform == "none"

    def without_c5(self) -> Self:
        """The same without its last stage."""
        return replace(self, last_stage=4)


@dataclass(frozen=True)
class TimmSpec(AnyBackbone):
    """Any `features_only` backbone of timm, by its name there.

    Its channels and strides are read off the model; it must have maps of strides 8, 16 and 32, and
    one of stride 4 for necks that start at P2. Weights start random; `bn` is as for ResNet.
    """

    TYPE: ClassVar[str] = "timm"
    model: str = "convnext_tiny"
    bn: Literal["eval", "train"] = "eval"

    def __post_init__(self) -> None:
        require(bool(self.model), "model is the name of a timm model")

    @property
    def label(self) -> str:
        """The name of the model."""
        return f"{self.TYPE} {self.model}"


def _with_deform(label: str, deform: Deform) -> str:
    return label if deform == "none" else f"{label} DCN"


BackboneSpec = ResNetSpec | TinySpec | TimmSpec
