"""Batches to train on: shuffled, resumable at any number, the same however they are loaded."""

from __future__ import annotations

import itertools
from collections.abc import Generator
from dataclasses import replace
from threading import Lock
from typing import NamedTuple

import torch
from torch import Tensor

from sepcbench.data.annotations import ImageEntry
from sepcbench.data.coco import CocoData
from sepcbench.data.order import MIRROR, SIDE, EpochOrder, generator
from sepcbench.data.proposals import Proposals
from sepcbench.data.transforms import (
    Raw,
    as_raw,
    flip_boxes,
    normalised,
    pad_stack,
    read_rgb,
    resize_masks,
    scale_boxes,
)
from sepcbench.data.workers import prefetched
from sepcbench.errors import DataError
from sepcbench.specs import Conventions

# resized images kept in memory; of larger sets the others are read again each time
CACHE_BYTES = 1 << 30


class TrainingBatch(NamedTuple):
    """Images (N, 3, H, W), their sizes (h, w), and boxes (g, 4) xyxy and labels (g,) of each.

    If asked for, also `masks` (g, h, w) bool and `proposals` (r, 4) xyxy of each. All but the
    images may be what the loader keeps for later epochs: not to be changed.
    """

    images: Tensor
    sizes: list[tuple[int, int]]
    boxes: list[Tensor]
    labels: list[Tensor]
    masks: list[Tensor] | None = None
    proposals: list[Tensor] | None = None


class _Loaded(NamedTuple):
    """One image with what was asked for; see `TrainingBatch`. Mirrored where `mirror` says so."""

    raw: Raw
    boxes: Tensor
    labels: Tensor
    masks: Tensor | None
    proposals: Tensor | None
    mirror: bool = False

    def mirrored(self) -> _Loaded:
        """With all but the pixels mirrored: resized floats are mirrored after resizing."""
        width = self.raw.size[1]
        proposals = self.proposals
        return self._replace(
            boxes=flip_boxes(self.boxes, width),
            masks=None if self.masks is None else self.masks.flip(-1),
            proposals=None if proposals is None else flip_boxes(proposals, width),
            mirror=True,
        )

    def image(self, conventions: Conventions, device: str) -> Tensor:
        made = normalised(self.raw, conventions, device)
        return made.flip(-1) if self.mirror else made

    def pin_memory(self) -> _Loaded:
        return self._replace(raw=self.raw._replace(pixels=self.raw.pixels.pin_memory()))

    @property
    def nbytes(self) -> int:
        parts = (self.raw.pixels, self.boxes, self.labels, self.masks, self.proposals)
        return sum(part.nbytes for part in parts if part is not None)


class _LoadedBatch(list[_Loaded]):
    """What a worker loads at a time."""

    def pin_memory(self) -> _LoadedBatch:
        return _LoadedBatch(item.pin_memory() for item in self)


class _Place(NamedTuple):
    """What a batch of this process is: its images, and how many images come before them in all."""

    images: list[int]
    position: int


class TrainingLoader:
    """Shuffled batches without end; what a batch holds depends on seed, number, rank and world.

    So training resumes at the exact position from the number of the batch. All processes together
    take `batch * world` images at a time, which are the same whatever the world size. Each epoch
    goes through all images in a new order; a batch may span two epochs.
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
        rank: int = 0,
        world: int = 1,
        group_by_aspect: bool = False,
        short_sides: tuple[int, int] | None = None,
        workers: int = 0,
        device: str = "cpu",
    ) -> None:
        """Prepare to load.

        Args:
            data: the set; images without objects belong to it too.
            conventions: how images are resized, normalised and padded.
            batch: images per batch of this process.
            flip: share of images that are mirrored.
            seed: of order, mirroring and sizes.
            masks: whether batches bring the masks of the objects.
            proposals: of every image, if batches are to bring them.
            rank: which of the processes this is.
            world: how many there are.
            group_by_aspect: let the images that all processes take at a time be all wider than
                tall or none of them, so that less is padding.
            short_sides: resize each image to a short side of (lowest, highest), each as likely,
                instead of the conventions' own.
            workers: threads that load ahead of `stream`; 0 for none.
            device: where images are normalised, and are then; all else is on the CPU.
        """
        self.data, self.conventions = data, conventions
        self.batch, self.flip, self.seed = batch, flip, seed
        self.masks, self.proposals = masks, proposals
        self.rank, self.world = rank, world
        self.short_sides, self.workers, self.device = short_sides, workers, device
        self._order = EpochOrder(_groups(data, group_by_aspect), batch * world, seed)
        self._cache: dict[int, _Loaded] = {}
        self._cached_bytes = 0
        self._caching = Lock()
        data.objects(data.images[0].id)  # sorts all objects by image, before there are workers

    def __getitem__(self, number: int) -> TrainingBatch:
        """This process's part of micro-batch `number` of the whole job, counted from 0."""
        return self._finish(self._load_batch(self._place(number)))

    def stream(self, start: int = 0) -> Generator[TrainingBatch]:
        """Batch after batch from `start` on, loaded ahead by the workers; the same as `[...]`.

        Raises:
            DataError: an image is missing or corrupt.
        """
        places = map(self._place, itertools.count(start))
        for loaded in prefetched(self._load_batch, places, self.workers, device=self.device):
            yield self._finish(loaded)

    def _place(self, number: int) -> _Place:
        first = self.rank * self.batch
        images = self._order[number][first : first + self.batch]
        return _Place(images, number * self.batch * self.world + first)

    def _load_batch(self, place: _Place) -> _LoadedBatch:
        return _LoadedBatch(
            self._item(index, place.position + slot) for slot, index in enumerate(place.images)
        )

    def _finish(self, items: _LoadedBatch) -> TrainingBatch:
        images = [item.image(self.conventions, self.device) for item in items]
        masks = [item.masks for item in items if item.masks is not None]
        proposals = [item.proposals for item in items if item.proposals is not None]
        return TrainingBatch(
            images=pad_stack(images, self.conventions.pad_divisor),
            sizes=[item.raw.size for item in items],
            boxes=[item.boxes for item in items],
            labels=[item.labels for item in items],
            masks=masks if self.masks else None,
            proposals=proposals if self.proposals is not None else None,
        )

    def _item(self, index: int, position: int) -> _Loaded:
        """One image; `position` counts the images of the whole training."""
        if self.short_sides is None:
            item = self._cached(index)
        else:
            low, high = self.short_sides
            drawn = torch.randint(low, high + 1, (), generator=generator(self.seed, SIDE, position))
            item = self._load(index, replace(self.conventions, short_side=int(drawn)))
        mirrored = torch.rand((), generator=generator(self.seed, MIRROR, position)) < self.flip
        return item.mirrored() if mirrored else item

    def _cached(self, index: int) -> _Loaded:
        if index not in self._cache:
            loaded = self._load(index, self.conventions)
            with self._caching:
                if self._cached_bytes + loaded.nbytes > CACHE_BYTES:
                    return loaded
                self._cached_bytes += 0 if index in self._cache else loaded.nbytes
                self._cache[index] = loaded
        return self._cache[index]

    def _load(self, index: int, conventions: Conventions) -> _Loaded:
        entry = self.data.images[index]
        raw = as_raw(read_rgb(self.data.path(entry)), conventions)
        objects = self.data.objects(entry.id)
        given = None
        if self.proposals is not None:
            given = scale_boxes(torch.from_numpy(self.proposals.of(entry.id)), raw.scale)
        return _Loaded(
            raw=raw,
            boxes=scale_boxes(torch.from_numpy(objects.boxes), raw.scale),
            labels=torch.from_numpy(objects.labels),
            masks=self._masks(entry, raw) if self.masks else None,
            proposals=given,
        )

    def _masks(self, entry: ImageEntry, raw: Raw) -> Tensor:
        check_size(entry, raw.original, self.data)
        return resize_masks(torch.from_numpy(self.data.masks(entry)), raw.size)


def _groups(data: CocoData, by_aspect: bool) -> list[list[int]]:
    """Indices of the images: all, or those wider than tall and the others, as annotated."""
    everything = range(len(data.images))
    if not by_aspect:
        return [list(everything)]
    wide = {i for i in everything if data.images[i].width > data.images[i].height}
    return [sorted(wide), [i for i in everything if i not in wide]]


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
