"""What one-stage heads share: conv towers, and decoding from maps to detections.

A head says what it predicts, where its boxes start from (anchors or points), and how the values of
its box maps become boxes. Scores may be ranked and scaled by a quality map (centerness).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor, nn

from sepcbench.errors import UsageError
from sepcbench.heads.outputs import Detections, LevelOutput, Scene, cells_first
from sepcbench.heads.selection import candidates, suppress
from sepcbench.ops.boxes import clip
from sepcbench.ops.convs import PyramidBlock, SharedConv
from sepcbench.ops.norms import NORMS
from sepcbench.ops.pyramid import Pyramid, PyramidPair, as_pair
from sepcbench.specs import Conventions, TowerSpec

Scale = float | Sequence[float]


class DenseHead(nn.Module, ABC):
    """`spec.depth` 3x3 convs per branch, shared by all levels; then what the head predicts.

    Args:
        spec: of the head.
        in_channels: one per level, all equal.
        num_classes: K, without background.
        strides: one per level, in pixels.
        conventions: of priors, boxes and selection.

    Attributes:
        towers: the names of the modules that are conv towers.
        width: channels of what the towers give.
    """

    towers: ClassVar[tuple[str, ...]] = ("cls_tower", "box_tower")

    def __init__(
        self,
        spec: TowerSpec,
        in_channels: Sequence[int],
        num_classes: int,
        strides: Sequence[int],
        conventions: Conventions,
    ) -> None:
        super().__init__()
        if len(set(in_channels)) != 1:
            raise UsageError(f"head {type(spec).__name__} needs equal channels on all levels")
        self.spec, self.conventions = spec, conventions
        self.num_classes, self.strides = num_classes, tuple(strides)
        self.width = spec.channels if spec.depth else in_channels[0]
        self.cls_tower = _tower(spec, in_channels)
        self.box_tower = _tower(spec, in_channels)

    def forward(
        self, pyramid: Pyramid | PyramidPair, scene: Scene | None = None
    ) -> list[LevelOutput]:
        """Predict; `scene` is not needed in one stage."""
        pair = as_pair(pyramid)
        towers = zip(self.cls_tower(pair.cls), self.box_tower(pair.loc), strict=True)
        return [self.predict(level, cls, box) for level, (cls, box) in enumerate(towers)]

    def repeats(self) -> dict[str, int]:
        """Per-RoI modules: none in one stage."""
        return {}

    @abstractmethod
    def predict(self, level: int, cls: Tensor, box: Tensor) -> LevelOutput:
        """The raw maps of a level from the two towers' (N, width, H, W)."""

    @abstractmethod
    def priors(self, outputs: Sequence[LevelOutput], padded: tuple[int, int]) -> list[Tensor]:
        """What boxes start from on every level: (H*W*A, 4) anchors or (H*W*A, 2) points.

        Args:
            outputs: of the head.
            padded: (height, width) of the padded batch, in pixels.
        """

    @abstractmethod
    def boxes(self, priors: Tensor, values: Tensor) -> Tensor:
        """Boxes (n, 4), not clipped, from n priors and the values (n, 4) of the box maps there."""

    def decode(
        self,
        outputs: Sequence[LevelOutput],
        image_sizes: Sequence[tuple[int, int]],
        scale_factors: Sequence[Scale] | None,
        padded: tuple[int, int],
    ) -> list[Detections]:
        """Turn raw predictions into detections, in the order and number `conventions` says.

        Args:
            outputs: of `forward`.
            image_sizes: (height, width) of each resized, unpadded image.
            scale_factors: per image, what boxes are divided by: a float or (x, y); None for 1.
            padded: (height, width) of the padded batch.
        """
        factors = scale_factors if scale_factors is not None else [1.0] * len(image_sizes)
        found = self.candidates(outputs, image_sizes, padded)
        return [
            select(levels, size, factor, self.conventions)
            for levels, size, factor in zip(found, image_sizes, factors, strict=True)
        ]

    def candidates(
        self,
        outputs: Sequence[LevelOutput],
        image_sizes: Sequence[tuple[int, int]],
        padded: tuple[int, int],
    ) -> list[list[Detections]]:
        """The first half of `decode`: what NMS chooses from, per image and level.

        Args:
            outputs: of `forward`.
            image_sizes: (height, width) of each resized, unpadded image.
            padded: (height, width) of the padded batch.

        Returns:
            Boxes in resized pixels.
        """
        grids = self.priors(outputs, padded)
        levels = [_in_rows(output, self.num_classes) for output in outputs]
        return [
            self._candidates([_of_image(level, i) for level in levels], grids, size)
            for i, size in enumerate(image_sizes)
        ]

    def _candidates(
        self, levels: list[LevelOutput], grids: list[Tensor], size: tuple[int, int]
    ) -> list[Detections]:
        """Levels of one image: cls (cells, K) logits, box (cells, 4), centerness (cells, 1)."""
        how = self.conventions
        found = []
        for level, priors in zip(levels, grids, strict=True):
            quality = None if level.centerness is None else level.centerness.sigmoid().squeeze(1)
            chosen, labels, scores = candidates(level.cls.sigmoid(), how, quality)
            boxes = self.boxes(priors[chosen], level.box[chosen])
            boxes = clip(boxes, size, how) if how.clip == "before_nms" else boxes
            found.append(Detections(boxes, scores, labels))
        return found


def prediction(in_channels: int, out_channels: int, bias: float = 0.0) -> nn.Conv2d:
    """Build a 3x3 conv that predicts a map, starting near `bias`."""
    conv = nn.Conv2d(in_channels, out_channels, 3, padding=1)
    nn.init.normal_(conv.weight, std=0.01)
    nn.init.constant_(conv.bias, bias)  # type: ignore[arg-type]
    return conv


def prior_bias(prior: float) -> float:
    """The logit of the score that training starts from."""
    return -math.log((1 - prior) / prior)


def select(
    levels: Sequence[Detections], size: tuple[int, int], factor: Scale, how: Conventions
) -> Detections:
    """From the candidates of one image, level by level, its detections.

    Args:
        levels: candidates with boxes in resized pixels.
        size: (height, width) of the resized, unpadded image.
        factor: what boxes are divided by: a float or (x, y).
        how: order of dividing, clipping and NMS, and the fields of `suppress`.
    """
    merged = joined(levels)
    divisor = divisor_of(factor, merged.boxes)
    if how.rescale == "before_nms":
        kept = suppress(merged._replace(boxes=merged.boxes / divisor), how)
    else:
        kept = suppress(merged, how)
        kept = kept._replace(boxes=kept.boxes / divisor)
    return kept if how.clip == "before_nms" else _clipped(kept, size, divisor, how)


def joined(parts: Sequence[Detections]) -> Detections:
    """Several detections of one image as one; all have the same fields."""
    fields = ([field for field in column if field is not None] for column in zip(*parts))
    return Detections(*(torch.cat(column) if column else None for column in fields))  # type: ignore


def numbered(levels: Sequence[Detections]) -> list[Detections]:
    """Candidates, level by level, with the number of their level."""
    return [
        level._replace(levels=torch.full_like(level.labels, number))
        for number, level in enumerate(levels)
    ]


def _tower(spec: TowerSpec, in_channels: Sequence[int]) -> nn.Sequential:
    """`spec.depth` times conv, norm, ReLU, shared by all levels."""
    widths = [in_channels[0]] + [spec.channels] * spec.depth
    deform_from = 0 if spec.deform else None
    return nn.Sequential(
        *(
            PyramidBlock(
                SharedConv(before, after, bias=spec.tower_bias, deform_from=deform_from),
                NORMS[spec.norm](after, len(in_channels), spec.groups),
            )
            for before, after in pairwise(widths)
        )
    )


def _in_rows(output: LevelOutput, num_classes: int) -> LevelOutput:
    """The maps that are decoded in float32, a row per prior: (N, H*W*A, K), 4 and 1."""

    def rows(maps: Tensor, size: int) -> Tensor:
        return cells_first(maps.detach().float(), size)

    quality = None if output.centerness is None else rows(output.centerness, 1)
    return LevelOutput(rows(output.cls, num_classes), rows(output.box, 4), quality)


def _of_image(level: LevelOutput, image: int) -> LevelOutput:
    quality = None if level.centerness is None else level.centerness[image]
    return LevelOutput(level.cls[image], level.box[image], quality)


def _clipped(
    found: Detections, size: tuple[int, int], divisor: Tensor, how: Conventions
) -> Detections:
    """Boxes on the original image, clipped to it; those without area are dropped."""
    across, down = divisor[:2].tolist()
    boxes = clip(found.boxes, (size[0] / down, size[1] / across), how)
    rows = (boxes[:, 2:] > boxes[:, :2]).all(dim=1)
    return found._replace(boxes=boxes).at(rows)


def divisor_of(factor: Scale, like: Tensor) -> Tensor:
    """(scale_x, scale_y, scale_x, scale_y) from one float or a pair."""
    x, y = (factor, factor) if isinstance(factor, (int, float)) else factor
    return like.new_tensor([x, y, x, y])
