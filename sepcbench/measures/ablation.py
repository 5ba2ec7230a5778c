"""What a checkpoint scores under each named set of conventions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch

from sepcbench.conventions import CONVENTIONS, PIXEL_FIELDS, Conventions
from sepcbench.data.coco import CocoData, category_ids, check_images
from sepcbench.data.evaluation_loader import EvaluationBatch, evaluation_batches
from sepcbench.data.transforms import scale_factors
from sepcbench.detectors import Detector
from sepcbench.measures.accuracy import Progress
from sepcbench.measures.result_format import coco_entries
from sepcbench.measures.scoring import score
from sepcbench.overriding import conventions_for
from sepcbench.records import Accuracy

Found = list[dict[str, Any]]


@dataclass(frozen=True)
class Ablated:
    """One named set of conventions.

    Attributes:
        conventions: its name.
        used: whether these are the checkpoint's own.
        differing: its fields that differ from the checkpoint's own.
        same_outputs: the raw outputs under the checkpoint's own pre-processing, decoded,
            suppressed and exported as the set says.
        complete: images resized, normalised and padded as the set says, too.
    """

    conventions: str
    used: bool
    differing: tuple[str, ...]
    same_outputs: Accuracy
    complete: Accuracy


def ablate(
    detector: Detector,
    data: CocoData,
    classes: Sequence[str],
    *,
    device: str = "cpu",
    batch: int = 1,
    checkpoint: str | None = None,
    progress: Progress | None = None,
) -> tuple[Ablated, ...]:
    """Score a detector under every named set of conventions.

    Weights, images and the fields in which the detector's conventions were changed by hand are
    held fixed. The network runs once per pre-processing.

    Args:
        detector: moved to `device` and put in eval mode; its mode is restored.
        data: the set.
        classes: the detector's class names, label 0 first.
        device: where to run.
        batch: images per call; only images of the same padded shape share one.
        checkpoint: digest of the file, for the record.
        progress: called with (done, total, label).

    Returns:
        The detector's own set first.

    Raises:
        DataError: an image is missing or corrupt, or the classes differ.
    """
    check_images(data)
    ids = category_ids(data, classes)
    sets = conventions_to_try(detector)
    own = sets[0]
    decoded = {how: _with_pixels_of(how, own) for how in sets}
    found = _detect(detector, data, ids, [*decoded.values(), *sets], device, batch, progress)
    scores = {
        how: score(
            data,
            boxes,
            variant=detector.spec.name,
            checkpoint=checkpoint,
            resamples=0,
            finer=False,
        )
        for how, boxes in found.items()
    }
    return tuple(
        Ablated(
            conventions=how.name,
            used=how is own,
            differing=_differing(how, own),
            same_outputs=scores[_nameless(decoded[how])],
            complete=scores[_nameless(how)],
        )
        for how in sets
    )


def conventions_to_try(detector: Detector) -> tuple[Conventions, ...]:
    """The detector's own conventions, then the other named sets with its changes by hand."""
    spec, own = detector.spec, detector.spec.conventions
    published = conventions_for(spec, own.name)
    changed = {name: getattr(own, name) for name in _differing(own, published)}
    others = (conventions_for(spec, name) for name in CONVENTIONS if name != own.name)
    return own, *(replace(how, **changed) for how in others)


def _differing(one: Conventions, other: Conventions) -> tuple[str, ...]:
    names = [field.name for field in fields(Conventions) if field.name != "name"]
    return tuple(name for name in names if getattr(one, name) != getattr(other, name))


def _with_pixels_of(how: Conventions, source: Conventions) -> Conventions:
    return replace(how, **{name: getattr(source, name) for name in PIXEL_FIELDS})


def _nameless(how: Conventions) -> Conventions:
    """Equal for two sets that do the same."""
    return replace(how, name="")


def _by_pixels(wanted: Sequence[Conventions]) -> Iterator[list[Conventions]]:
    """Distinct conventions, those with the same pre-processing together."""
    groups: dict[Conventions, dict[Conventions, None]] = {}
    for how in map(_nameless, wanted):
        groups.setdefault(_with_pixels_of(Conventions(), how), {})[how] = None
    for group in groups.values():
        yield list(group)


@torch.no_grad()
def _detect(
    detector: Detector,
    data: CocoData,
    ids: Sequence[int | None],
    wanted: Sequence[Conventions],
    device: str,
    batch: int,
    progress: Progress | None,
) -> dict[Conventions, Found]:
    """Detections of the whole set for each of the wanted conventions, without their names."""
    groups = list(_by_pixels(wanted))
    found: dict[Conventions, Found] = {how: [] for group in groups for how in group}
    was_training = detector.training
    detector.to(device).eval()
    done, total = 0, len(groups) * len(data.images)
    try:
        for number, group in enumerate(groups, start=1):
            for item in evaluation_batches(data, group[0], batch):
                _decode(detector, item, ids, {how: found[how] for how in group}, device)
                done += len(item.image_ids)
                if progress:
                    progress(done, total, f"pre-processing {number} of {len(groups)}")
    finally:
        detector.train(was_training)
    return found


def _decode(
    detector: Detector,
    item: EvaluationBatch,
    ids: Sequence[int | None],
    found: dict[Conventions, Found],
    device: str,
) -> None:
    """Run the network once and decode its outputs under each of the conventions."""
    outputs = detector(item.images.to(device))
    padded = (item.images.shape[2], item.images.shape[3])
    for how, boxes in found.items():
        scales = [scale_factors(*pair, how) for pair in zip(item.originals, item.sizes)]
        results = detector.under(how).decode(outputs, item.sizes, scales, padded)
        for image_id, result in zip(item.image_ids, results):
            boxes += coco_entries(image_id, result, ids, how.export_offset)
