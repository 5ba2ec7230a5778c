"""Detectors: backbone, chain of necks and head; images in, detections out."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from sepcbench.backbones import BACKBONES
from sepcbench.errors import UsageError
from sepcbench.heads import HEADS, Detections, LevelOutput, RoiOutput, Scene
from sepcbench.necks import NECKS
from sepcbench.ops.pyramid import Pyramid, PyramidPair
from sepcbench.specs import Conventions, VariantSpec

ImageSizes = Sequence[tuple[int, int]]
ScaleFactors = Sequence[float | Sequence[float]] | None
Outputs = list[LevelOutput] | RoiOutput


class Detector(nn.Module):
    """One complete detector.

    Attributes:
        spec: what it was built from.
        backbone: images (N, 3, H, W) to C2..C5.
        necks: applied one after the other.
        head: pyramid or pyramid pair to raw predictions.
    """

    def __init__(self, spec: VariantSpec) -> None:
        super().__init__()
        _check_chain(spec)
        self.spec = spec
        self.backbone = BACKBONES[type(spec.backbone)](spec.backbone)
        channels: tuple[int, ...] = self.backbone.channels  # type: ignore[assignment]
        self.necks = nn.ModuleList()
        for neck_spec in spec.necks:
            neck = NECKS[type(neck_spec)](neck_spec, channels)
            channels = neck.out_channels  # type: ignore[assignment]
            self.necks.append(neck)
        self.head = HEADS[type(spec.head)](
            spec.head, channels, spec.num_classes, spec.strides, spec.conventions
        )

    def features(self, images: Tensor) -> Pyramid:
        """Compute C2..C5 of normalised images (N, 3, H, W)."""
        return self.backbone(images)  # type: ignore[no-any-return]

    def fuse(self, features: Pyramid) -> Pyramid | PyramidPair:
        """Apply all necks to C2..C5."""
        pyramid: Pyramid | PyramidPair = features
        for neck in self.necks:
            pyramid = neck(pyramid)
        return pyramid

    def forward(self, images: Tensor, scene: Scene | None = None) -> Outputs:
        """Compute the raw predictions of normalised images (N, 3, H, W), level by level.

        Args:
            images: the batch.
            scene: for two stages: sizes without padding, and proposals if they are given. By
                default the images have no padding.
        """
        return self.head(self.fuse(self.features(images)), scene)  # type: ignore[no-any-return]

    def decode(
        self,
        outputs: Outputs,
        image_sizes: ImageSizes,
        scale_factors: ScaleFactors = None,
        padded: tuple[int, int] | None = None,
    ) -> list[Detections]:
        """Turn raw predictions into detections.

        Args:
            outputs: of `forward`.
            image_sizes: (height, width) of each resized, unpadded image.
            scale_factors: per image, what boxes are divided by: a float or (x, y); None for 1.
            padded: (height, width) of the batch; by default the smallest the images fit in.
        """
        padded = padded or padded_size(image_sizes, self.spec.conventions.pad_divisor)
        return self.head.decode(outputs, image_sizes, scale_factors, padded)  # type: ignore

    @torch.no_grad()
    def detect(
        self,
        images: Tensor,
        image_sizes: ImageSizes,
        scale_factors: ScaleFactors = None,
        proposals: Sequence[Tensor] | None = None,
    ) -> list[Detections]:
        """Detect objects, in eval mode, without gradients.

        Args:
            images: (N, 3, H, W), normalised, padded at the right and the bottom.
            image_sizes: (height, width) of each image without padding.
            scale_factors: per image, what boxes are divided by: a float or (x, y); None for 1.
            proposals: per image, boxes (r, 4) xyxy in resized pixels for a second stage without
                an RPN; `heads.rcnn.fixed_boxes` if there are none. With an RPN, instead of its own.

        Returns:
            Per image `boxes` (n, 4) xyxy, `scores` (n,), `labels` (n,) 0-based; `masks` from a
            mask head.
        """
        _check_sizes(images, image_sizes)
        padded = (images.shape[2], images.shape[3])
        training = self.training
        if training:
            self.eval()
        try:
            outputs = self(images, Scene(padded, image_sizes, proposals))
            return self.decode(outputs, image_sizes, scale_factors, padded)
        finally:
            if training:
                self.train()

    def under(self, conventions: Conventions) -> Detector:
        """The same detector, weights shared, with other conventions."""
        twin, head = copy.copy(self), copy.copy(self.head)
        head.conventions = conventions  # type: ignore[assignment]
        twin.spec = replace(self.spec, conventions=conventions)
        twin._modules = {**self._modules, "head": head}
        return twin

    def parts(self) -> dict[str, tuple[str, ...]]:
        """Module-path prefixes of the parts that costs are split into.

        `backbone`, `neck` and `head` cover everything; `tower` is the conv towers of the head
        wherever they are, without predictions (appendix 1 of the SEPC paper).
        """
        towers = [f"necks.{i}" for i, neck in enumerate(self.spec.necks) if neck.tower]
        names: tuple[str, ...] = self.head.towers  # type: ignore[assignment]
        own = [f"head.{name}" for name in names]
        return {
            "backbone": ("backbone",),
            "neck": ("necks",),
            "head": ("head",),
            "tower": (*towers, *own),
        }

    def repeats(self) -> dict[str, int]:
        """Paths of modules that see every RoI, and how many RoIs of an image that are at most."""
        own: dict[str, int] = self.head.repeats()  # type: ignore[operator]
        return {f"head.{name}": count for name, count in own.items()}

    def run_all(self, images: Tensor, rois: Mapping[str, int]) -> list[Tensor]:
        """Run every module on images (N, 3, H, W), those of `repeats` on fixed boxes.

        For counting: how many RoIs there are depends neither on the weights nor on the images.

        Args:
            images: the batch; an empty one has no RoIs.
            rois: RoIs per image for each path of `repeats`, of which there are some.

        Returns:
            All tensors that come out.
        """
        inside = {path.removeprefix("head."): count for path, count in rois.items()}
        return self.head.run_all(self.fuse(self.features(images)), inside)  # type: ignore


def build(spec: VariantSpec, *, init: bool = True, seed: int | None = None) -> Detector:
    """Build a detector.

    Args:
        spec: of the variant.
        init: initialise the weights; without, they are whatever memory holds, which is enough
            for counting and much faster.
        seed: of the weights; torch's random state is left as it was. None draws from that state.

    Raises:
        UsageError: the parts do not fit each other.
    """
    if init and seed is not None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return Detector(spec)
    if init:
        return Detector(spec)
    with torch.device("meta"):
        detector = Detector(spec)
    return detector.to_empty(device="cpu")


def padded_size(image_sizes: ImageSizes, divisor: int) -> tuple[int, int]:
    """The smallest (height, width) with sides of a multiple of `divisor` that holds all images."""
    tallest = max((size[0] for size in image_sizes), default=divisor)
    widest = max((size[1] for size in image_sizes), default=divisor)
    return math.ceil(tallest / divisor) * divisor, math.ceil(widest / divisor) * divisor


def _check_chain(spec: VariantSpec) -> None:
    """Only the last neck may give a pyramid pair, to a head with towers: nothing else reads one."""
    if spec.necks[-1].tower and not spec.head.reads_pairs:
        raise UsageError(
            f"variant '{spec.name}': neck '{spec.necks[-1].TYPE}' gives a pyramid pair, which head "
            f"'{spec.head.TYPE}' cannot read; for two stages set its field branches to none"
        )
    for i, neck in enumerate(spec.necks[:-1]):
        if neck.tower:
            raise UsageError(
                f"variant '{spec.name}': neck {i} '{neck.TYPE}' gives a pyramid pair, which only a "
                "head reads; put it last"
            )


def _check_sizes(images: Tensor, image_sizes: ImageSizes) -> None:
    if len(image_sizes) != images.shape[0]:
        raise UsageError(
            f"detect got {images.shape[0]} images but {len(image_sizes)} image sizes; "
            "give one (height, width) per image"
        )
