"""The vocabulary: what a detector, a recipe and a measurement are, as frozen data.

No torch here. A spec says *what*; the tables `BACKBONES`, `NECKS`, `HEADS`, `NORMS` and so on
say *how* to build it. Every spec writes itself as JSON and back (`sepcbench.codec`).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

from sepcbench.errors import UsageError

Norm = Literal["none", "single", "independent", "integrated", "gn", "frozen"]
Dtype = Literal["fp32", "fp16", "bf16"]
Scope = Literal["neck", "neck+head", "forward", "end-to-end"]
MeasureName = Literal["cost", "latency", "accuracy"]
CostConvention = Literal["mac", "mmdet", "paper"]
EngineName = Literal["eager"]


def _require(ok: bool, message: str) -> None:
    if not ok:
        raise UsageError(message)


# --- backbones -----------------------------------------------------------------------------


@dataclass(frozen=True)
class ResNetSpec:
    """ResNet C2..C5 (strides 4, 8, 16, 32), torchvision's layers, stride in the 3x3 conv.

    `frozen_stages=1` freezes the stem and the first stage; BN is in eval mode while training
    ("eval") or trains too ("train"), as the detection papers' recipe says.
    """

    TYPE: ClassVar[str] = "resnet"
    depth: Literal[18, 34, 50, 101, 152] = 50
    frozen_stages: int = 1
    bn: Literal["eval", "train"] = "eval"

    def __post_init__(self) -> None:
        _require(-1 <= self.frozen_stages <= 4, "frozen_stages is -1 (nothing) to 4 (all)")


@dataclass(frozen=True)
class TinySpec:
    """A plain conv backbone of about 0.4 M parameters, C2..C5, for tests and the demo."""

    TYPE: ClassVar[str] = "tiny"
    channels: tuple[int, int, int, int] = (24, 48, 96, 128)

    def __post_init__(self) -> None:
        _require(min(self.channels) >= 8, "channels of the tiny backbone are at least 8 each")


BackboneSpec = ResNetSpec | TinySpec


# --- necks ---------------------------------------------------------------------------------

ExtraLevels = Literal["pool", "conv_c5", "conv_p5"]


def _check_levels(first_level: int, last_level: int, channels: int) -> None:
    _require(first_level in (2, 3), "first_level is 2 or 3 (P2 or P3)")
    _require(5 <= last_level <= 8, "last_level is 5 to 8 (P5 to P8)")
    _require(channels >= 1, "channels is at least 1")


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
        _require(self.top_down or self.lateral, "without top_down, lateral must stay on")


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
    channels: int = 256
    depth: int = 4
    scale_kernel: Literal[1, 3] = 3
    branches: Literal["combined", "separate"] = "combined"
    norm: Norm = "none"
    groups: int = 32
    extra_padding: Literal[0, 1] = 1

    def __post_init__(self) -> None:
        _require(self.depth >= 1, "depth is at least 1 PConv")
        _require(self.channels >= 1, "channels is at least 1")


@dataclass(frozen=True)
class SepcSpec:
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
        _require(self.depth >= 1, "depth is at least 1 PConv")
        _require(self.deform_from >= 0, "deform_from is a level index, 0 for the finest")


NeckSpec = FpnSpec | PafpnSpec | PconvSpec | SepcSpec


# --- heads ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class RetinaSpec:
    """RetinaNet's head (arXiv 1708.02002): `depth` convs per branch, then the predictions.

    `depth=0` leaves the convs to the neck, as PConv and SEPC do. Anchors have
    `scales_per_octave` sizes of `base_scale` strides in every one of `ratios` (height/width).
    `smooth_l1_beta=0` is plain L1.
    """

    TYPE: ClassVar[str] = "retina"
    depth: int = 4
    channels: int = 256
    norm: Norm = "none"
    groups: int = 32
    base_scale: float = 4.0
    scales_per_octave: int = 3
    ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    box_stds: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0)
    focal_alpha: float = 0.25
    focal_gamma: float = 2.0
    smooth_l1_beta: float = 0.11
    positive_iou: float = 0.5
    negative_iou: float = 0.4
    prior: float = 0.01

    def __post_init__(self) -> None:
        _require(self.depth >= 0, "depth is 0 (no convs) or more")
        _require(bool(self.ratios), "ratios needs at least one value")
        _require(self.scales_per_octave >= 1, "scales_per_octave is at least 1")
        _require(0 < self.prior < 1, "prior is a probability between 0 and 1")


HeadSpec = RetinaSpec


# --- conventions ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Conventions:
    """How boxes, anchors, selection, resizing and padding are done: what changes AP silently.

    One code path reads these fields; the named sets are in `CONVENTIONS`. Sources: the running
    code of mmdetection 1.1 and 2.25, torchvision and detectron2.
    """

    name: str = "native"
    # anchors: centre of the cell at 0 or at (base - 1) / 2; corners as they are or rounded half
    # to even; sizes exact or truncated to integers; grid step configured or image // map size
    anchor_centre: Literal["zero", "pixel"] = "zero"
    anchor_rounding: Literal["none", "corners"] = "none"
    anchor_sizes: Literal["exact", "truncated"] = "exact"
    anchor_step: Literal["stride", "image"] = "stride"
    # boxes: width is x2 - x1 + box_offset; decoded corners move inwards by corner_shift
    box_offset: Literal[0, 1] = 0
    corner_shift: float = 0.0
    delta_clamp: Literal["both", "upper"] = "both"
    clip_inset: Literal[0, 1] = 0
    # candidates of one level: the best anchors by their best class, or the best (anchor, class)
    candidates: Literal["anchors", "pairs"] = "pairs"
    candidates_per_level: int = 1000
    score_threshold: float = 0.05
    nms_iou: float = 0.5
    nms_offset: Literal[0, 1] = 0
    max_detections: int = 100
    always_sorted: bool = True
    rescale: Literal["before_nms", "after_nms"] = "before_nms"
    # image: short side to short_side unless the long side would pass long_side
    short_side: int = 800
    long_side: int = 1333
    resize_rounding: Literal["round", "floor"] = "round"
    scale_factors: Literal["single", "per_axis"] = "per_axis"
    interpolation: Literal["uint8", "float"] = "uint8"
    channels: Literal["rgb", "bgr"] = "rgb"
    value_range: Literal["255", "1"] = "255"
    mean: tuple[float, float, float] = (123.675, 116.28, 103.53)
    std: tuple[float, float, float] = (58.395, 57.12, 57.375)
    pad_divisor: int = 32
    export_offset: Literal[0, 1] = 0

    def __post_init__(self) -> None:
        _require(self.short_side >= 1 and self.long_side >= 1, "image sides are at least 1 pixel")
        _require(self.pad_divisor >= 1, "pad_divisor is at least 1")
        _require(self.max_detections >= 1, "max_detections is at least 1")


NATIVE = Conventions()
CONVENTIONS: dict[str, Conventions] = {
    "native": NATIVE,
    "mmdet1": replace(
        NATIVE,
        name="mmdet1",
        anchor_centre="pixel",
        anchor_rounding="corners",
        box_offset=1,
        corner_shift=0.5,
        clip_inset=1,
        candidates="anchors",
        nms_offset=1,
        always_sorted=False,
        scale_factors="single",
        export_offset=1,
    ),
    "mmdet2": replace(NATIVE, name="mmdet2"),
    "torchvision": replace(
        NATIVE,
        name="torchvision",
        anchor_rounding="corners",
        anchor_sizes="truncated",
        anchor_step="image",
        delta_clamp="upper",
        max_detections=300,
        rescale="after_nms",
        resize_rounding="floor",
        interpolation="float",
        value_range="1",
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
    ),
    "detectron2": replace(
        NATIVE,
        name="detectron2",
        delta_clamp="upper",
        channels="bgr",
        mean=(103.53, 116.28, 123.675),
        std=(1.0, 1.0, 1.0),
    ),
}


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
        _require(bool(self.necks), f"variant '{self.name}' has no neck")
        _require(self.num_classes >= 1, "num_classes is at least 1")

    @property
    def levels(self) -> tuple[int, ...]:
        """The pyramid levels of the head, such as (3, 4, 5, 6, 7)."""
        first = self.necks[0]
        if isinstance(first, (FpnSpec, PafpnSpec)):
            if isinstance(first, FpnSpec) and first.finest_only:
                return (first.first_level,)
            return tuple(range(first.first_level, first.last_level + 1))
        return (2, 3, 4, 5)

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
    learning_rate: float = 2e-3
    momentum: float = 0.9
    weight_decay: float = 1e-4
    batch: int = 16
    iterations: int = 300
    warmup_iterations: int = 30
    warmup_factor: float = 1 / 3
    decay_at: tuple[float, ...] = (0.7, 0.9)
    decay_factor: float = 0.1
    clip_norm: float = 10.0
    flip: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        _require(self.iterations >= 1, "iterations is at least 1")
        _require(self.batch >= 1, "batch is at least 1")
        _require(self.learning_rate > 0, "learning_rate is above 0")
        _require(all(0 < at <= 1 for at in self.decay_at), "decay_at are fractions of the run")


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
        _require(self.rounds >= 1, "rounds is at least 1")
        _require(self.samples_per_round >= 1, "samples_per_round is at least 1")
        _require(self.max_seconds > 0, "max_seconds is above 0")


BACKBONE_TYPES: dict[str, type] = {cls.TYPE: cls for cls in (ResNetSpec, TinySpec)}
NECK_TYPES: dict[str, type] = {cls.TYPE: cls for cls in (FpnSpec, PafpnSpec, PconvSpec, SepcSpec)}
HEAD_TYPES: dict[str, type] = {cls.TYPE: cls for cls in (RetinaSpec,)}
