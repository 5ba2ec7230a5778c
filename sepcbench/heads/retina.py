"""Heads over anchors, as RetinaNet's (Lin et al., arXiv 1708.02002): towers, predictions, decoding.

`AnchorHead` is what such heads share; a head says how its box maps become boxes.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from sepcbench.errors import UsageError
from sepcbench.heads.outputs import Detections, LevelOutput, cells_first
from sepcbench.heads.selection import candidates, suppress
from sepcbench.ops.anchors import cell_anchors, grid_anchors, grid_step, octave_sizes
from sepcbench.ops.boxes import clip, decode
from sepcbench.ops.convs import PyramidBlock, SharedConv
from sepcbench.ops.norms import NORMS
from sepcbench.ops.pyramid import Pyramid, PyramidPair, as_pair
from sepcbench.specs import Conventions, FreeAnchorSpec, RetinaSpec, TowerHeadSpec

Scale = float | Sequence[float]


class AnchorHead(nn.Module, ABC):
    """`spec.depth` shared 3x3 convs per branch, then one 3x3 conv for logits and one for boxes.

    Args:
        spec: of the head.
        in_channels: one per level, all equal.
        num_classes: K, without background.
        strides: one per level, in pixels.
        conventions: of anchors, boxes and selection.
    """

    def __init__(
        self,
        spec: TowerHeadSpec,
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
        self.num_anchors = len(spec.ratios) * spec.scales_per_octave
        width = spec.channels if spec.depth else in_channels[0]
        self.cls_tower = _tower(spec, in_channels)
        self.box_tower = _tower(spec, in_channels)
        self.cls_pred = nn.Conv2d(width, self.num_anchors * num_classes, 3, padding=1)
        self.box_pred = nn.Conv2d(width, self.num_anchors * 4, 3, padding=1)
        _init_prediction(self.cls_pred, bias=-math.log((1 - spec.prior) / spec.prior))
        _init_prediction(self.box_pred, bias=0.0)

    def forward(self, pyramid: Pyramid | PyramidPair) -> list[LevelOutput]:
        pair = as_pair(pyramid)
        cls, box = self.cls_tower(pair.cls), self.box_tower(pair.loc)
        return [
            LevelOutput(self.cls_pred(c), self.activate(self.box_pred(b))) for c, b in zip(cls, box)
        ]

    def activate(self, box: Tensor) -> Tensor:
        """What follows the last conv of the box branch: nothing."""
        return box

    @abstractmethod
    def boxes(self, anchors: Tensor, values: Tensor) -> Tensor:
        """Boxes (n, 4), not clipped, from anchors (n, 4) and values (n, 4) of the box maps."""

    def anchors(self, outputs: Sequence[LevelOutput], padded: tuple[int, int]) -> list[Tensor]:
        """The anchors of every level, (H*W*A, 4) in the order of `cells_first`.

        The grid follows the size of the maps and starts at 0, also where convs without padding
        have shrunk the maps.

        Args:
            outputs: of the head.
            padded: (height, width) of the padded batch, in pixels.
        """
        how, spec = self.conventions, self.spec
        grids = []
        for output, stride in zip(outputs, self.strides, strict=True):
            size = (output.cls.shape[2], output.cls.shape[3])
            sizes = octave_sizes(stride, spec.base_scale, spec.scales_per_octave, how)
            cell = cell_anchors(stride, sizes, spec.ratios, how).to(output.cls.device)
            grids.append(grid_anchors(cell, size, grid_step(stride, size, padded, how)))
        return grids

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
        grids = self.anchors(outputs, padded)
        cls = [cells_first(output.cls.detach().float(), self.num_classes) for output in outputs]
        box = [cells_first(output.box.detach().float(), 4) for output in outputs]
        factors = scale_factors if scale_factors is not None else [1.0] * len(image_sizes)
        return [
            self._decode_image([c[i] for c in cls], [b[i] for b in box], grids, size, factor)
            for i, (size, factor) in enumerate(zip(image_sizes, factors, strict=True))
        ]

    def _decode_image(
        self,
        cls: list[Tensor],
        box: list[Tensor],
        grids: list[Tensor],
        size: tuple[int, int],
        factor: Scale,
    ) -> Detections:
        """Levels of one image: cls (cells, K) logits, box (cells, 4), grids (cells, 4)."""
        how = self.conventions
        found = []
        for logits, values, anchors in zip(cls, box, grids):
            chosen, labels, scores = candidates(logits.sigmoid(), how)
            boxes = self.boxes(anchors[chosen], values[chosen])
            boxes = clip(boxes, size, how) if how.clip == "before_nms" else boxes
            found.append(Detections(boxes, scores, labels))
        merged = Detections(*(torch.cat(parts) for parts in zip(*found)))
        divisor = _divisor(factor, merged.boxes)
        if how.rescale == "before_nms":
            kept = suppress(merged._replace(boxes=merged.boxes / divisor), how)
        else:
            kept = suppress(merged, how)
            kept = kept._replace(boxes=kept.boxes / divisor)
        return kept if how.clip == "before_nms" else _clipped(kept, size, divisor, how)


class RetinaHead(AnchorHead):
    """The head of RetinaNet and FreeAnchor: boxes are deltas of anchors."""

    spec: RetinaSpec | FreeAnchorSpec

    def boxes(self, anchors: Tensor, values: Tensor) -> Tensor:
        return decode(anchors, values, self.spec.box_stds, self.conventions)


def _tower(spec: TowerHeadSpec, in_channels: Sequence[int]) -> nn.Sequential:
    """`spec.depth` times conv, norm, ReLU, shared by all levels."""
    widths = [in_channels[0]] + [spec.channels] * spec.depth
    return nn.Sequential(
        *(
            PyramidBlock(
                SharedConv(before, after, bias=spec.tower_bias),
                NORMS[spec.norm](after, len(in_channels), spec.groups),
            )
            for before, after in pairwise(widths)
        )
    )


def _init_prediction(conv: nn.Conv2d, bias: float) -> None:
    nn.init.normal_(conv.weight, std=0.01)
    nn.init.constant_(conv.bias, bias)  # type: ignore[arg-type]


def _clipped(
    found: Detections, size: tuple[int, int], divisor: Tensor, how: Conventions
) -> Detections:
    """Boxes on the original image, clipped to it; those without area are dropped."""
    across, down = divisor[:2].tolist()
    boxes = clip(found.boxes, (size[0] / down, size[1] / across), how)
    rows = (boxes[:, 2:] > boxes[:, :2]).all(dim=1)
    return Detections(boxes[rows], found.scores[rows], found.labels[rows])


def _divisor(factor: Scale, like: Tensor) -> Tensor:
    """(scale_x, scale_y, scale_x, scale_y) from one float or a pair."""
    x, y = (factor, factor) if isinstance(factor, (int, float)) else factor
    return like.new_tensor([x, y, x, y])
