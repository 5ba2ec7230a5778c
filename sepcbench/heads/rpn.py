"""Region proposal network (Ren et al., arXiv 1506.01497), shared by the levels of a pyramid."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sepcbench.errors import UsageError
from sepcbench.heads.dense import Scale, divisor_of
from sepcbench.heads.outputs import Detections, LevelOutput, Scene, cells_first
from sepcbench.ops.anchors import pyramid_anchors
from sepcbench.ops.boxes import centres_and_sizes, clip, decode
from sepcbench.ops.convs import init_tower_conv
from sepcbench.ops.nms import batched_nms
from sepcbench.ops.pyramid import Pyramid
from sepcbench.specs import Conventions, RpnSpec

BOX_STDS = (1.0, 1.0, 1.0, 1.0)


class RpnHead(nn.Module):
    """A 3x3 conv with ReLU, then 1x1 convs for one logit and four deltas of every anchor.

    Alone it is a class-agnostic detector.

    Args:
        spec: of the head.
        in_channels: one per level, all equal.
        num_classes: not used.
        strides: one per level, in pixels.
        conventions: of anchors, boxes and NMS.

    Attributes:
        towers: the names of the modules that are conv towers: none.
    """

    towers: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        spec: RpnSpec,
        in_channels: Sequence[int],
        num_classes: int,
        strides: Sequence[int],
        conventions: Conventions,
    ) -> None:
        super().__init__()
        if len(set(in_channels)) != 1:
            raise UsageError(f"head '{spec.TYPE}' needs equal channels on all levels")
        self.spec, self.conventions, self.strides = spec, conventions, tuple(strides)
        self.num_anchors = len(spec.scales) * len(spec.ratios)
        self.conv = nn.Conv2d(in_channels[0], spec.channels, 3, padding=1)
        self.cls_pred = nn.Conv2d(spec.channels, self.num_anchors, 1)
        self.box_pred = nn.Conv2d(spec.channels, self.num_anchors * 4, 1)
        init_tower_conv(self.conv)
        for conv in (self.cls_pred, self.box_pred):
            nn.init.normal_(conv.weight, std=0.01)
            nn.init.zeros_(conv.bias)  # type: ignore[arg-type]

    def repeats(self) -> dict[str, int]:
        """Per-RoI modules: none without a second stage."""
        return {}

    def forward(self, pyramid: Pyramid, scene: Scene | None = None) -> list[LevelOutput]:
        """Predict (N, A, H, W) logits and (N, A*4, H, W) deltas of every level."""
        hidden = [F.relu(self.conv(level)) for level in pyramid]
        return [LevelOutput(self.cls_pred(x), self.box_pred(x)) for x in hidden]

    def anchors(
        self, outputs: Sequence[LevelOutput], padded: tuple[int, int], how: Conventions
    ) -> list[Tensor]:
        """The anchors of every level, (H*W*A, 4) in the order of `cells_first`."""
        sizes = [[scale * stride for scale in self.spec.scales] for stride in self.strides]
        maps = [output.cls for output in outputs]
        return pyramid_anchors(maps, self.strides, sizes, self.spec.ratios, padded, how)

    @torch.no_grad()
    def propose(
        self, outputs: Sequence[LevelOutput], scene: Scene, how: Conventions | None = None
    ) -> list[Detections]:
        """The best boxes of each image, best first, in resized pixels and all with label 0.

        The best anchors of each level become boxes, those of one level suppress each other, and
        the best of all levels are kept.

        Args:
            outputs: of `forward`.
            scene: padded size and image sizes.
            how: of anchors, boxes and NMS; by default the head's own.
        """
        how = how or self.conventions
        grids = self.anchors(outputs, scene.padded, how)
        logits = [cells_first(output.cls.detach().float(), 1).squeeze(2) for output in outputs]
        deltas = [cells_first(output.box.detach().float(), 4) for output in outputs]
        return [
            self._of_image([x[i] for x in logits], [d[i] for d in deltas], grids, size, how)
            for i, size in enumerate(scene.sizes)
        ]

    def _of_image(
        self,
        logits: list[Tensor],
        deltas: list[Tensor],
        grids: list[Tensor],
        size: tuple[int, int],
        how: Conventions,
    ) -> Detections:
        """Levels of one image: logits (cells,), deltas (cells, 4), grids (cells, 4)."""
        spec = self.spec
        before = spec.train_before_nms if self.training else spec.before_nms
        limit = spec.train_proposals if self.training else spec.proposals
        levels = []
        for number, (level, values, anchors) in enumerate(zip(logits, deltas, grids, strict=True)):
            best, chosen = level.topk(min(before, len(level)))
            boxes = clip(decode(anchors[chosen], values[chosen], BOX_STDS, how), size, how)
            levels.append(Detections(boxes, best.sigmoid(), torch.full_like(chosen, number)))
        boxes, scores, number_of = (torch.cat(parts) for parts in zip(*(x[:3] for x in levels)))
        rows = has_sides(boxes, how).nonzero().squeeze(1)
        boxes, scores, number_of = boxes[rows], scores[rows], number_of[rows]
        kept = batched_nms(boxes, scores, number_of, spec.nms_iou, how.nms_offset)[:limit]
        return Detections(boxes[kept], scores[kept], torch.zeros_like(number_of[kept]))

    def decode(
        self,
        outputs: Sequence[LevelOutput],
        image_sizes: Sequence[tuple[int, int]],
        scale_factors: Sequence[Scale] | None,
        padded: tuple[int, int],
    ) -> list[Detections]:
        """Turn raw predictions into proposals: label 0, the score is the objectness.

        Args:
            outputs: of `forward`.
            image_sizes: (height, width) of each resized, unpadded image.
            scale_factors: per image, what boxes are divided by: a float or (x, y); None for 1.
            padded: (height, width) of the padded batch.
        """
        found = self.propose(outputs, Scene(padded, image_sizes))
        factors = scale_factors if scale_factors is not None else [1.0] * len(found)
        return [
            image._replace(boxes=image.boxes / divisor_of(factor, image.boxes))
            for image, factor in zip(found, factors, strict=True)
        ]


def has_sides(boxes: Tensor, how: Conventions) -> Tensor:
    """Which proposals (n, 4) have both sides above `how.proposal_min_size`, (n,) bool."""
    _, sizes = centres_and_sizes(boxes, how.box_offset)
    return (sizes > how.proposal_min_size).all(dim=1)
