"""One run of one suite: what to do, where things go, and storing what is done."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sepcbench.errors import Interrupted, SepcbenchError, StoreError
from sepcbench.records import Environment, Failure, Record
from sepcbench.specs import MeasureName, Recipe
from sepcbench.store import Store, Stored, now
from sepcbench.suites import Suite, SuiteRow

Progress = Callable[[int, int, str], None]
Bar = Callable[[str], AbstractContextManager[Progress]]


@dataclass(frozen=True)
class RunOptions:
    """What to run of a suite, on what, and where things go.

    `work` takes generated data and checkpoints; `results` takes records and reports.
    `checkpoints` gives a row a checkpoint, so that its AP can be measured on `data`; `proposals`
    are those of `data` for rows that take fixed ones. With `referee` pycocotools scores too.
    `seeds` are counted from the recipe's own: 0 is that one, of which `accuracy` is; without it
    rows are only scored.

    With `train` rows without a checkpoint are trained on the split train of `data`, by `recipe`,
    else the row's, else the suite's, else 1x; without `data` they are trained on the generated set
    anyway. `recipe_fields` are changed in each of these.

    `jobs` are devices: each takes one row and seed after the other, by `command` in a process of
    its own.
    A `part` is such a process. `workers` are threads that read images.
    """

    measures: tuple[MeasureName, ...] = ()
    only: tuple[str, ...] = ()
    fresh: bool = False
    device: str = "cpu"
    data: Path | None = None
    checkpoints: Mapping[str, Path] = field(default_factory=dict)
    proposals: Path | None = None
    referee: bool = False
    seeds: tuple[int, ...] = (0,)
    train: bool = False
    recipe: Recipe | None = None
    recipe_fields: Mapping[str, Any] = field(default_factory=dict)
    jobs: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    part: bool = False
    workers: int = 0
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

    @property
    def device_kind(self) -> str:
        """What numbers depend on: "cuda" for every GPU of a machine."""
        return self.options.device.partition(":")[0]


def attempt(run: Run, row: SuiteRow, kind: str, key: str, make: Callable[[], Record]) -> Record:
    """Measure, and store and return the record or the failure."""
    try:
        record = make()
    except (StoreError, Interrupted):
        raise
    except Exception as error:
        record = Failure(row.spec.name, kind, reason(error))
    keep(run, row, kind, key, record)
    return record


def reason(error: BaseException) -> str:
    """An exception as one line, with its kind where the message alone would not do."""
    first = " ".join(str(error).split())[:300]
    clear = isinstance(error, SepcbenchError) and first
    return first if clear else f"{type(error).__name__}: {first}"


def keep(run: Run, row: SuiteRow, kind: str, key: str, record: Record) -> None:
    """Store a record of a row, and note it where it is a failure.

    Args:
        run: takes the failure, and has the store.
        row: which row.
        kind: as stored, such as "accuracy@1".
        key: what the record depends on.
        record: to store, in the place of an older one.

    Raises:
        StoreError: it cannot be written.
    """
    if isinstance(record, Failure):
        run.failures.append(record)
    run.store.write(Stored(row.name, kind, key, now(), record, row.spec, run.environment))


def todo_rows(run: Run, kind: str, keys: Mapping[str, str]) -> list[SuiteRow]:
    """The rows of which a kind of record is not stored under its key, by row's name; or all."""
    return [
        row
        for row in run.rows
        if run.options.fresh or not run.store.done(row.name, kind, keys[row.name])
    ]
