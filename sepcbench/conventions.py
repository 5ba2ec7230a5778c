"""Conventions: what published code bases do differently with boxes and images, as frozen data."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from sepcbench.errors import require

# the fields that decide the network's input; all others act on its raw outputs
PIXEL_FIELDS = (
    "short_side",
    "long_side",
    "resize_rounding",
    "interpolation",
    "antialias",
    "channels",
    "value_range",
    "mean",
    "std",
    "pad_divisor",
)


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
    # points (FCOS) in their cell: half a stride from its corner, that rounded down, or the corner
    point_offset: Literal["half", "half_floor", "zero"] = "half"
    # boxes: width is x2 - x1 + box_offset; decoded corners move inwards by corner_shift
    box_offset: Literal[0, 1] = 0
    corner_shift: float = 0.0
    delta_clamp: Literal["both", "upper"] = "both"
    clip_inset: Literal[0, 1] = 0
    # boxes as distances from a centre to the four sides (FSAF): order of the channels, and what a
    # value of 1 means in multiples of the anchor's height (top, bottom) or width (left, right)
    side_order: Literal["top_bottom_left_right", "bottom_top_left_right"] = "top_bottom_left_right"
    side_unit: float = 4.0
    # candidates of one level: the best anchors by their best class, or the best (anchor, class)
    candidates: Literal["anchors", "pairs"] = "pairs"
    candidates_per_level: int = 1000
    # centerness times the score, applied to the candidates; or sqrt(score * centerness) throughout
    quality: Literal["after", "sqrt"] = "after"
    score_threshold: float = 0.05
    nms_iou: float = 0.5
    nms_offset: Literal[0, 1] = 0
    max_detections: int = 100
    always_sorted: bool = True
    rescale: Literal["before_nms", "after_nms"] = "before_nms"
    # boxes are clipped to the image before NMS, or at the very end, where those without area go
    clip: Literal["before_nms", "after_nms"] = "before_nms"
    # two stages: proposals have sides above proposal_min_size, boxes of at least detection_min_size
    proposal_min_size: float = 0.0
    detection_min_size: float = 0.0
    # RoIAlign: coordinates shifted by half a cell; samples per side of a bin, 0 for about one per
    # cell; cells that a RoI is at least widened to
    roi_aligned: bool = True
    roi_samples: int = 0
    roi_min_cells: Literal[0, 1] = 0
    # training FSAF: a cell that several objects claim goes to the smallest, or, as mmdetection 1.1
    # has it, to the one whose place in the list of objects from large to small is the last; ignored
    # are the classes of an object around its centre, or all classes there
    overlap_rank: Literal["area", "argsort"] = "area"
    ignored_classes: Literal["own", "all"] = "own"
    # training: FCOS's focal loss is divided by the positives, at least 1, or by them and the images
    focal_divisor: Literal["positives", "positives_and_images"] = "positives"
    # image: short side to short_side unless the long side would pass long_side
    short_side: int = 800
    long_side: int = 1333
    resize_rounding: Literal["round", "floor"] = "round"
    scale_factors: Literal["single", "per_axis"] = "per_axis"
    interpolation: Literal["uint8", "float"] = "uint8"
    antialias: bool = False
    channels: Literal["rgb", "bgr"] = "rgb"
    value_range: Literal["255", "1"] = "255"
    mean: tuple[float, float, float] = (123.675, 116.28, 103.53)
    std: tuple[float, float, float] = (58.395, 57.12, 57.375)
    pad_divisor: int = 32
    export_offset: Literal[0, 1] = 0

    def __post_init__(self) -> None:
        require(self.short_side >= 1 and self.long_side >= 1, "image sides are at least 1 pixel")
        require(self.pad_divisor >= 1, "pad_divisor is at least 1")
        require(self.max_detections >= 1, "max_detections is at least 1")
        require(self.side_unit > 0, "side_unit is above 0")


NATIVE = Conventions()
CONVENTIONS: dict[str, Conventions] = {
    "native": NATIVE,
    "mmdet1": replace(
        NATIVE,
        name="mmdet1",
        anchor_centre="pixel",
        anchor_rounding="corners",
        point_offset="half_floor",
        box_offset=1,
        corner_shift=0.5,
        clip_inset=1,
        side_order="bottom_top_left_right",
        side_unit=1.0,
        candidates="anchors",
        nms_offset=1,
        always_sorted=False,
        roi_aligned=False,
        roi_samples=2,
        overlap_rank="argsort",
        ignored_classes="all",
        focal_divisor="positives_and_images",
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
        point_offset="zero",
        delta_clamp="upper",
        quality="sqrt",
        max_detections=300,
        rescale="after_nms",
        proposal_min_size=1e-3,
        detection_min_size=1e-2,
        roi_aligned=False,
        roi_samples=2,
        roi_min_cells=1,
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
        quality="sqrt",
        rescale="after_nms",
        clip="after_nms",
        antialias=True,
        channels="bgr",
        mean=(103.53, 116.28, 123.675),
        std=(1.0, 1.0, 1.0),
    ),
}
