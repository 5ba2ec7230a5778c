"""Necks as frozen data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from sepcbench.errors import require
from sepcbench.specs.names import Norm
from sepcbench.specs.parts import AnyNeck

ExtraLevels = Literal["pool", "conv_c5", "conv_p5"]


def _check_levels(first_level: int, last_level: int, channels: int) -> None:
    require(first_level in (2, 3), "first_level is 2 or 3 (P2 or P3)")
    require(5 <= last_level <= 8, "last_level is 5 to 8 (P5 to P8)")
    require(channels >= 1, "channels is at least 1")


def _marked(label: str, *marks: str) -> str:
    """A neck's type with what tells it from its kin."""
    told = ", ".join(mark for mark in marks if mark != "none")
    return f"{label} ({told})" if told else label


@dataclass(frozen=True)
class FpnSpec(AnyNeck):
    """Feature pyramid network (arXiv 1612.03144, section 3).

    Levels above P5 come from stride-2 pooling of P5 (`pool`: P6 of Faster R-CNN) or from stride-2
    3x3 convs that start at C5 (`conv_c5`: RetinaNet in mmdetection) or P5 (`conv_p5`:
    torchvision, ATSS); `relu_between` puts a ReLU between those convs. The switches
    `top_down`, `lateral` and `finest_only` are the ablations of the FPN paper's Tables 1 to 3.
    """

    TYPE: ClassVar[str] = "fpn"
    channels: int = 256
    first_level: int = 3
    last_level: int = 7
    extra: ExtraLevels = "conv_c5"
    relu_between: bool = False
    top_down: bool = True
    lateral: bool = True
    finest_only: bool = False
    conv_norm: Literal["none", "gn"] = "none"
    groups: int = 32

    def __post_init__(self) -> None:
        _check_levels(self.first_level, self.last_level, self.channels)
        require(self.top_down or self.lateral, "without top_down, lateral must stay on")

    @property
    def levels(self) -> tuple[int, ...]:
        """The pyramid levels that come out."""
        last = self.first_level if self.finest_only else self.last_level
        return tuple(range(self.first_level, last + 1))


@dataclass(frozen=True)
class PafpnSpec(AnyNeck):
    """Path aggregation FPN (PANet, arXiv 1803.01534): FPN and a bottom-up path after it."""

    TYPE: ClassVar[str] = "pafpn"
    channels: int = 256
    first_level: int = 3
    last_level: int = 7
    extra: ExtraLevels = "conv_c5"
    relu_between: bool = False

    def __post_init__(self) -> None:
        _check_levels(self.first_level, self.last_level, self.channels)

    @property
    def levels(self) -> tuple[int, ...]:
        """The pyramid levels that come out."""
        return tuple(range(self.first_level, self.last_level + 1))


@dataclass(frozen=True)
class PconvSpec(AnyNeck):
    """A tower of pyramid convolutions (PConv, arXiv 2005.03101, section 3.1).

    `combined` is figure 5b: both branches share `depth` PConvs and get one extra 3x3 conv
    each. `separate` is figure 5a: each branch has `depth` PConvs of its own and no extra conv.
    `none` is `depth` PConvs alone, pyramid in and pyramid out: the stand-alone neck of two-stage
    detectors (section 5.3).
    `scale_kernel=1` leaves only the kernel of the same level: with `separate` that is exactly
    RetinaNet's tower. `extra_padding=0` is what the released checkpoints were trained with:
    every map is two cells smaller in both directions.
    """

    TYPE: ClassVar[str] = "pconv"
    channels: int = 256
    depth: int = 4
    scale_kernel: Literal[1, 3] = 3
    branches: Literal["combined", "separate", "none"] = "combined"
    norm: Norm = "none"
    groups: int = 32
    extra_padding: Literal[0, 1] = 1

    def __post_init__(self) -> None:
        require(self.depth >= 1, "depth is at least 1 PConv")
        require(self.channels >= 1, "channels is at least 1")

    @property
    def label(self) -> str:
        """With its norm."""
        return _marked(self.TYPE, self.norm)

    @property
    def tower(self) -> bool:
        """With branches, whether shared or not."""
        return self.branches != "none"

    @property
    def scale_reach(self) -> int:
        """A level per PConv, unless the kernels are of one level."""
        return self.depth if self.scale_kernel == 3 else 0


@dataclass(frozen=True)
class SepcSpec(AnyNeck):
    """Scale-equalizing pyramid convolution (arXiv 2005.03101, section 3.3).

    As the combined PConv tower, but on output levels from `deform_from` on (0 is the finest)
    the shared kernels are deformable: those of the two extra convs (`lite`) or of the PConvs
    as well (`full`).
    """

    TYPE: ClassVar[str] = "sepc"
    channels: int = 256
    depth: int = 4
    deform: Literal["lite", "full"] = "full"
    deform_from: int = 1
    norm: Norm = "integrated"
    groups: int = 32
    extra_padding: Literal[0, 1] = 1

    def __post_init__(self) -> None:
        require(self.depth >= 1, "depth is at least 1 PConv")
        require(self.deform_from >= 0, "deform_from is a level index, 0 for the finest")

    @property
    def label(self) -> str:
        """With what is deformable, and its norm."""
        return _marked(self.TYPE, self.deform, self.norm)

    @property
    def tower(self) -> bool:
        """Always."""
        return True

    @property
    def scale_reach(self) -> int:
        """A level per PConv."""
        return self.depth


@dataclass(frozen=True)
class SingleLevelSpec(AnyNeck):
    """One map of the backbone as it is: the C4 and C5 baselines of the FPN paper."""

    TYPE: ClassVar[str] = "single_level"
    level: Literal[2, 3, 4, 5] = 4

    @property
    def levels(self) -> tuple[int, ...]:
        """The pyramid levels that come out."""
        return (self.level,)


@dataclass(frozen=True)
class NasFpnSpec(AnyNeck):
    """NAS-FPN (arXiv 1904.07392): `stack` times the found cell of seven merging cells.

    Five levels, P3 to P7; C3..C5 by 1x1 convs, P6 and P7 from C5 by a 1x1 conv and max pooling.
    """

    TYPE: ClassVar[str] = "nas_fpn"
    channels: int = 256
    stack: int = 7
    norm: Literal["none", "bn"] = "bn"

    def __post_init__(self) -> None:
        require(self.stack >= 1, "stack is at least 1")
        require(self.channels >= 1, "channels is at least 1")

    @property
    def label(self) -> str:
        """With its norm."""
        return _marked(self.TYPE, self.norm)

    @property
    def levels(self) -> tuple[int, ...]:
        """The pyramid levels that come out."""
        return (3, 4, 5, 6, 7)


@dataclass(frozen=True)
class BfpSpec(AnyNeck):
    """Balanced feature pyramid (Libra R-CNN, arXiv 1904.02701), after an FPN.

    All levels are gathered on the level with index `refine_level` (0 for the finest), averaged,
    refined (by an embedded-gaussian non-local block, a 3x3 conv, or not) and added back to each.
    """

    TYPE: ClassVar[str] = "bfp"
    channels: int = 256
    refine_level: int = 1
    refine: Literal["none", "conv", "non_local"] = "non_local"

    def __post_init__(self) -> None:
        require(self.refine_level >= 0, "refine_level is a level index, 0 for the finest")
        require(self.channels >= 1, "channels is at least 1")


@dataclass(frozen=True)
class HrfpnSpec(AnyNeck):
    """HRNet's fusion (HRNetV2p, arXiv 1904.04514): all maps on the finest, then pooled down.

    Reads C2..C5, puts them side by side at the size of C2, reduces them by a 1x1 conv, pools to
    every further level and applies a 3x3 conv to each; `first_level=3` gives those stride 2, as in
    FCOS on HRNet.
    """

    TYPE: ClassVar[str] = "hrfpn"
    channels: int = 256
    first_level: int = 2
    last_level: int = 6
    pooling: Literal["avg", "max"] = "avg"

    def __post_init__(self) -> None:
        _check_levels(self.first_level, self.last_level, self.channels)

    @property
    def levels(self) -> tuple[int, ...]:
        """The pyramid levels that come out."""
        return tuple(range(self.first_level, self.last_level + 1))


@dataclass(frozen=True)
class BifpnSpec(AnyNeck):
    """EfficientDet's BiFPN (arXiv 1911.09070): `stack` layers of weighted fusion both ways.

    Five levels, P3 to P7. Depthwise separable 3x3 convs with BN; weights of a sum are
    non-negative and normalised by their sum (`fast`), by softmax, or all 1 (`sum`). `bn_momentum`
    is EfficientDet's, for hundreds of thousands of iterations.
    """

    TYPE: ClassVar[str] = "bifpn"
    channels: int = 256
    stack: int = 3
    fusion: Literal["fast", "softmax", "sum"] = "fast"
    bn_momentum: float = 0.01

    def __post_init__(self) -> None:
        require(self.stack >= 1, "stack is at least 1")
        require(self.channels >= 1, "channels is at least 1")
        require(0 < self.bn_momentum <= 1, "bn_momentum is above 0, at most 1")

    @property
    def levels(self) -> tuple[int, ...]:
        """The pyramid levels that come out."""
        return (3, 4, 5, 6, 7)


NeckSpec = (
    FpnSpec
    | PafpnSpec
    | PconvSpec
    | SepcSpec
    | SingleLevelSpec
    | NasFpnSpec
    | BfpSpec
    | HrfpnSpec
    | BifpnSpec
)
