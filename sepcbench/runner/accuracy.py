"""Scores the rows of a suite; on the generated set it trains them first."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sepcbench.errors import StoreError, UsageError
from sepcbench.locks import locked
from sepcbench.records import Failure, Record, Training
from sepcbench.runner.state import Run, attempt, keep
from sepcbench.specs import HeadSpec, VariantSpec
from sepcbench.store import key_of
from sepcbench.suites import ShapesSettings, SuiteRow
from sepcbench.units import parse_shape
from sepcbench.whole_files import write_whole

if TYPE_CHECKING:
    from sepcbench.data.coco import CocoData

Files = Mapping[str, Path]


@dataclass(frozen=True)
class _Data:
    """The sets of a run; `train` is None where rows come with checkpoints.

    `proposals` are files of fixed proposals by split, "train" and "val"; on the generated set those
    of the suite's own RPN, from when the first row needs them.
    """

    train: CocoData | None
    val: CocoData
    proposals: dict[str, Path]


def run_accuracy(run: Run) -> None:
    """Score each row's checkpoint; on the generated set, train it first."""
    train = run.suite.file.train is not None and run.options.data is None
    rows = [row for row in run.rows if train or row.name in run.options.checkpoints]
    missing = len(run.rows) - len(rows)
    if missing:
        run.notes.append(
            f"accuracy: {missing} of {len(run.rows)} rows have no checkpoint and stay empty; "
            "give one with --checkpoint ROW=FILE --data DIR, or see the suite's small twin with "
            "--data shapes"
        )
    if not rows:
        return
    data = _open(run)
    for row in rows:
        _attempt_row(run, row, data)


def _open(run: Run) -> _Data:
    """The generated set, or the user's set with the user's proposals."""
    from sepcbench.data.coco import open_data

    options = run.options
    if options.data is not None:
        files = {} if options.proposals is None else {"val": options.proposals}
        return _Data(None, open_data(options.data, "val"), files)
    folder = _generated(run)
    return _Data(open_data(folder, "train"), open_data(folder, "val"), {})


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
        with locked(folder, _OTHER_WORK):
            _generate(run, shapes, folder)
    return folder


_OTHER_WORK = "choose another --work folder"


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
    _write(folder / "complete", "all images are written\n")


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, text)
    except OSError as error:
        raise StoreError(
            f"{path}: cannot be written: {error.strerror or error}; make room or {_OTHER_WORK}, "
            "and run again to resume"
        ) from None


def kinds(head: HeadSpec) -> tuple[str, ...]:
    """The kinds of records that scoring a head gives."""
    if head.gives_proposals:
        return ("recall",)
    return ("accuracy", "masks") if "masks" in head.needs else ("accuracy",)


def _attempt_row(run: Run, row: SuiteRow, data: _Data) -> None:
    given = run.options.checkpoints.get(row.name)
    fixed = _proposals(row.spec, data)
    trained = _recipe_key(run, row.spec)
    key = key_of(row.spec, trained)
    if given is not None:
        files = [given, data.val.annotations, *([fixed] if fixed else [])]
        key = key_of(row.spec, run.options.device, *_digests(*files))
    first, *others = kinds(row.spec.head)
    done = all(run.store.done(row.name, kind, key) for kind in (first, *others))
    if done and not run.options.fresh:
        return
    more: dict[str, Record] = {}

    def make() -> Record:
        _make_proposals(run, row.spec, data)
        path = given or _train(run, row.name, row.label, row.spec, data, trained)
        scored = _score(run, row, path, data)
        more.update({kind: scored[kind] for kind in others})
        return scored[first]

    record = attempt(run, row, first, key, make)
    if isinstance(record, Failure):
        more = {kind: replace(record, measure=kind) for kind in others}
    for kind, other in more.items():
        keep(run, row, kind, key, other)


def _recipe_key(run: Run, spec: VariantSpec) -> str:
    """What a training on the generated set depends on: suites share what is the same."""
    file, fixed = run.suite.file, run.suite.proposals if "proposals" in spec.head.needs else None
    parts = [replace(spec, name=""), file.shapes, file.train, run.options.device]
    return key_of(*parts, *([] if fixed is None else [replace(fixed, name="")]))


def _digests(*files: Path) -> list[str]:
    """What is in the files: the same path may hold another checkpoint the next time."""
    from sepcbench.checkpoints import native

    return [native.digest(file) if file.is_file() else "missing" for file in files]


def _proposals(spec: VariantSpec, data: _Data, split: str = "val") -> Path | None:
    """The file of fixed proposals, for a head that needs them."""
    return data.proposals.get(split) if "proposals" in spec.head.needs else None


def _train(run: Run, name: str, label: str, spec: VariantSpec, data: _Data, key: str) -> Path:
    """Train on the generated set, going on from where an earlier run was stopped."""
    from sepcbench.checkpoints import native
    from sepcbench.data.proposals import read_proposals
    from sepcbench.training.loop import resumable, train

    recipe = run.suite.file.train
    if data.train is None or recipe is None:
        raise UsageError(f"row '{name}' has no checkpoint; give --checkpoint {name}=FILE")
    out = run.options.work / "trained" / f"{spec.name}-{key}"
    fixed = _proposals(spec, data, "train")
    with run.bar(f"{run.suite.name}: train {label}") as progress:
        _, record = train(
            spec,
            data.train,
            recipe,
            proposals=None if fixed is None else read_proposals(fixed, data.train),
            device=run.options.device,
            out=out,
            resume=not run.options.fresh and resumable(out),
            progress=progress,
            save=native.save,
        )
    for row in run.rows:
        if row.name == name and not _has_training(run, row, key, record):
            keep(run, row, "training", key, record)
    return out / "last.safetensors"


def _has_training(run: Run, row: SuiteRow, key: str, record: Training) -> bool:
    """Whether an earlier run stored this training and was stopped before its score."""
    if not run.store.done(row.name, "training", key):
        return False
    stored = run.store.read(row.name, "training")
    return stored is not None and stored.record == record


def _score(run: Run, row: SuiteRow, path: Path, data: _Data) -> Mapping[str, Record]:
    from sepcbench.checkpoints import native
    from sepcbench.measures.scoring import scores

    found = _detect(run, row.label, row.spec, path, data, "val")
    digest = native.digest(path)
    return scores(data.val, found, row.spec, digest, referee=run.options.referee)


def _detect(
    run: Run, label: str, spec: VariantSpec, path: Path, data: _Data, split: str
) -> list[dict[str, Any]]:
    """Run a checkpoint over a split; COCO entries."""
    from sepcbench.checkpoints import loading
    from sepcbench.checkpoints.matching import Wishes
    from sepcbench.data.proposals import read_proposals
    from sepcbench.measures.accuracy import detect_all

    images = data.val if split == "val" or data.train is None else data.train
    loaded = loading.load(path, Wishes(replace(spec, num_classes=len(images.categories))))
    fixed = _proposals(spec, data, split)
    with run.bar(f"{run.suite.name}: score {label}") as progress:
        return detect_all(
            loaded.detector,
            images,
            loaded.classes or images.classes,
            proposals=None if fixed is None else read_proposals(fixed, images),
            device=run.options.device,
            progress=progress,
        )


def _make_proposals(run: Run, spec: VariantSpec, data: _Data) -> None:
    """See to it that a row that needs fixed proposals on the generated set has the suite's."""
    rpn = run.suite.proposals
    if rpn is None or data.train is None or data.proposals:
        return
    if "proposals" in spec.head.needs:
        data.proposals.update(_own_proposals(run, rpn, data))


def _own_proposals(run: Run, spec: VariantSpec, data: _Data) -> Files:
    """Train the suite's RPN on the generated set and write its proposals, unless they are there."""
    key = _recipe_key(run, spec)
    folder = run.options.work / "proposals" / f"{spec.name}-{key}"
    files = {split: folder / f"{split}.json" for split in ("train", "val")}
    if all(path.is_file() for path in files.values()) and not run.options.fresh:
        return files
    checkpoint = _train(run, "proposals", f"{spec.name} for proposals", spec, data, key)
    for split, path in files.items():
        found = _detect(run, f"{spec.name}, proposals of {split}", spec, checkpoint, data, split)
        _write(path, json.dumps(found))
    return files
