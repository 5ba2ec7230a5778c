"""What was scored."""

from __future__ import annotations

from dataclasses import dataclass

Scores = tuple[tuple[str, float | None], ...]


@dataclass(frozen=True)
class SizeBand:
    """AP of the objects of a band of sizes, as a fraction of 1; None without any.

    `kind` "pixels": the root of the area in pixels is in [low, high); "relative": over the root of
    the image's area. `high` is None for the last band.
    """

    kind: str
    low: float
    high: float | None
    objects: int
    ap: float | None


@dataclass(frozen=True)
class LevelShare:
    """What one pyramid level found: detections, and objects matched at IoU 0.5, by COCO size."""

    level: int
    detections: int
    found_small: int
    found_medium: int
    found_large: int


@dataclass(frozen=True)
class Accuracy:
    """The twelve COCO numbers and AP per class, as fractions of 1.

    None where there is no ground truth to score (pycocotools prints -1 there). `task` is "bbox"
    where boxes were compared, "segm" where masks were.

    `bands` are AP by finer sizes, `levels` what each pyramid level found, `test_time` the options
    beyond one pass per image ("" for none), such as "scales 400-1200, flip". `refereed`:
    pycocotools scored the same detections, and no number differs.

    `draws` are AP on resamples of the images, drawn with replacement, and `ap_ci95` the 95 %
    interval that they give; none for a set of few images. Of two records with the same
    `drawn_from` the draws are paired: the same images are in the same draw.
    """

    variant: str
    dataset: str
    images: int
    detections: int
    checkpoint: str | None
    ap: float | None
    ap50: float | None
    ap75: float | None
    ap_small: float | None
    ap_medium: float | None
    ap_large: float | None
    ar1: float | None
    ar10: float | None
    ar100: float | None
    ar_small: float | None
    ar_medium: float | None
    ar_large: float | None
    per_class: Scores
    task: str = "bbox"
    ap_ci95: tuple[float, float] | None = None
    draws: tuple[float, ...] = ()
    drawn_from: str = ""
    bands: tuple[SizeBand, ...] = ()
    levels: tuple[LevelShare, ...] = ()
    test_time: str = ""
    refereed: bool = False


@dataclass(frozen=True)
class Recall:
    """Average recall of class-agnostic proposals, as fractions of 1 (FPN paper, Table 1).

    Of the best 100 or 1000 proposals per image, the mean over IoU 0.5 to 0.95; by size at 1000.
    None where there is no ground truth. `proposals` is their number on all images. `ap_ci95` and
    `draws` are of `ar1000`, as those of `Accuracy` are of AP.
    """

    variant: str
    dataset: str
    images: int
    proposals: int
    checkpoint: str | None
    ar100: float | None
    ar1000: float | None
    ar1000_small: float | None
    ar1000_medium: float | None
    ar1000_large: float | None
    ap_ci95: tuple[float, float] | None = None
    draws: tuple[float, ...] = ()
    drawn_from: str = ""
    refereed: bool = False
