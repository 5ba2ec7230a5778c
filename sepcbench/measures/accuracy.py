"""Detections of a whole data set, in COCO result format; by one process or many."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sepcbench import codec
from sepcbench.data.coco import CocoData, category_ids, check_images
from sepcbench.data.evaluation_loader import scaled_batches
from sepcbench.data.needs import check_given
from sepcbench.data.proposals import Proposals
from sepcbench.detectors import Detector
from sepcbench.errors import DataError, StoreError, UsageError
from sepcbench.measures.kept_detections import KeptDetections, weights_digest
from sepcbench.measures.result_format import Entries, image_entries
from sepcbench.measures.test_time import ONCE, TestTime, check_possible, detect
from sepcbench.processes import gathered

Progress = Callable[[int, int, str], None]
# what a proposals file has for a category
PROPOSAL_CATEGORY = 1


def detect_all(
    detector: Detector,
    data: CocoData,
    classes: Sequence[str],
    *,
    device: str = "cpu",
    batch: int = 1,
    proposals: Proposals | None = None,
    progress: Progress | None = None,
    workers: int = 0,
    rank: int = 0,
    world: int = 1,
    keep: Path | None = None,
    test_time: TestTime | None = None,
    levels: bool = False,
) -> list[dict[str, Any]]:
    """Run a detector over every image of a set once.

    Args:
        detector: moved to `device` and put in eval mode; its mode is restored.
        data: the set.
        classes: the detector's class names, label 0 first; matched to categories by name. An RPN
            has no use for them.
        device: where to run.
        batch: images per call; only images of the same padded shape share one.
        proposals: of every image, for a detector that needs them.
        progress: called with (done, total, label), of this process's images.
        workers: threads that decode and resize images ahead; the results are the same.
        rank: which of the processes this is that share the images.
        world: how many there are; each image is for one of them.
        keep: a folder, the same for all, where finished images are kept: one that was stopped goes
            on there, with as many processes as there are then. Needed for several.
        test_time: several scales and mirroring, for a one-stage detector.
        levels: bring the `level` that found each box, 3 for P3, of a one-stage detector.

    Returns:
        One entry per detection, in the order of the images: `image_id`, `category_id`, `bbox` (x,
        y, width, height) in pixels of the image file, `score`; from a mask head also
        `segmentation`, an RLE at the file's size. An RPN's proposals are all of
        `PROPOSAL_CATEGORY`. Of several processes only the first has them, the others nothing.

    Raises:
        DataError: an image is missing or corrupt, or the classes differ.
        UsageError: proposals are needed and not given, or given and not needed; or the detector has
            not one stage and test-time options or levels are wanted.
        StoreError: `keep` cannot be written, or another process died.
    """
    check_images(data)
    check_given(detector.spec, data, proposals)
    how = test_time or ONCE
    check_possible(detector, how, levels)
    if world > 1 and keep is None:
        raise UsageError("several processes need a folder to meet in: name one with --keep")
    agnostic = detector.spec.head.gives_proposals
    ids = (PROPOSAL_CATEGORY,) if agnostic else category_ids(data, classes)
    kept = None
    if keep is not None:
        identity = _identity(detector, data, ids, proposals, how, levels, device)
        kept = KeptDetections(keep, identity, f"{rank}-of-{world}")
    share = _Share(data, rank, world, kept)
    run = _Run(detector, ids, device, batch, proposals, workers, how, levels)
    was_training = detector.training
    detector.to(device).eval()
    try:
        found = run.over(share, progress)
    finally:
        detector.train(was_training)
        if kept is not None:
            kept.close()
    return share.merged(found)


@dataclass(frozen=True)
class _Run:
    """A detector and how it is run; see `detect_all`."""

    detector: Detector
    ids: Sequence[int | None]
    device: str
    batch: int
    proposals: Proposals | None
    workers: int
    test_time: TestTime
    levels: bool

    def over(self, share: _Share, progress: Progress | None) -> dict[int, Entries]:
        """The entries of the images of one process, by id, from disk or from the detector."""
        found = share.finished()
        left = share.left(found)
        total, boxes = len(found) + len(left.images), sum(map(len, found.values()))
        spec = self.detector.spec
        for batches in scaled_batches(
            left,
            self.test_time.conventions(spec.conventions),
            self.batch,
            self.proposals,
            workers=min(self.workers, len(left.images)),
            device=self.device,
        ):
            results = detect(self.detector, batches, self.test_time, levels=self.levels)
            first = batches[0]
            made = {
                image_id: image_entries(image_id, result, self.ids, size, spec)
                for image_id, size, result in zip(first.image_ids, first.originals, results)
            }
            share.keep(made)
            found.update(made)
            boxes += sum(map(len, made.values()))
            if progress:
                progress(len(found), total, f"{boxes} boxes")
        return found


@dataclass(frozen=True)
class _Share:
    """The images of one process: every `world`-th, so that each is for exactly one."""

    data: CocoData
    rank: int
    world: int
    kept: KeptDetections | None

    def _own(self) -> CocoData:
        return replace(self.data, images=self.data.images[self.rank :: self.world])

    def finished(self) -> dict[int, Entries]:
        """What an earlier run has kept of them."""
        known = self.kept.read() if self.kept else {}
        return {image.id: known[image.id] for image in self._own().images if image.id in known}

    def left(self, found: dict[int, Entries]) -> CocoData:
        """Those still to do."""
        images = tuple(image for image in self._own().images if image.id not in found)
        return replace(self.data, images=images)

    def keep(self, made: dict[int, Entries]) -> None:
        if self.kept is not None:
            self.kept.add(made)

    def merged(self, found: dict[int, Entries]) -> list[dict[str, Any]]:
        """The entries of all images once all processes are done, in the first of them."""
        if self.world > 1:
            self._meet()
            if self.rank:
                return []
            assert self.kept is not None
            found = self.kept.read()
        missing = [image.id for image in self.data.images if image.id not in found]
        if missing:
            raise DataError(
                f"{len(missing)} of {len(self.data.images)} images were not done, first image_id "
                f"{missing[0]}; all processes need the same --keep folder, run again to go on"
            )
        return [entry for image in self.data.images for entry in found[image.id]]

    def _meet(self) -> None:
        """Wait for the other processes; without `torchrun` they have come before."""
        try:
            gathered(self.rank)
        except RuntimeError:
            raise StoreError(
                "another process of this evaluation died; finished images are kept, the same "
                "command goes on there"
            ) from None


def _identity(
    detector: Detector,
    data: CocoData,
    ids: Sequence[int | None],
    proposals: Proposals | None,
    test_time: TestTime,
    levels: bool,
    device: str,
) -> dict[str, Any]:
    """All that detections depend on."""
    return {
        "weights": weights_digest(detector),
        "variant": codec.encode(detector.spec),
        "data": data.name,
        "images": [list(image) for image in data.images],
        "categories": list(ids),
        "proposals": proposals and proposals.digest,
        "test_time": str(test_time),
        "levels": levels,
        "device": device.partition(":")[0],
    }
