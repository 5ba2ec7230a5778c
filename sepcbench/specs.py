"""The vocabulary: what a detector, a recipe and a measurement are, as frozen data.

No torch here. A spec says *what*; the tables `BACKBONES`, `NECKS`, `HEADS`, `NORMS` and so on
say *how* to build it. Every spec writes itself as JSON and back (`sepcbench.codec`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from sepcbench.conventions import CONVENTIONS as CONVENTIONS
from sepcbench.conventions import NATIVE as NATIVE
from sepcbench.conventions import Conventions as Conventions
from sepcbench.errors import require

Norm = Literal["none", "single", "independent", "integrated", "gn", "frozen"]
Dtype = Literal["fp32", "fp16", "bf16"]
Scope = Literal["neck", "neck+head", "forward", "end-to-end"]
MeasureName = Literal["cost", "latency", "accuracy"]
CostConvention = Literal["mac", "mmdet", "paper"]
EngineName = Literal["eager"]


# --- backbones -----------------------------------------------------------------------------


@dataclass(frozen=True)
class ResNetSpec:
    """ResNet C2..C5 (strides 4, 8, 16, 32), torchvision's layers.

    `frozen_stages=1` freezes the stem and the first stage; BN is in eval mode while training
    ("eval") or trains too ("train"), as the detection papers' recipe says. `bn_eps` is 0 in
    torchvision's published RetinaNet. A bottleneck that halves its maps has the stride in its 3x3
    conv, or in its first 1x1 conv ("1x1": the original Caffe weights, detectron2).
    """

    TYPE: ClassVar[str] = "resnet"
    depth: Literal[18, 34, 50, 101, 152] = 50
    frozen_stages: int = 1
    bn: Literal["eval", "train"] = "eval"
    bn_eps: float = 1e-5
    stride_in: Literal["3x3", "1x1"] = "3x3"

    def __post_init__(self) -> None:
        require(-1 <= self.frozen_stages <= 4, "frozen_stages is -1 (nothing) to 4 (all)")
        require(self.bn_eps >= 0, "bn_eps is 0 or more")


@dataclass(frozen=True)
class TinySpec:
    """A plain conv backbone of about 0.4 M parameters, C2..C5, for tests and the demo."""

    TYPE: ClassVar[str] = "tiny"
    channels: tuple[int, int, int, int] = (24, 48, 96, 128)

    def __post_init__(self) -> None:
        require(min(self.channels) >= 8, "channels of the tiny backbone are at least 8 each")


BackboneSpec = ResNetSpec | TinySpec


# --- necks ---------------------------------------------------------------------------------

ExtraLevels = Literal["pool", "conv_c5", "conv_p5"]


def _check_levels(first_level: int, last_level: int, channels: int) -> None:
    require(first_level in (2, 3), "first_level is 2 or 3 (P2 or P3)")
    require(5 <= last_level <= 8, "last_level is 5 to 8 (P5 to P8)")
    require(channels >= 1, "channels is at least 1")


@dataclass(frozen=True)
class FpnSpec:
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
class PafpnSpec:
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
class PconvSpec:
    """A tower of pyramid convolutions (PConv, arXiv 2005.03101, section 3.1).

    `combined` is figure 5b: both branches share `depth` PConvs and get one extra 3x3 conv
    each. `separate` is figure 5a: each branch has `depth` PConvs of its own and no extra conv.
    `scale_kernel=1` leaves only the kernel of the same level: with `separate` that is exactly
    RetinaNet's tower. `extra_padding=0` is what the released checkpoints were trained with:
    every map is two cells smaller in both directions.
    """

    TYPE: ClassVar[str] = "pconv"
    TOWER: ClassVar[bool] = True  # stands in for the towers of the head: gives a pyramid pair
    channels: int = 256
    depth: int = 4
    scale_kernel: Literal[1, 3] = 3
    branches: Literal["combined", "separate"] = "combined"
    norm: Norm = "none"
    groups: int = 32
    extra_padding: Literal[0, 1] = 1

    def __post_init__(self) -> None:
        require(self.depth >= 1, "depth is at least 1 PConv")
        require(self.channels >= 1, "channels is at least 1")


@dataclass(frozen=True)
class SepcSpec:
    """Scale-equalizing pyramid convolution (arXiv 2005.03101, section 3.3).

    As the combined PConv tower, but on output levels from `deform_from` on (0 is the finest)
    the shared kernels are deformable: those of the two extra convs (`lite`) or of the PConvs
    as well (`full`).
    """

    TYPE: ClassVar[str] = "sepc"
    TOWER: ClassVar[bool] = True  # stands in for the towers of the head: gives a pyramid pair
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


NeckSpec = FpnSpec | PafpnSpec | PconvSpec | SepcSpec


# --- heads ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class TowerHeadSpec:
    """What the heads over anchors share: `depth` convs per branch, then the predictions.

    `depth=0` leaves the convs to the neck, as PConv and SEPC do; `tower_bias=False` leaves their
    bias to the norm. Anchors have `scales_per_octave` sizes of `base_scale` strides in every one
    of `ratios` (height/width). `prior` is the score that training starts from.
    """

    depth: int = 4
    channels: int = 256
    norm: Norm = "none"
    groups: int = 32
    tower_bias: bool = True
    base_scale: float = 4.0
    scales_per_octave: int = 3
    ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    prior: float = 0.01

    def __post_init__(self) -> None:
        require(self.depth >= 0, "depth is 0 (no convs) or more")
        require(bool(self.ratios), "ratios needs at least one value")
        require(self.scales_per_octave >= 1, "scales_per_octave is at least 1")
        require(0 < self.prior < 1, "prior is a probability between 0 and 1")


BoxStds = tuple[float, float, float, float]


@dataclass(frozen=True)
class RetinaSpec(TowerHeadSpec):
    """RetinaNet's head (arXiv 1708.02002).

    `box_stds` are what box deltas are divided by. `smooth_l1_beta=0` is plain L1.
    """

    TYPE: ClassVar[str] = "retina"
    box_stds: BoxStds = (1.0, 1.0, 1.0, 1.0)
    focal_alpha: float = 0.25
    focal_gamma: float = 2.0
    smooth_l1_beta: float = 0.11
    positive_iou: float = 0.5
    negative_iou: float = 0.4


@dataclass(frozen=True)
class FreeAnchorSpec(TowerHeadSpec):
    """FreeAnchor's head (arXiv 1909.02466): RetinaNet's but for the scale of the box deltas.

    Parameters have RetinaNet's names and shapes, so that weights do not tell the two apart.
    """

    TYPE: ClassVar[str] = "free_anchor"
    box_stds: BoxStds = (0.1, 0.1, 0.2, 0.2)


@dataclass(frozen=True)
class FsafSpec(TowerHeadSpec):
    """FSAF's anchor-free branch (arXiv 1903.00621), alone: one square of a stride per cell.

    The box output passes a ReLU: the distances from the centre of the square to the sides of the
    object, in multiples of the square's sides (`Conventions.side_unit` of them).
    """

    TYPE: ClassVar[str] = "fsaf"
    base_scale: float = 1.0
    scales_per_octave: int = 1
    ratios: tuple[float, ...] = (1.0,)

    def __post_init__(self) -> None:
        super().__post_init__()
        one = self.scales_per_octave == len(self.ratios) == 1
        require(one, "head 'fsaf' has one anchor per cell: one ratio and scales_per_octave 1")


HeadSpec = RetinaSpec | FreeAnchorSpec | FsafSpec


# --- variants, recipes, protocols ----------------------------------------------------------


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

    @property
    def levels(self) -> tuple[int, ...]:
        """The pyramid levels of the head, such as (3, 4, 5, 6, 7)."""
        levels = (2, 3, 4, 5)  # of the backbone, unless a neck says which it makes of them
        for neck in self.necks:
            levels = getattr(neck, "levels", levels)
        return levels

    @property
    def strides(self) -> tuple[int, ...]:
        """The stride of each level in pixels, 2^level."""
        return tuple(2**level for level in self.levels)


@dataclass(frozen=True)
class Recipe:
    """How a variant is trained. `decay_at` are fractions of all iterations.

    The defaults are the small recipe for the generated set.
    """

    optimizer: Literal["sgd", "adamw"] = "adamw"
    learning_rate: float = 1.5e-3
    momentum: float = 0.9
    weight_decay: float = 1e-4
    batch: int = 8
    iterations: int = 250
    warmup_iterations: int = 30
    warmup_factor: float = 1 / 3
    decay_at: tuple[float, ...] = (0.7, 0.9)
    decay_factor: float = 0.1
    clip_norm: float = 10.0
    flip: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        require(self.iterations >= 1, "iterations is at least 1")
        require(self.batch >= 1, "batch is at least 1")
        require(self.learning_rate > 0, "learning_rate is above 0")
        require(all(0 < at <= 1 for at in self.decay_at), "decay_at are fractions of the run")


@dataclass(frozen=True)
class Protocol:
    """How latency is sampled: interleaved rounds in random order, warm-up until settled.

    A round takes `samples_per_round` samples of every variant, in an order shuffled by `seed`.
    Sampling stops after `rounds`, or when the relative spread of the round medians of every
    variant is below `stop_spread` (never before `min_rounds`; 0 switches it off), or after
    `max_seconds`.
    """

    rounds: int = 50
    min_rounds: int = 10
    samples_per_round: int = 5
    warmup_iterations: int = 10
    warmup_seconds: float = 1.0
    warmup_max_seconds: float = 30.0
    settle_spread: float = 0.02
    stop_spread: float = 0.0
    max_seconds: float = 600.0
    seed: int = 0

    def __post_init__(self) -> None:
        require(self.rounds >= 1, "rounds is at least 1")
        require(self.samples_per_round >= 1, "samples_per_round is at least 1")
        require(self.max_seconds > 0, "max_seconds is above 0")


BACKBONE_TYPES: dict[str, type] = {cls.TYPE: cls for cls in (ResNetSpec, TinySpec)}
NECK_TYPES: dict[str, type] = {cls.TYPE: cls for cls in (FpnSpec, PafpnSpec, PconvSpec, SepcSpec)}
HEAD_TYPES: dict[str, type] = {cls.TYPE: cls for cls in (RetinaSpec, FreeAnchorSpec, FsafSpec)}
