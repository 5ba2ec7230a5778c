"""Batches to evaluate on: every image exactly once, decoded and resized by workers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from sepcbench.data.annotations import ImageEntry
from sepcbench.data.coco import CocoData
from sepcbench.data.proposals import Proposals
from sepcbench.data.transforms import (
    Raw,
    as_raw,
    normalised,
    pad_stack,
    padded_size,
    read_rgb,
    scale_boxes,
)
from sepcbench.data.workers import prefetched
from sepcbench.specs import Conventions


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


def evaluation_batches(
    data: CocoData,
    conventions: Conventions,
    batch: int = 1,
    proposals: Proposals | None = None,
    *,
    workers: int = 0,
    device: str = "cpu",
) -> Iterator[EvaluationBatch]:
    """Go through every image once; only images of the same padded shape share a batch.

    Padding changes AP, so a larger batch never pads an image more than batch 1 would. With
    `proposals` each batch brings those of its images.

    Args:
        data: the set.
        conventions: how images are resized, normalised and padded.
        batch: images per batch.
        proposals: of every image, if batches are to bring them.
        workers: threads that decode and resize ahead; 0 for none. Batches are the same.
        device: where images are normalised, and are then; all else is on the CPU.
    """
    for (only,) in scaled_batches(
        data, (conventions,), batch, proposals, workers=workers, device=device
    ):
        yield only


def scaled_batches(
    data: CocoData,
    scales: Sequence[Conventions],
    batch: int = 1,
    proposals: Proposals | None = None,
    *,
    workers: int = 0,
    device: str = "cpu",
) -> Iterator[list[EvaluationBatch]]:
    """As `evaluation_batches`, the same images under each of several conventions at a time.

    They differ in sides alone; an image is decoded once.
    """
    load = _Loader(data, tuple(scales))
    divisor = scales[0].pad_divisor
    waiting: dict[tuple[tuple[int, int], ...], list[_Loaded]] = {}
    numbers = range(len(data.images))
    for loaded in prefetched(load, numbers, workers, taken=batch, device=device):
        shape = tuple(padded_size(raw.size, divisor) for raw in loaded.raws)
        group = waiting.setdefault(shape, [])
        group.append(loaded)
        if len(group) == batch:
            yield _batches(waiting.pop(shape), scales, proposals, device)
    for group in waiting.values():
        yield _batches(group, scales, proposals, device)


class _Loaded(NamedTuple):
    """One image, decoded and resized under each of the conventions."""

    entry: ImageEntry
    raws: tuple[Raw, ...]

    def pin_memory(self) -> _Loaded:
        pinned = (raw._replace(pixels=raw.pixels.pin_memory()) for raw in self.raws)
        return self._replace(raws=tuple(pinned))


@dataclass(frozen=True)
class _Loader:
    """What workers do."""

    data: CocoData
    scales: tuple[Conventions, ...]

    def __call__(self, number: int) -> _Loaded:
        entry = self.data.images[number]
        rgb = read_rgb(self.data.path(entry))
        return _Loaded(entry, tuple(as_raw(rgb, how) for how in self.scales))


def _batches(
    group: list[_Loaded],
    scales: Sequence[Conventions],
    proposals: Proposals | None,
    device: str,
) -> list[EvaluationBatch]:
    """The images of a group as a batch of each scale."""
    entries = [loaded.entry for loaded in group]
    return [
        _batch(entries, [loaded.raws[place] for loaded in group], how, proposals, device)
        for place, how in enumerate(scales)
    ]


def _batch(
    entries: list[ImageEntry],
    raws: list[Raw],
    how: Conventions,
    proposals: Proposals | None,
    device: str,
) -> EvaluationBatch:
    given = None
    if proposals is not None:
        given = [
            scale_boxes(torch.from_numpy(proposals.of(entry.id)), raw.scale)
            for entry, raw in zip(entries, raws)
        ]
    images = [normalised(raw, how, device) for raw in raws]
    return EvaluationBatch(
        images=pad_stack(images, how.pad_divisor),
        image_ids=[entry.id for entry in entries],
        sizes=[raw.size for raw in raws],
        scales=[raw.scale for raw in raws],
        originals=[raw.original for raw in raws],
        proposals=given,
    )
