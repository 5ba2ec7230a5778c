"""Two-stage heads as frozen data: proposals, and what is made of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from sepcbench.errors import require
from sepcbench.specs.names import Need
from sepcbench.specs.parts import AnyHead


@dataclass(frozen=True)
class RpnSpec(AnyHead):
    """Region proposal network (arXiv 1506.01497) on a pyramid (arXiv 1612.03144, section 4.1).

    A 3x3 conv and two 1x1 siblings, shared by all levels. On a level of stride s, anchors have the
    sizes `scales` * s in every one of `ratios` (height/width): one size per level on a pyramid,
    all sizes on a single level. `before_nms` candidates per level and `proposals` per image are
    kept, `train_before_nms` and `train_proposals` of them to train a second stage on.
    """

    TYPE: ClassVar[str] = "rpn"
    channels: int = 256
    scales: tuple[float, ...] = (8.0,)
    ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    before_nms: int = 1000
    proposals: int = 1000
    train_before_nms: int = 2000
    train_proposals: int = 1000
    nms_iou: float = 0.7
    positive_iou: float = 0.7
    negative_iou: float = 0.3
    samples: int = 256
    positive_share: float = 0.5
    smooth_l1_beta: float = 1 / 9

    def __post_init__(self) -> None:
        require(bool(self.scales) and min(self.scales) > 0, "scales are one or more, above 0")
        require(bool(self.ratios), "ratios needs at least one value")
        require(self.proposals >= 1, "proposals is at least 1")
        require(self.samples >= 1, "samples is at least 1")
        require(0 < self.positive_share <= 1, "positive_share is above 0 and at most 1")

    @property
    def gives_proposals(self) -> bool:
        """Always: it knows no classes."""
        return True


@dataclass(frozen=True)
class MaskSpec:
    """Mask R-CNN's mask head (arXiv 1703.06870, figure 4 right): convs, one deconv, 1x1 conv."""

    TYPE: ClassVar[str] = "mask"
    depth: int = 4
    channels: int = 256
    pool_size: int = 14
    threshold: float = 0.5


@dataclass(frozen=True)
class RcnnSpec(AnyHead):
    """Faster R-CNN's head: RPN, RoIAlign, box head; with `mask` Mask R-CNN's; without `rpn` Fast's.

    A RoI of area wh is pooled from level floor(4 + log2(sqrt(wh) / canonical_size)), bounded by
    the levels of strides up to 32 (arXiv 1612.03144, equation 1). The box head is two fully
    connected layers (`2fc`) or the last ResNet stage (`conv5`, on a C4 baseline).

    `background="last"` has it in the last column of the class logits, and boxes and masks of the
    classes alone; `"first"` in the first, and boxes and masks of it too (mmdetection 1.1,
    torchvision), which nothing reads.
    """

    TYPE: ClassVar[str] = "rcnn"
    rpn: RpnSpec | None = RpnSpec()
    box_head: Literal["2fc", "conv5"] = "2fc"
    fc_channels: int = 1024
    pool_size: int = 7
    canonical_size: float = 224.0
    box_stds: tuple[float, float, float, float] = (0.1, 0.1, 0.2, 0.2)
    positive_iou: float = 0.5
    samples: int = 512
    positive_share: float = 0.25
    smooth_l1_beta: float = 1.0
    mask: MaskSpec | None = None
    background: Literal["last", "first"] = "last"

    def __post_init__(self) -> None:
        require(self.pool_size >= 1, "pool_size is at least 1")
        require(self.canonical_size > 0, "canonical_size is above 0")
        require(self.samples >= 1, "samples is at least 1")

    @property
    def has_last_stage(self) -> bool:
        """As its box head, on a C4 baseline."""
        return self.box_head == "conv5"

    @property
    def needs(self) -> frozenset[Need]:
        """Masks for a mask head, proposals without an RPN."""
        masks: set[Need] = set() if self.mask is None else {"masks"}
        proposals: set[Need] = {"proposals"} if self.rpn is None else set()
        return frozenset(masks | proposals)

    @property
    def mask_threshold(self) -> float | None:
        """The mask head's."""
        return None if self.mask is None else self.mask.threshold
