"""Two-stage heads: Faster R-CNN's and Mask R-CNN's on a pyramid, and Fast R-CNN's on given boxes.

arXiv 1506.01497, 1612.03144 (section 4.2), 1703.06870.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from sepcbench.errors import UsageError
from sepcbench.heads.box_head import BoxHead, without_background
from sepcbench.heads.dense import Scale, divisor_of, select
from sepcbench.heads.mask_head import MaskHead
from sepcbench.heads.outputs import Detections, LevelOutput, Scene
from sepcbench.heads.rpn import RpnHead
from sepcbench.ops.boxes import clip, decode
from sepcbench.ops.pyramid import Pyramid
from sepcbench.ops.rois import join_images, pool_pyramid
from sepcbench.specs import Conventions, RcnnSpec

COARSEST_STRIDE = 32  # of the levels that RoIs are read from: P5
FIXED_BOXES = 1000


class RoiOutput(NamedTuple):
    """What a two-stage head gives.

    `pyramid` and, with an RPN, its maps; in eval mode also the proposals of each image (r_i, 4),
    and for all of them in one row after the other `cls` (r, K + 1) logits and `box` (r, 4 *
    columns) deltas, found under `conventions`.
    """

    pyramid: Pyramid
    rpn: list[LevelOutput] | None
    proposals: list[Tensor] | None = None
    cls: Tensor | None = None
    box: Tensor | None = None
    conventions: Conventions | None = None


class RcnnHead(nn.Module):
    """An RPN if the spec has one, RoIAlign, box head, and mask head if the spec has one.

    In training mode `forward` gives only the maps: the objective samples the RoIs.

    Args:
        spec: of the head.
        in_channels: one per level, all equal.
        num_classes: K, without background.
        strides: one per level, in pixels. RoIs are read from those up to 32, or the only one.
        conventions: of anchors, boxes, RoIs and selection.

    Attributes:
        towers: the names of the modules that are conv towers: none.
    """

    towers: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        spec: RcnnSpec,
        in_channels: Sequence[int],
        num_classes: int,
        strides: Sequence[int],
        conventions: Conventions,
    ) -> None:
        super().__init__()
        if len(set(in_channels)) != 1:
            raise UsageError(f"head '{spec.TYPE}' needs equal channels on all levels")
        self.spec, self.conventions = spec, conventions
        self.num_classes, self.strides = num_classes, tuple(strides)
        self.roi_strides = [s for s in strides if s <= COARSEST_STRIDE] or list(strides[:1])
        self.rpn = None
        if spec.rpn is not None:
            self.rpn = RpnHead(spec.rpn, in_channels, num_classes, strides, conventions)
        self.box_head = BoxHead(spec, in_channels[0], num_classes)
        self.mask_head = None
        if spec.mask is not None:
            self.mask_head = MaskHead(spec, in_channels[0], num_classes)

    def forward(self, pyramid: Pyramid, scene: Scene | None = None) -> RoiOutput:
        """Predict on the levels (N, C, H, W) of a pyramid.

        Args:
            pyramid: of the necks.
            scene: sizes of the images; by default there is no padding. Its proposals are used
                instead of the RPN's; without an RPN and without any, `fixed_boxes` are.
        """
        rpn = None if self.rpn is None else self.rpn(pyramid)
        if self.training:
            return RoiOutput(pyramid, rpn)
        return self.second_stage(pyramid, rpn, scene or self._unpadded(pyramid))

    def second_stage(
        self, pyramid: Pyramid, rpn: list[LevelOutput] | None, scene: Scene
    ) -> RoiOutput:
        """The box head's predictions for every proposal, from the maps of the first stage."""
        # which level a box is read from needs its values, also where maps are only shapes
        device = None if pyramid[0].is_meta else pyramid[0].device
        proposals = self.proposals(rpn, scene, device)
        cls, box = self.box_head(self.pool(pyramid, proposals, self.spec.pool_size))
        return RoiOutput(pyramid, rpn, proposals, cls, box, self.conventions)

    def proposals(
        self, rpn: Sequence[LevelOutput] | None, scene: Scene, device: torch.device | None = None
    ) -> list[Tensor]:
        """The boxes (r_i, 4) of each image to look at, in resized pixels, on `device`.

        Raises:
            UsageError: the proposals given are not of as many images as there are.
        """
        if scene.proposals is not None:
            _check_given(scene)
            return [boxes.to(device) for boxes in scene.proposals]
        if self.rpn is not None and rpn is not None:
            return [found.boxes for found in self.rpn.propose(rpn, scene, self.conventions)]
        return [fixed_boxes(scene.padded, FIXED_BOXES).to(device) for _ in scene.sizes]

    def pool(self, pyramid: Pyramid, boxes: Sequence[Tensor], size: int) -> Tensor:
        """RoIAlign of the boxes of each image: (r, C, size, size), image after image."""
        levels = pyramid[: len(self.roi_strides)]
        rois = join_images(boxes, pyramid[0].float())
        canonical = self.spec.canonical_size
        return pool_pyramid(levels, rois, self.roi_strides, size, canonical, self.conventions)

    def decode(
        self,
        outputs: RoiOutput,
        image_sizes: Sequence[tuple[int, int]],
        scale_factors: Sequence[Scale] | None,
        padded: tuple[int, int],
    ) -> list[Detections]:
        """Turn raw predictions into detections, with masks if there is a mask head.

        Where the conventions have changed since `forward`, the second stage runs again.

        Args:
            outputs: of `forward` in eval mode.
            image_sizes: (height, width) of each resized, unpadded image.
            scale_factors: per image, what boxes are divided by: a float or (x, y); None for 1.
            padded: (height, width) of the padded batch.
        """
        if outputs.conventions != self.conventions:
            given = outputs.proposals if self.rpn is None else None
            scene = Scene(padded, image_sizes, given)
            outputs = self.second_stage(outputs.pyramid, outputs.rpn, scene)
        assert outputs.proposals is not None
        assert outputs.cls is not None
        assert outputs.box is not None
        counts = [len(boxes) for boxes in outputs.proposals]
        rows = zip(outputs.proposals, outputs.cls.split(counts), outputs.box.split(counts))
        factors = scale_factors if scale_factors is not None else [1.0] * len(image_sizes)
        found = [
            self._decode_image(*image, size, factor)
            for image, size, factor in zip(rows, image_sizes, factors, strict=True)
        ]
        return found if self.mask_head is None else self._with_masks(outputs, found, factors)

    def _decode_image(
        self, rois: Tensor, cls: Tensor, box: Tensor, size: tuple[int, int], factor: Scale
    ) -> Detections:
        """Rois (r, 4), logits (r, K + 1) and deltas (r, 4 * columns) of one image."""
        how, spec = self.conventions, self.spec
        scores = cls.detach().float().softmax(dim=1)
        scores = scores[:, 1:] if spec.background == "first" else scores[:, :-1]
        deltas = without_background(box.detach().float().unflatten(1, (-1, 4)), spec)
        rows, labels = (scores > how.score_threshold).nonzero(as_tuple=True)
        boxes = clip(decode(rois[rows], deltas[rows, labels], spec.box_stds, how), size, how)
        large = (boxes[:, 2:] - boxes[:, :2] >= how.detection_min_size).all(dim=1)
        rows, labels, boxes = rows[large], labels[large], boxes[large]
        return select([Detections(boxes, scores[rows, labels], labels)], size, factor, how)

    @torch.no_grad()
    def _with_masks(
        self, outputs: RoiOutput, found: list[Detections], factors: Sequence[Scale]
    ) -> list[Detections]:
        if not found:
            return []
        boxes = [
            image.boxes * divisor_of(factor, image.boxes) for image, factor in zip(found, factors)
        ]
        logits = self.masks(outputs.pyramid, boxes)
        labels = torch.cat([image.labels for image in found])
        chosen = logits[torch.arange(len(labels), device=labels.device), labels].float().sigmoid()
        masks = chosen.split([len(image.labels) for image in found])
        return [image._replace(masks=mask) for image, mask in zip(found, masks)]

    def masks(self, pyramid: Pyramid, boxes: Sequence[Tensor]) -> Tensor:
        """Mask logits (r, K, m, m) of the boxes of each image, image after image."""
        assert self.mask_head is not None
        assert self.spec.mask is not None
        features = self.pool(pyramid, boxes, self.spec.mask.pool_size)
        return without_background(self.mask_head(features), self.spec)

    def repeats(self) -> dict[str, int]:
        """Per-RoI modules, and how many RoIs of an image they see at most."""
        rois = FIXED_BOXES if self.spec.rpn is None else self.spec.rpn.proposals
        masks = {} if self.mask_head is None else {"mask_head": self.conventions.max_detections}
        return {"box_head": rois, **masks}

    def run_all(self, pyramid: Pyramid, rois: Mapping[str, int]) -> list[Tensor]:
        """Run every module once, on fixed boxes: `rois` of them per image for each in `repeats`.

        Gives all that comes out.
        """
        scene = self._unpadded(pyramid)
        boxes = {
            name: [fixed_boxes(scene.padded, count)] * len(scene.sizes)
            for name, count in rois.items()
        }
        given = self(pyramid, scene._replace(proposals=boxes["box_head"]))
        maps = [x for level in given.rpn or [] for x in (level.cls, level.box)]
        masks = [] if self.mask_head is None else [self.masks(pyramid, boxes["mask_head"])]
        return [given.cls, given.box, *maps, *masks]

    def _unpadded(self, pyramid: Pyramid) -> Scene:
        height, width = (int(side) * self.strides[0] for side in pyramid[0].shape[2:])
        return Scene((height, width), [(height, width)] * int(pyramid[0].shape[0]))


def _check_given(scene: Scene) -> None:
    given, images = len(scene.proposals or ()), len(scene.sizes)
    if given != images:
        raise UsageError(
            f"there are proposals of {given} images for a batch of {images}; give one (r, 4) "
            "tensor per image"
        )


def fixed_boxes(size: tuple[int, int], count: int) -> Tensor:
    """Boxes (count, 4) all over an image (height, width), in ten sizes from a 32nd of it to all.

    They stand in for proposals where only their number matters: counting and timing.
    """
    height, width = size
    number = torch.arange(count, device="cpu")
    share = 2.0 ** (-0.5 * (number % 10) - 0.5)
    side = math.ceil(math.sqrt(math.ceil(max(count, 1) / 10)))
    place = number // 10
    x, y = (place % side + 0.5) / side, (place // side + 0.5) / side
    centre = torch.stack([x * width, y * height], dim=1)
    half = torch.stack([share * width, share * height], dim=1) / 2
    limit = torch.tensor([width, height, width, height], device="cpu")
    return torch.cat([centre - half, centre + half], dim=1).clamp(min=0).minimum(limit)
