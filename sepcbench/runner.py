"""Runs a suite: every measure of every row, stored the moment it is done, resumed where it stopped.

Nothing heavy is imported before it is needed, and a row that fails becomes a stored failure with
its reason while the others go on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sepcbench.errors import Interrupted, SepcbenchError, StoreError, UsageError, unknown
from sepcbench.records import Environment, Failure, Record, interrupted
from sepcbench.results import keep_suite
from sepcbench.specs import MeasureName
from sepcbench.store import Store, Stored, key_of, now
from sepcbench.suites import Suite, SuiteRow
from sepcbench.units import parse_shape

if TYPE_CHECKING:
    from sepcbench.data.coco import CocoData

Progress = Callable[[int, int, str], None]
Bar = Callable[[str], AbstractContextManager[Progress]]


@dataclass(frozen=True)
class RunOptions:
    """What to run of a suite, on what, and where things go.

    `work` takes generated data and checkpoints; `results` takes records and reports.
    `checkpoints` gives a row a checkpoint, so that its AP can be measured on `data`.
    """

    measures: tuple[MeasureName, ...] = ()
    only: tuple[str, ...] = ()
    fresh: bool = False
    device: str = "cpu"
    data: Path | None = None
    checkpoints: Mapping[str, Path] = field(default_factory=dict)
    results: Path = Path("results")
    work: Path = Path("runs")


@dataclass
class Run:
    """One run of one suite on this machine."""

    suite: Suite
    options: RunOptions
    store: Store
    environment: Environment
    rows: tuple[SuiteRow, ...]
    bar: Bar
    failures: list[Failure] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def run_suite(suite: Suite, options: RunOptions, bar: Bar) -> Run:
    """Run a suite.

    Args:
        suite: what to run.
        options: measures, rows, device and folders.
        bar: opens a progress bar of a given title.

    Returns:
        The run, with its failures and notes; the records are in its store.

    Raises:
        UsageError: an unknown row, or data that the suite cannot use.
        StoreError: a record cannot be written.
    """
    from sepcbench.measures.environment import environment

    rows = _chosen(suite, options)
    machine = environment(options.device)
    store = Store(options.results / suite.name / machine.machine)
    keep_suite(store, suite)
    run = Run(suite, options, store, machine, rows, bar)
    measures = options.measures or suite.file.measures
    for name, measure in MEASURES.items():
        if name in measures:
            measure(run)
    return run


def _chosen(suite: Suite, options: RunOptions) -> tuple[SuiteRow, ...]:
    names = [row.name for row in suite.rows]
    for name in (*options.only, *options.checkpoints):
        if name not in names:
            raise unknown(f"row of suite '{suite.name}'", name, names)
    return tuple(row for row in suite.rows if not options.only or row.name in options.only)


def _attempt(run: Run, row: SuiteRow, kind: str, key: str, make: Callable[[], Record]) -> None:
    """Measure, and store the record or the failure."""
    try:
        record = make()
    except (StoreError, Interrupted):
        raise
    except Exception as error:
        record = Failure(row.spec.name, kind, reason(error))
    _keep(run, row, kind, key, record)


def reason(error: BaseException) -> str:
    """An exception as one line, with its kind where the message alone would not do."""
    first = " ".join(str(error).split())[:300]
    clear = isinstance(error, SepcbenchError) and first
    return first if clear else f"{type(error).__name__}: {first}"


def _keep(run: Run, row: SuiteRow, kind: str, key: str, record: Record) -> None:
    if isinstance(record, Failure):
        run.failures.append(record)
    run.store.write(Stored(row.name, kind, key, now(), record, row.spec, run.environment))


def _todo(run: Run, kind: str, keys: Mapping[str, str]) -> list[SuiteRow]:
    return [
        row
        for row in run.rows
        if run.options.fresh or not run.store.done(row.name, kind, keys[row.name])
    ]


# --- cost ----------------------------------------------------------------------------------


def _run_cost(run: Run) -> None:
    from sepcbench import detectors
    from sepcbench.measures.cost import cost

    settings = run.suite.file.cost
    keys = {row.name: key_of(row.spec, settings) for row in run.rows}
    todo = _todo(run, "cost", keys)
    with run.bar(f"{run.suite.name}: cost") as progress:
        for done, row in enumerate(todo):
            progress(done, len(todo), row.label)
            _attempt(
                run,
                row,
                "cost",
                keys[row.name],
                lambda row=row: cost(  # type: ignore[misc]
                    detectors.build(row.spec, init=False),
                    run.suite.cost_shape,
                    convention=settings.convention,
                ),
            )


# --- latency -------------------------------------------------------------------------------


def _run_latency(run: Run) -> None:
    """Time the chosen rows against each other and against the suite's first row.

    If one of them is missing, all are timed again. After Ctrl-C the complete rounds are stored.
    """
    from sepcbench.engines import ENGINES
    from sepcbench.measures.latency import measure

    settings, first = run.suite.file.latency, run.suite.rows[0]
    group = run.rows if first in run.rows else (first, *run.rows)
    key = key_of(settings, run.options.device, *(row.spec for row in group))
    if not _todo(run, "latency", {row.name: key for row in run.rows}):
        return
    built, records = _build(group, settings.protocol.seed)
    with run.bar(f"{run.suite.name}: latency") as progress:
        records |= measure(
            built,
            scope=settings.scope,
            shape=run.suite.latency_shape,
            batch=settings.batch,
            dtype=settings.dtype,
            device=run.options.device,
            engine=settings.engine,
            protocol=settings.protocol,
            run_as=ENGINES[settings.engine],
            reference=first.name,
            progress=progress,
        )
    broken_off = interrupted(records.values())
    for row in run.rows:
        _keep(run, row, "latency", "interrupted" if broken_off else key, records[row.name])
    if broken_off:
        raise KeyboardInterrupt


def _build(rows: tuple[SuiteRow, ...], seed: int) -> tuple[dict[str, Any], dict[str, Record]]:
    """Build the detectors of rows; those that cannot be built become failures."""
    from sepcbench import detectors

    built: dict[str, Any] = {}
    failed: dict[str, Record] = {}
    for row in rows:
        try:
            built[row.name] = detectors.build(row.spec, seed=seed)
        except Exception as error:
            failed[row.name] = Failure(row.spec.name, "latency", reason(error))
    return built, failed


# --- accuracy ------------------------------------------------------------------------------


def _run_accuracy(run: Run) -> None:
    """Score each row's checkpoint; on the generated set, train it first."""
    train = run.suite.file.train is not None and run.options.data is None
    rows = [row for row in run.rows if train or row.name in run.options.checkpoints]
    missing = len(run.rows) - len(rows)
    if missing:
        run.notes.append(
            f"accuracy: {missing} of {len(run.rows)} rows have no checkpoint and stay empty; "
            "give one with --checkpoint ROW=FILE --data DIR"
        )
    if not rows:
        return
    train_data, test_data = _data(run)
    for row in rows:
        _attempt_accuracy(run, row, train_data, test_data)


def _data(run: Run) -> tuple[CocoData | None, CocoData]:
    """The training and the test images: the generated set, or the user's."""
    from sepcbench.data.coco import open_data

    shapes = run.suite.file.shapes
    if run.options.data is not None:
        return None, open_data(run.options.data, "val")
    if shapes is None:
        raise UsageError(f"suite '{run.suite.name}' brings no data; give --data DIR in COCO layout")
    from sepcbench.data.shapes import generate

    folder = run.options.work / run.suite.name / f"shapes-{key_of(shapes)}"
    if not (folder / "complete").is_file():
        with run.bar(f"{run.suite.name}: generated set") as progress:
            generate(
                folder,
                images=shapes.images,
                val_images=shapes.val_images,
                seed=shapes.seed,
                size=parse_shape(shapes.size),
                progress=progress,
            )
        (folder / "complete").write_text("all images are written\n")
    return open_data(folder, "train"), open_data(folder, "val")


def _attempt_accuracy(
    run: Run, row: SuiteRow, train_data: CocoData | None, test_data: CocoData
) -> None:
    file = run.suite.file
    given = run.options.checkpoints.get(row.name)
    trained: tuple[Any, ...] = (row.spec, file.shapes, file.train, run.options.device)
    key = key_of(*trained)
    if given is not None:
        key = key_of(row.spec, run.options.device, *_digests(given, test_data.annotations))
    if not run.options.fresh and run.store.done(row.name, "accuracy", key):
        return

    def make() -> Record:
        path = given or _train(run, row, train_data, key_of(*trained))
        return _score(run, row, path, test_data)

    _attempt(run, row, "accuracy", key, make)


def _digests(*files: Path) -> list[str]:
    """What is in the files: the same path may hold another checkpoint the next time."""
    from sepcbench.checkpoints import native

    return [native.digest(file) if file.is_file() else "missing" for file in files]


def _train(run: Run, row: SuiteRow, data: CocoData | None, key: str) -> Path:
    """Train a row on the generated set, going on from where an earlier run was stopped."""
    from sepcbench.checkpoints import native
    from sepcbench.training.loop import train

    recipe = run.suite.file.train
    if data is None or recipe is None:
        raise UsageError(f"row '{row.name}' has no checkpoint; give --checkpoint {row.name}=FILE")
    out = run.options.work / run.suite.name / f"{row.name}-{key}"
    with run.bar(f"{run.suite.name}: train {row.label}") as progress:
        _, record = train(
            row.spec,
            data,
            recipe,
            device=run.options.device,
            out=out,
            resume=not run.options.fresh and (out / "state.pt").is_file(),
            progress=progress,
            save=native.save,
        )
    _keep(run, row, "training", key, record)
    return out / "last.safetensors"


def _score(run: Run, row: SuiteRow, path: Path, data: CocoData) -> Record:
    from sepcbench.checkpoints import loading, native
    from sepcbench.checkpoints.matching import Wishes
    from sepcbench.measures.accuracy import detect_all
    from sepcbench.measures.scoring import score

    spec = replace(row.spec, num_classes=len(data.categories))
    loaded = loading.load(path, Wishes(spec))
    detector, classes = loaded.detector, loaded.classes or data.classes
    with run.bar(f"{run.suite.name}: score {row.label}") as progress:
        found = detect_all(detector, data, classes, device=run.options.device, progress=progress)
    return score(data, found, variant=row.spec.name, checkpoint=native.digest(path))


MEASURES: dict[MeasureName, Callable[[Run], None]] = {
    "cost": _run_cost,
    "accuracy": _run_accuracy,
    "latency": _run_latency,
}
