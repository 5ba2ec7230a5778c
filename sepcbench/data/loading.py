"""Batches: shuffled and resumable for training, every image exactly once for evaluation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from sepcbench.data.annotations import ImageEntry
from sepcbench.data.coco import CocoData
from sepcbench.data.transforms import (
    Prepared,
    flip,
    pad_stack,
    padded_size,
    prepare,
    read_rgb,
    scale_boxes,
)
from sepcbench.specs import Conventions

# resized images kept in memory while training; larger sets are read again each time
CACHE_BYTES = 1 << 30


class EvaluationBatch(NamedTuple):
    """Images of one padded shape, (N, 3, H, W), and per image its id and sizes.

    `sizes` (h, w) of the resized images, `originals` (h, w) of the files, `scales` between them.
    """

    images: Tensor
    image_ids: list[int]
    sizes: list[tuple[int, int]]
    scales: list[tuple[float, float]]
    originals: list[tuple[int, int]]


class TrainingBatch(NamedTuple):
    """Images (N, 3, H, W), their sizes (h, w), and boxes (g, 4) xyxy and labels (g,) of each."""

    images: Tensor
    sizes: list[tuple[int, int]]
    boxes: list[Tensor]
    labels: list[Tensor]


def evaluation_batches(
    data: CocoData, conventions: Conventions, batch: int = 1
) -> Iterator[EvaluationBatch]:
    """Go through every image once; only images of the same padded shape share a batch.

    Padding changes AP, so a larger batch never pads an image more than batch 1 would.
    """
    waiting: dict[tuple[int, int], list[tuple[ImageEntry, Prepared]]] = {}
    for entry in data.images:
        item = prepare(read_rgb(data.path(entry)), conventions)
        shape = padded_size(item.size, conventions.pad_divisor)
        group = waiting.setdefault(shape, [])
        group.append((entry, item))
        if len(group) == batch:
            yield _evaluation_batch(waiting.pop(shape), conventions)
    for group in waiting.values():
        yield _evaluation_batch(group, conventions)


def _evaluation_batch(
    group: list[tuple[ImageEntry, Prepared]], conventions: Conventions
) -> EvaluationBatch:
    return EvaluationBatch(
        images=pad_stack([item.image for _, item in group], conventions.pad_divisor),
        image_ids=[entry.id for entry, _ in group],
        sizes=[item.size for _, item in group],
        scales=[item.scale for _, item in group],
        originals=[item.original for _, item in group],
    )


class TrainingLoader:
    """Shuffled batches without end. What batch number i holds depends on the seed and i alone.

    So training resumes at the exact position from the iteration number. Each epoch goes through
    all images in a new order; a batch may span two epochs.
    """

    def __init__(
        self, data: CocoData, conventions: Conventions, *, batch: int, flip: float, seed: int
    ) -> None:
        """Prepare to load.

        Args:
            data: the set; images without objects belong to it too.
            conventions: how images are resized, normalised and padded.
            batch: images per batch.
            flip: share of images that are mirrored.
            seed: of order and mirroring.
        """
        self.data, self.conventions = data, conventions
        self.batch, self.flip, self.seed = batch, flip, seed
        self._cache: dict[int, tuple[Prepared, Tensor, Tensor]] = {}
        self._cached_bytes = 0
        self._order: tuple[int, list[int]] = (-1, [])

    def __getitem__(self, iteration: int) -> TrainingBatch:
        """The batch of one iteration, counted from 0."""
        start = iteration * self.batch
        items = [self._item(position) for position in range(start, start + self.batch)]
        return TrainingBatch(
            images=pad_stack([image for image, _, _ in items], self.conventions.pad_divisor),
            sizes=[(image.shape[1], image.shape[2]) for image, _, _ in items],
            boxes=[boxes for _, boxes, _ in items],
            labels=[labels for _, _, labels in items],
        )

    def _item(self, position: int) -> tuple[Tensor, Tensor, Tensor]:
        epoch, place = divmod(position, len(self.data.images))
        if self._order[0] != epoch:
            order = torch.randperm(len(self.data.images), generator=self._generator(0, epoch))
            self._order = (epoch, order.tolist())
        item, boxes, labels = self._load(self._order[1][place])
        image = item.image
        if torch.rand((), generator=self._generator(1, position)) < self.flip:
            image, boxes = flip(image, boxes)
        return image, boxes, labels

    def _generator(self, purpose: int, number: int) -> torch.Generator:
        mixed = (self.seed * 2 + purpose) * 1_000_003 + number
        return torch.Generator().manual_seed(mixed)

    def _load(self, index: int) -> tuple[Prepared, Tensor, Tensor]:
        if index in self._cache:
            return self._cache[index]
        entry = self.data.images[index]
        item = prepare(read_rgb(self.data.path(entry)), self.conventions)
        objects = self.data.objects(entry.id)
        boxes = scale_boxes(torch.from_numpy(objects.boxes), item.scale)
        loaded = (item, boxes, torch.from_numpy(objects.labels))
        if self._cached_bytes + item.image.nbytes <= CACHE_BYTES:
            self._cache[index] = loaded
            self._cached_bytes += item.image.nbytes
        return loaded
