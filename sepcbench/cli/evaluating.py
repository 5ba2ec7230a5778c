"""What `sepcbench eval` does with each checkpoint: load, detect, keep, draw, score."""

from __future__ import annotations

import shutil
import sys
import zlib
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sepcbench.cli import options
from sepcbench.cli.detection_pictures import Drawing, make_folder
from sepcbench.cli.score import Scored
from sepcbench.codec import encode
from sepcbench.errors import CheckpointError, SepcbenchError, StoreError, UsageError
from sepcbench.records import Failure

if TYPE_CHECKING:
    from sepcbench.checkpoints.matching import Wishes
    from sepcbench.data.coco import CocoData
    from sepcbench.data.proposals import Proposals
    from sepcbench.detectors import Detector
    from sepcbench.measures.test_time import TestTime
    from sepcbench.processes import Job

# where finished images are kept until an evaluation is complete
DEFAULT_KEEP = Path("runs/eval")
LAST = "last.safetensors"


@dataclass(frozen=True)
class Evaluation:
    """What all checkpoints are evaluated on, and how.

    `alone` is whether there is one checkpoint: then its failure is the command's. `keep` is None
    for `DEFAULT_KEEP`.
    """

    data: CocoData
    proposals: Proposals | None
    wishes: Wishes
    trust: bool
    device: str
    batch: int
    workers: int
    alone: bool
    job: Job
    test_time: TestTime
    keep: Path | None = None
    levels: bool = False
    referee: bool = False
    drawing: Drawing | None = None

    def attempt(self, path: Path, out: Path | None) -> list[Scored]:
        """The records of one checkpoint, or its failure where there are others."""
        try:
            return self.run(path, out)
        except SepcbenchError as error:
            if self.alone or self.job.world > 1:  # the other processes must not wait for this one
                raise
            return [Failure(str(self.wishes.variant or path.stem), "accuracy", str(error))]

    def run(self, path: Path, out: Path | None) -> list[Scored]:
        """The records of one checkpoint: of boxes and maybe masks, or of proposals.

        Nothing in a process that does not lead.
        """
        from sepcbench.checkpoints import native
        from sepcbench.measures.scoring import scores, write_detections

        detector, classes = load(path, self.wishes, self.trust, self.data)
        keep, temporary = self._keep(path)
        found = self._detect(detector, classes, path.name, keep)
        if not self.job.leads:
            return []
        if out is not None:
            write_detections(out, found)
        if self.drawing is not None:
            self.drawing.draw(path, self.data, found, detector.spec.head.gives_proposals)
        digest, test_time = native.digest(path), str(self.test_time)
        made = scores(
            self.data, found, detector.spec, digest, referee=self.referee, test_time=test_time
        )
        if temporary and keep is not None:
            _remove(keep)
        return list(made.values())

    def _detect(
        self, detector: Detector, classes: tuple[str, ...], name: str, keep: Path | None
    ) -> list[dict[str, Any]]:
        from sepcbench.measures.accuracy import detect_all

        # of several checkpoints only some may work on given proposals
        wanted = self.alone or "proposals" in detector.spec.head.needs
        with options.progress_bar(f"eval {name}") as progress:
            return detect_all(
                detector,
                self.data,
                classes,
                device=self.device,
                batch=self.batch,
                proposals=self.proposals if wanted else None,
                progress=progress if self.job.leads else None,
                workers=self.workers,
                rank=self.job.rank,
                world=self.job.world,
                keep=keep,
                test_time=self.test_time,
                levels=self.levels,
            )

    def _keep(self, path: Path) -> tuple[Path | None, bool]:
        """Where finished images of a checkpoint are kept, and whether only until all are done.

        Raises:
            StoreError: several processes have no folder to meet in.
        """
        if self.keep is not None:
            return self.keep, False
        about = (path.resolve(), self.data.annotations, self.wishes, str(self.test_time))
        folder = DEFAULT_KEEP / f"{zlib.crc32(repr(about).encode()):08x}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            if self.job.world > 1:
                raise StoreError(
                    f"{folder}: cannot be made: {error.strerror}; several processes need a folder "
                    "to meet in, name one with --keep"
                ) from None
            return None, False
        return folder, True


def _remove(folder: Path) -> None:
    """Remove what was kept, and the folders above where nothing else is in them."""
    shutil.rmtree(folder, ignore_errors=True)
    for above in (DEFAULT_KEEP, DEFAULT_KEEP.parent):
        with suppress(OSError):
            above.rmdir()


def find_checkpoint(path: Path) -> Path:
    """The file itself, or what `sepcbench train` left in a folder.

    Raises:
        CheckpointError: there is none in the folder.
    """
    if not path.is_dir():
        return path
    if (path / LAST).is_file():
        return path / LAST
    raise CheckpointError(f"folder '{path}' has no {LAST}; name a checkpoint file")


def load(
    path: Path, wishes: Wishes, trust: bool, data: CocoData
) -> tuple[Detector, tuple[str, ...]]:
    from sepcbench.checkpoints import loading

    loaded = loading.load(path, wishes, trust)
    detector = loaded.detector
    if detector.spec.head.gives_proposals:
        return detector, data.classes
    return detector, loaded.classes or _classes_of(data, path, detector.spec.num_classes)


def _classes_of(data: CocoData, path: Path, count: int) -> tuple[str, ...]:
    """The data's classes in the order of their ids, for a file that does not name its own."""
    if len(data.classes) != count:
        raise CheckpointError(
            f"checkpoint '{path}' has {count} classes without names, and {data.annotations} has "
            f"{len(data.classes)}"
        )
    print(
        f"sepcbench: '{path}' does not name its classes; taken in the order of the data's ids",
        file=sys.stderr,
    )
    return data.classes


def drawing_of(
    folder: Path | None, count: int, threshold: float, checkpoints: list[Path]
) -> Drawing | None:
    """Where the pictures go: a folder each, if there are several checkpoints.

    Raises:
        StoreError: a folder cannot be made, known before anything is computed.
    """
    if folder is None:
        return None
    alone = len(checkpoints) == 1
    folders = {
        path: folder if alone else folder / f"{i:02d}_{path.parent.name or path.stem}"
        for i, path in enumerate(checkpoints, start=1)
    }
    for made in folders.values():
        make_folder(made, "--draw")
    return Drawing(folders, count, threshold)


def targets_of(given: Path | None, checkpoints: list[Path]) -> list[Path | None]:
    """Where the detections of each checkpoint go.

    Raises:
        UsageError: the place is not there, known before anything is computed.
    """
    if given is None:
        return [None] * len(checkpoints)
    if len(checkpoints) == 1 and not given.is_dir():
        if not given.resolve().parent.is_dir():
            raise UsageError(f"--save-detections '{given}': there is no such folder")
        return [given]
    if not given.is_dir():
        raise UsageError(
            f"--save-detections '{given}': several checkpoints need a folder that is there"
        )
    return [given / f"{i:02d}_{path.stem}.json" for i, path in enumerate(checkpoints, start=1)]


def value_of(path: Path, records: list[Scored]) -> dict[str, Any]:
    """The first record's fields, and the masks' record inside."""
    first, *masks = records
    value = {"file": str(path), **encode(first)}
    return {**value, "masks": encode(masks[0])} if masks else value
