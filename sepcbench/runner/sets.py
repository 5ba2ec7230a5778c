"""The images that the rows of a run are trained and scored on."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from sepcbench.errors import StoreError, UsageError
from sepcbench.locks import locked
from sepcbench.runner.state import Run
from sepcbench.specs import VariantSpec
from sepcbench.store import key_of
from sepcbench.suites import ShapesSettings
from sepcbench.units import parse_shape
from sepcbench.whole_files import write_whole

if TYPE_CHECKING:
    from sepcbench.data.coco import CocoData

OTHER_WORK = "choose another --work folder"
# What several rows share, such as the generated set, is made by one process; others wait for it.
WAIT_S = 24 * 3600.0


@dataclass(frozen=True)
class Sets:
    """The sets of a run; `train` is None where rows come with checkpoints.

    `proposals` are files of fixed proposals by split, "train" and "val"; on the generated set those
    of the suite's own RPN, from when the first row needs them. `made_here` is the generated set.
    """

    train: CocoData | None
    val: CocoData
    proposals: dict[str, Path]
    made_here: bool = False
    digests: dict[Path, str] = field(default_factory=dict)

    def fixed(self, spec: VariantSpec, split: str = "val") -> Path | None:
        """The file of fixed proposals, for a head that needs them."""
        return self.proposals.get(split) if "proposals" in spec.head.needs else None

    def digest(self, file: Path) -> str:
        """What is in a file: the same path may hold something else the next time."""
        from sepcbench.checkpoints import native

        if file not in self.digests:
            self.digests[file] = native.digest(file) if file.is_file() else "missing"
        return self.digests[file]


def open_sets(run: Run) -> Sets:
    """The generated set, or the user's set with the user's proposals."""
    from sepcbench.data.coco import open_data

    options = run.options
    if options.data is None:
        folder = _generated(run)
        return Sets(open_data(folder, "train"), open_data(folder, "val"), {}, made_here=True)
    files = {} if options.proposals is None else {"val": options.proposals}
    masks = any("masks" in row.spec.head.needs for row in run.rows)
    train = open_data(options.data, "train", segmentations=masks) if options.train else None
    return Sets(train, open_data(options.data, "val"), files)


def _generated(run: Run) -> Path:
    """The folder of the generated set, made unless it is complete."""
    shapes = run.suite.file.shapes
    if shapes is None:
        raise UsageError(
            f"suite '{run.suite.name}' brings no data; give --data DIR in COCO layout, or "
            "--data shapes for its small twin on the generated set"
        )
    folder = run.options.work / "shapes" / key_of(shapes)
    if not (folder / "complete").is_file():
        with locked(folder, OTHER_WORK, wait_s=WAIT_S):
            if not (folder / "complete").is_file():
                _generate(run, shapes, folder)
    return folder


def _generate(run: Run, shapes: ShapesSettings, folder: Path) -> None:
    from sepcbench.data.shapes import generate

    with run.bar(f"{run.suite.name}: generated set") as progress:
        generate(
            folder,
            images=shapes.images,
            val_images=shapes.val_images,
            seed=shapes.seed,
            size=parse_shape(shapes.size),
            progress=progress,
        )
    write(folder / "complete", "all images are written\n")


def write(path: Path, text: str) -> None:
    """Write a file of the work folder.

    Raises:
        StoreError: the folder or the disk does not take it.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, text)
    except OSError as error:
        raise StoreError(
            f"{path}: cannot be written: {error.strerror or error}; make room or {OTHER_WORK}, "
            "and run again to resume"
        ) from None
