"""What `import sepcbench` offers: the commands as functions, from names or modules to records.

A target is a variant's name or spec, MODULE:NAME or FILE.py:NAME, a module, or a class or function
that makes one. What is made from `in_channels` is a neck and is put behind a backbone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sepcbench.api_measures import flops, known_fields, latency, size_of
from sepcbench.errors import DataError, UsageError
from sepcbench.records import Accuracy, Failure, Recall, Results, Training, flat
from sepcbench.specs import MeasureName, Recipe, VariantSpec
from sepcbench.suites import Suite
from sepcbench.targets import spec_of
from sepcbench.variants import variant as find_variant

if TYPE_CHECKING:
    from sepcbench.data.coco import CocoData
    from sepcbench.detectors import Detector

__all__ = [
    "build",
    "evaluate",
    "flat",
    "flops",
    "latency",
    "load",
    "make_shapes",
    "run",
    "suite",
    "train",
    "variant",
    "write_report",
]


# --- variants and modules ------------------------------------------------------------------


def variant(name: str, **overrides: Any) -> VariantSpec:
    """The frozen spec of a named variant.

    Args:
        name: DETECTOR_BACKBONE_NECK, such as `retinanet_r50_sepc`.
        overrides: fields to change, such as `norm="gn"`, or `**{"necks.1.depth": 6}`.

    Raises:
        UsageError: unknown variant or field, or a value that does not fit.
    """
    return find_variant(name, overrides)


def build(name: str | VariantSpec, **overrides: Any) -> Detector:
    """Build a variant as a module.

    Args:
        name: a variant, such as `retinanet_r50_sepc`, or its spec.
        overrides: fields to change, such as `norm="gn"`, or `**{"necks.1.depth": 6}`.

    Returns:
        A module with `.backbone`, `.necks` and `.head`. Calling it on a normalised batch
        (N, 3, H, W) gives the raw head outputs per level; `.detect` gives boxes.

    Raises:
        UsageError: unknown variant or field, or a value that does not fit.
    """
    from sepcbench import detectors

    return detectors.build(spec_of(name, overrides))


def load(
    path: str | Path,
    variant: str | VariantSpec | None = None,
    conventions: str | None = None,
    *,
    trust: bool = False,
    **overrides: Any,
) -> Detector:
    """Load a checkpoint of any known format with its producer's conventions.

    Args:
        path: safetensors, what `torch.save` wrote, or detectron2's pickle of arrays.
        variant: a name or a spec; needed only where keys and shapes fit several.
        conventions: a named set, instead of that of the producer.
        trust: unpickle whatever the file names, which may run any code in it.
        overrides: fields to change, such as `score_threshold=0.3`.

    Returns:
        A module in eval mode; `.detect` gives what the producer's code would give. What was
        concluded about the file, and why, is what `sepcbench inspect` prints.

    Raises:
        CheckpointError: it cannot be read, does not fit, or fits several variants.
        UsageError: unknown variant, conventions or field.
    """
    from sepcbench.checkpoints import loading
    from sepcbench.checkpoints.matching import Wishes

    wishes = Wishes(variant, conventions, tuple(overrides.items()))
    return loading.load(Path(path), wishes, trust).detector


# --- data, training and accuracy -----------------------------------------------------------


def make_shapes(
    folder: str | Path,
    *,
    images: int = 300,
    val_images: int = 100,
    seed: int = 0,
    size: str | tuple[int, int] = "128x128",
) -> Path:
    """Write a COCO-format set of coloured shapes, the same for the same arguments.

    Returns:
        The folder, for `train` and `evaluate`.
    """
    from sepcbench.data.shapes import generate

    generate(Path(folder), images=images, val_images=val_images, seed=seed, size=size_of(size))
    return Path(folder)


def train(
    target: str | VariantSpec,
    data: str | Path | CocoData,
    *,
    out: str | Path | None = None,
    split: str = "train",
    device: str = "cpu",
    resume: bool = False,
    **recipe: Any,
) -> tuple[Detector, Training]:
    """Train a variant from random weights.

    Args:
        target: a name or a spec; its number of classes becomes that of the set.
        data: a folder in COCO layout, or a set that is open.
        out: where `last.safetensors` goes, which `load` and `evaluate` read.
        split: which annotation file of a folder.
        device: where to train.
        resume: go on from `out`.
        recipe: fields of `specs.Recipe`, such as `iterations=100` or `optimizer="sgd"`.

    Returns:
        The detector in eval mode, and the record of the training.

    Raises:
        UsageError: an unknown variant or field, or nothing to resume.
        DataError: the set is missing or malformed.
        TrainingError: the loss is not finite, or `out` cannot be written.
    """
    from sepcbench.checkpoints import native
    from sepcbench.training.loop import train as run_training

    plan = Recipe(**known_fields(recipe, Recipe, "recipe field"))
    return run_training(
        spec_of(target, {}),
        _data(data, split),
        plan,
        device=device,
        out=Path(out) if out is not None else None,
        resume=resume,
        save=native.save,
    )


def evaluate(
    model: str | Path | Detector,
    data: str | Path | CocoData,
    *,
    split: str | None = None,
    classes: Sequence[str] | None = None,
    device: str = "cpu",
    batch: int = 1,
    workers: int = 0,
    limit: int | None = None,
) -> dict[str, Accuracy | Recall | Failure]:
    """Score a detector on a set, with the twelve COCO numbers.

    Args:
        model: a checkpoint that says what it is, or a detector of `build`, `load` or `train`.
        data: a folder in COCO layout, or a set that is open.
        split: which annotation file of a folder; by default the only one, or `val`.
        classes: the detector's class names, label 0 first; by default the checkpoint's, else
            the set's in the order of their ids.
        device: where to run.
        batch: images per call.
        workers: threads that read images.
        limit: score only the first images.

    Returns:
        "accuracy" to the record of the boxes, "masks" to that of the masks; "recall" for an RPN.

    Raises:
        CheckpointError: the file cannot be read, or fits several variants (then `load` it with
            `variant=`).
        DataError: the set is missing or malformed, or has other classes.
    """
    from sepcbench.measures.accuracy import detect_all
    from sepcbench.measures.scoring import scores

    truth = _data(data, split)
    truth = truth.first(limit) if limit else truth
    detector, names, digest = _detector(model)
    names = tuple(classes or names or truth.classes)
    if classes is None and len(names) != detector.spec.num_classes:
        raise DataError(
            f"the detector has {detector.spec.num_classes} classes and {truth.annotations} "
            f"{len(names)}; name its own with classes=, label 0 first"
        )
    found = detect_all(detector, truth, names, device=device, batch=batch, workers=workers)
    return dict(scores(truth, found, detector.spec, digest))


# --- suites --------------------------------------------------------------------------------


def suite(name: str | Path) -> Suite:
    """Read a suite by name or TOML file, and check all of it.

    Raises:
        UsageError: it is missing or malformed.
    """
    from sepcbench import suites

    return suites.load(str(name))


def run(
    what: str | Path | Suite,
    *,
    measures: Iterable[MeasureName] = (),
    only: Iterable[str] = (),
    fresh: bool = False,
    device: str = "cpu",
    data: str | Path | None = None,
    train: bool = False,
    recipe: str | Path | Mapping[str, Any] | None = None,
    seeds: int = 1,
    workers: int = 0,
    checkpoints: Mapping[str, str | Path] | None = None,
    results: str | Path = "results",
    work: str | Path = "runs",
) -> Results:
    """Run a suite: measure its rows, store each record at once, resume where it stopped.

    Args:
        what: a suite, by name, file or as `suite` gives it.
        measures: some of "cost", "latency" and "accuracy"; by default what the suite says.
        only: names of rows; by default all.
        fresh: measure again what is stored.
        device: where to run.
        data: a COCO folder to score on; "shapes" runs the suite's small twin.
        train: train the rows without a checkpoint on the split train of `data` first.
        recipe: how, by name or file; or fields to change in each row's own, such as
            `{"accumulate": 4}`. By default the row's, else the suite's, else "1x".
        seeds: with how many seeds every row is trained and scored.
        workers: threads that read images.
        checkpoints: row name to the checkpoint that is scored.
        results: where records go, under SUITE/MACHINE.
        work: where generated data and checkpoints go.

    Returns:
        All that is known about the suite's rows, for `write_report`; failures are in the rows.

    Raises:
        UsageError: an unknown suite, row, recipe or field, or nothing to train on.
        StoreError: a record cannot be written.
    """
    from sepcbench import recipes, suites
    from sepcbench.results import assemble
    from sepcbench.runner import RunOptions, run_suite

    found = what if isinstance(what, Suite) else suite(what)
    if str(data) == "shapes":
        found, data = suites.twin(found), None
    elif train and data is None:
        raise UsageError('train=True needs data=, a COCO folder or "shapes"')
    named = {recipes.KEY: str(recipe)} if isinstance(recipe, (str, Path)) else recipe or {}
    whole, fields = recipes.told(named)
    options = RunOptions(
        measures=tuple(measures),
        only=tuple(only),
        fresh=fresh,
        device=device,
        data=Path(data) if data is not None else None,
        train=train,
        recipe=whole,
        recipe_fields=fields,
        seeds=tuple(range(seeds)),
        workers=workers,
        checkpoints={row: Path(file) for row, file in (checkpoints or {}).items()},
        results=Path(results),
        work=Path(work),
    )
    return assemble(found, run_suite(found, options, _silent).store)


def write_report(what: Results | str | Path, out: str | Path) -> list[Path]:
    """Write tables, plots, a page and `records.json` of a run.

    Args:
        what: what `run` gave, or a folder of results that holds a `suite.json`.
        out: the folder they go to.

    Returns:
        The files written.
    """
    from sepcbench.report.files import write_report as write
    from sepcbench.results import assemble, kept_suite
    from sepcbench.store import Store

    if not isinstance(what, Results):
        store = Store(Path(what))
        what = assemble(kept_suite(store), store)
    return write(what, Path(out))


# --- from what is given to what is measured ------------------------------------------------


def _detector(model: str | Path | Detector) -> tuple[Detector, tuple[str, ...], str | None]:
    """A detector, its class names if known, and the digest of its file."""
    if not isinstance(model, (str, Path)):
        return model, (), None
    from sepcbench.checkpoints import loading, native

    loaded = loading.load(Path(model))
    return loaded.detector, loaded.classes, native.digest(Path(model))


def _data(data: str | Path | CocoData, split: str | None) -> CocoData:
    from sepcbench.data.coco import open_data

    return open_data(Path(data), split) if isinstance(data, (str, Path)) else data


@contextmanager
def _silent(title: str) -> Iterator[Callable[[int, int, str], None]]:
    yield lambda done, total, label: None
