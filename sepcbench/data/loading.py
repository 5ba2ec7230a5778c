"""Batches: shuffled and resumable for training, every image exactly once for evaluation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from sepcbench.data.annotations import ImageEntry
from sepcbench.data.coco import CocoData
from sepcbench.data.proposals import Proposals
from sepcbench.data.transforms import (
    Prepared,
    flip,
    flip_boxes,
    pad_stack,
    padded_size,
    prepare,
    read_rgb,
    resize_masks,
    scale_boxes,
)
from sepcbench.errors import DataError
from sepcbench.specs import Conventions

# resized images kept in memory while training; larger sets are read again each time
CACHE_BYTES = 1 << 30


class EvaluationBatch(NamedTuple):
    """Images of one padded shape, (N, 3, H, W), and per image its id and sizes.

    `sizes` (h, w) of the resized images, `originals` (h, w) of the files, `scales` between them.
    `proposals` (r, 4) xyxy of each image in resized pixels, if asked for.
    """

    images: Tensor
    image_ids: list[int]
    sizes: list[tuple[int, int]]
    scales: list[tuple[float, float]]
    originals: list[tuple[int, int]]
    proposals: list[Tensor] | None = None


class TrainingBatch(NamedTuple):
    """Images (N, 3, H, W), their sizes (h, w), and boxes (g, 4) xyxy and labels (g,) of each.

    If asked for, also `masks` (g, h, w) bool and `proposals` (r, 4) xyxy of each.
    """

    images: Tensor
    sizes: list[tuple[int, int]]
    boxes: list[Tensor]
    labels: list[Tensor]
    masks: list[Tensor] | None = None
    proposals: list[Tensor] | None = None


def evaluation_batches(
    data: CocoData, conventions: Conventions, batch: int = 1, proposals: Proposals | None = None
) -> Iterator[EvaluationBatch]:
    """Go through every image once; only images of the same padded shape share a batch.

    Padding changes AP, so a larger batch never pads an image more than batch 1 would. With
    `proposals` each batch brings those of its images.
    """
    waiting: dict[tuple[int, int], list[tuple[ImageEntry, Prepared]]] = {}
    for entry in data.images:
        item = prepare(read_rgb(data.path(entry)), conventions)
        shape = padded_size(item.size, conventions.pad_divisor)
        group = waiting.setdefault(shape, [])
        group.append((entry, item))
        if len(group) == batch:
            yield _evaluation_batch(waiting.pop(shape), conventions, proposals)
    for group in waiting.values():
        yield _evaluation_batch(group, conventions, proposals)


def _evaluation_batch(
    group: list[tuple[ImageEntry, Prepared]], conventions: Conventions, proposals: Proposals | None
) -> EvaluationBatch:
    given = None
    if proposals is not None:
        given = [_scaled(proposals, entry.id, item) for entry, item in group]
    return EvaluationBatch(
        images=pad_stack([item.image for _, item in group], conventions.pad_divisor),
        image_ids=[entry.id for entry, _ in group],
        sizes=[item.size for _, item in group],
        scales=[item.scale for _, item in group],
        originals=[item.original for _, item in group],
        proposals=given,
    )


def _scaled(proposals: Proposals, image_id: int, item: Prepared) -> Tensor:
    """The proposals of one image in pixels of the resized image."""
    return scale_boxes(torch.from_numpy(proposals.of(image_id)), item.scale)


class _Loaded(NamedTuple):
    """One image for training with what was asked for; see `TrainingBatch`."""

    image: Tensor
    boxes: Tensor
    labels: Tensor
    masks: Tensor | None
    proposals: Tensor | None

    def mirrored(self) -> _Loaded:
        image, boxes = flip(self.image, self.boxes)
        masks = None if self.masks is None else self.masks.flip(-1)
        proposals = self.proposals
        if proposals is not None:
            proposals = flip_boxes(proposals, image.shape[-1])
        return _Loaded(image, boxes, self.labels, masks, proposals)

    @property
    def nbytes(self) -> int:
        return sum(part.nbytes for part in self if part is not None)


class TrainingLoader:
    """Shuffled batches without end. What batch number i holds depends on the seed and i alone.

    So training resumes at the exact position from the iteration number. Each epoch goes through
    all images in a new order; a batch may span two epochs.
    """

    def __init__(
        self,
        data: CocoData,
        conventions: Conventions,
        *,
        batch: int,
        flip: float,
        seed: int,
        masks: bool = False,
        proposals: Proposals | None = None,
    ) -> None:
        """Prepare to load.

        Args:
            data: the set; images without objects belong to it too.
            conventions: how images are resized, normalised and padded.
            batch: images per batch.
            flip: share of images that are mirrored.
            seed: of order and mirroring.
            masks: whether batches bring the masks of the objects.
            proposals: of every image, if batches are to bring them.
        """
        self.data, self.conventions = data, conventions
        self.batch, self.flip, self.seed = batch, flip, seed
        self.masks, self.proposals = masks, proposals
        self._cache: dict[int, _Loaded] = {}
        self._cached_bytes = 0
        self._order: tuple[int, list[int]] = (-1, [])

    def __getitem__(self, iteration: int) -> TrainingBatch:
        """The batch of one iteration, counted from 0."""
        start = iteration * self.batch
        items = [self._item(position) for position in range(start, start + self.batch)]
        masks = [item.masks for item in items if item.masks is not None]
        proposals = [item.proposals for item in items if item.proposals is not None]
        return TrainingBatch(
            images=pad_stack([item.image for item in items], self.conventions.pad_divisor),
            sizes=[(item.image.shape[1], item.image.shape[2]) for item in items],
            boxes=[item.boxes for item in items],
            labels=[item.labels for item in items],
            masks=masks if self.masks else None,
            proposals=proposals if self.proposals is not None else None,
        )

    def _item(self, position: int) -> _Loaded:
        epoch, place = divmod(position, len(self.data.images))
        if self._order[0] != epoch:
            order = torch.randperm(len(self.data.images), generator=self._generator(0, epoch))
            self._order = (epoch, order.tolist())
        item = self._load(self._order[1][place])
        mirrored = torch.rand((), generator=self._generator(1, position)) < self.flip
        return item.mirrored() if mirrored else item

    def _generator(self, purpose: int, number: int) -> torch.Generator:
        mixed = (self.seed * 2 + purpose) * 1_000_003 + number
        return torch.Generator().manual_seed(mixed)

    def _load(self, index: int) -> _Loaded:
        if index in self._cache:
            return self._cache[index]
        entry = self.data.images[index]
        item = prepare(read_rgb(self.data.path(entry)), self.conventions)
        objects = self.data.objects(entry.id)
        loaded = _Loaded(
            image=item.image,
            boxes=scale_boxes(torch.from_numpy(objects.boxes), item.scale),
            labels=torch.from_numpy(objects.labels),
            masks=self._masks(entry, item) if self.masks else None,
            proposals=_scaled(self.proposals, entry.id, item) if self.proposals else None,
        )
        if self._cached_bytes + loaded.nbytes <= CACHE_BYTES:
            self._cache[index] = loaded
            self._cached_bytes += loaded.nbytes
        return loaded

    def _masks(self, entry: ImageEntry, item: Prepared) -> Tensor:
        check_size(entry, item.original, self.data)
        return resize_masks(torch.from_numpy(self.data.masks(entry)), item.size)


def check_size(entry: ImageEntry, size: tuple[int, int], data: CocoData) -> None:
    """Check that an image file has the size (h, w) that its masks are annotated at.

    Raises:
        DataError: it has not.
    """
    if size != (entry.height, entry.width):
        raise DataError(
            f"image '{data.path(entry)}' is of {size[0]}x{size[1]} pixels (height x width), "
            f"annotated as {entry.height}x{entry.width}; masks need the right size"
        )
