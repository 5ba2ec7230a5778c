"""One-stage heads as frozen data; two-stage ones are in `sepcbench.specs.two_stage`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from sepcbench.errors import require
from sepcbench.specs.names import Norm
from sepcbench.specs.parts import AnyHead
from sepcbench.specs.two_stage import RcnnSpec, RpnSpec


@dataclass(frozen=True)
class TowerSpec(AnyHead):
    """What one-stage heads share: `depth` convs per branch, then the predictions.

    `depth=0` leaves the convs to the neck, as PConv and SEPC do; `tower_bias=False` leaves their
    bias to the norm. `deform` makes every conv of the towers deformable (the "DCN head" of the
    SEPC paper's Table 1). `prior` is the score that training starts from.
    """

    depth: int = 4
    channels: int = 256
    norm: Norm = "none"
    groups: int = 32
    tower_bias: bool = True
    deform: bool = False
    prior: float = 0.01

    def __post_init__(self) -> None:
        require(self.depth >= 0, "depth is 0 (no convs) or more")
        require(0 < self.prior < 1, "prior is a probability between 0 and 1")

    @property
    def label(self) -> str:
        """Whether its towers are deformable."""
        return f"deformable {super().label}" if self.deform else super().label

    @property
    def one_stage(self) -> bool:
        """All that have towers are."""
        return True

    @property
    def reads_pairs(self) -> bool:
        """A pyramid for each tower."""
        return True


@dataclass(frozen=True)
class AnchorHeadSpec(TowerSpec):
    """A tower head over anchor boxes.

    Anchors have `scales_per_octave` sizes of `base_scale` strides in every one of `ratios`
    (height/width).
    """

    base_scale: float = 4.0
    scales_per_octave: int = 3
    ratios: tuple[float, ...] = (0.5, 1.0, 2.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        require(bool(self.ratios), "ratios needs at least one value")
        require(self.scales_per_octave >= 1, "scales_per_octave is at least 1")


BoxStds = tuple[float, float, float, float]


@dataclass(frozen=True)
class RetinaSpec(AnchorHeadSpec):
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
class FreeAnchorSpec(AnchorHeadSpec):
    """FreeAnchor's head (arXiv 1909.02466): RetinaNet's but for the scale of the box deltas.

    Parameters have RetinaNet's names and shapes, so that weights do not tell the two apart.
    """

    TYPE: ClassVar[str] = "free_anchor"
    box_stds: BoxStds = (0.1, 0.1, 0.2, 0.2)
    bag_anchors: int = 50
    bag_iou: float = 0.6
    focal_alpha: float = 0.5
    focal_gamma: float = 2.0
    box_weight: float = 0.75
    smooth_l1_beta: float = 0.11


@dataclass(frozen=True)
class FsafSpec(AnchorHeadSpec):
    """FSAF's anchor-free branch (arXiv 1903.00621), alone: one square of a stride per cell.

    The box output passes a ReLU: the distances from the centre of the square to the sides of the
    object, in multiples of the square's sides (`Conventions.side_unit` of them). Cells in the
    central `positive_area` of an object (a share of its sides) are positive, those in its
    `ignored_area` around that are ignored.
    """

    TYPE: ClassVar[str] = "fsaf"
    base_scale: float = 1.0
    scales_per_octave: int = 1
    ratios: tuple[float, ...] = (1.0,)
    focal_alpha: float = 0.25
    focal_gamma: float = 2.0
    positive_area: float = 0.2
    ignored_area: float = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        one = self.scales_per_octave == len(self.ratios) == 1
        require(one, "head 'fsaf' has one anchor per cell: one ratio and scales_per_octave 1")


@dataclass(frozen=True)
class FcosSpec(TowerSpec):
    """FCOS's head (arXiv 1904.01355): one point per cell, distances to the four sides, centerness.

    A level learns objects whose largest distance to a side is within its range of `ranges` pixels
    (the last end is open). Distances are exp(scale * output) in pixels, or with
    `normalise_boxes` relu(scale * output) in strides; `scale` is learnt per level, or 1 without
    `level_scales`. Positives are all points in an object, or with `centre_radius` > 0 those within
    that many strides of its centre.
    """

    TYPE: ClassVar[str] = "fcos"
    norm: Norm = "gn"
    tower_bias: bool = False
    ranges: tuple[float, ...] = (64.0, 128.0, 256.0, 512.0)
    centerness_on: Literal["cls", "box"] = "cls"
    normalise_boxes: bool = False
    level_scales: bool = True
    centre_radius: float = 0.0
    box_loss: Literal["iou", "giou"] = "iou"
    focal_alpha: float = 0.25
    focal_gamma: float = 2.0


@dataclass(frozen=True)
class AtssSpec(AnchorHeadSpec):
    """ATSS's head (arXiv 1912.02424): one square anchor of eight strides per cell, centerness.

    Positives of an object are those of the `candidates` anchors per level nearest to its centre
    whose IoU reaches the mean plus the standard deviation of the candidates' IoU.
    """

    TYPE: ClassVar[str] = "atss"
    norm: Norm = "gn"
    tower_bias: bool = False
    base_scale: float = 8.0
    scales_per_octave: int = 1
    ratios: tuple[float, ...] = (1.0,)
    box_stds: BoxStds = (0.1, 0.1, 0.2, 0.2)
    candidates: int = 9
    box_weight: float = 2.0
    focal_alpha: float = 0.25
    focal_gamma: float = 2.0


@dataclass(frozen=True)
class RepPointsSpec(TowerSpec):
    """RepPoints' head (arXiv 1904.11490): `points` points per cell, refined by deformable convs.

    Points become a box by their mean and standard deviation (`moment`), the latter scaled by a
    learnt exponent, or by their extremes (`minmax`). First-stage boxes are assigned by
    the centre of objects, on the level of their size in `base_scale` strides; second-stage boxes
    by IoU.
    """

    TYPE: ClassVar[str] = "rep_points"
    depth: int = 3
    norm: Norm = "gn"
    tower_bias: bool = False
    points: int = 9
    point_channels: int = 256
    base_scale: float = 4.0
    transform: Literal["moment", "minmax"] = "moment"
    moment_lr: float = 0.01
    positive_iou: float = 0.5
    negative_iou: float = 0.4
    init_weight: float = 0.5
    refine_weight: float = 1.0
    focal_alpha: float = 0.25
    focal_gamma: float = 2.0
    smooth_l1_beta: float = 0.11

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.points in (9, 25), "points is 9 or 25: the taps of a square kernel")


HeadSpec = (
    RetinaSpec
    | FreeAnchorSpec
    | FsafSpec
    | FcosSpec
    | AtssSpec
    | RepPointsSpec
    | RpnSpec
    | RcnnSpec
)
