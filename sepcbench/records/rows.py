"""Rows of a table: all that was measured and published for them."""

from __future__ import annotations

from dataclasses import dataclass

from sepcbench.records.cost import Cost, Environment
from sepcbench.records.failure import Failure
from sepcbench.records.latency import Latency
from sepcbench.records.scores import Accuracy, Recall
from sepcbench.records.training import Training
from sepcbench.specs import Recipe

# What a paper may publish of a row, in the unit papers print it in: AP and AR in %, latency in ms,
# MACs in 10^9, parameters in 10^6.
PUBLISHED = (
    "ap",
    "ap50",
    "ap75",
    "ap_small",
    "ap_medium",
    "ap_large",
    "mask_ap",
    "ar100",
    "ar1000",
    "ar1000_small",
    "ar1000_medium",
    "ar1000_large",
    "latency_ms",
    "gmacs",
    "params_m",
)


@dataclass(frozen=True)
class Published:
    """One published value, in the unit of `PUBLISHED`, with its source.

    With a `tolerance` (in the same unit) the row's variant claims to have this value: a test
    derives it again.
    """

    value: float
    source: str
    note: str = ""
    tolerance: float | None = None


@dataclass(frozen=True)
class ScoreDifference:
    """How far the AP of a row is above that of row `to`, as a fraction of 1, draw by draw.

    Of proposals it is AR at 1000. `resolved` says whether the 95 % interval leaves out 0, from
    enough images to tell.
    """

    to: str
    delta: float
    ci95: tuple[float, float] | None
    resolved: bool


@dataclass(frozen=True)
class Seeded:
    """A score, or the training behind it, of one more seed; `kind` as in its file's name."""

    kind: str
    seed: int
    record: Accuracy | Recall | Training


@dataclass(frozen=True)
class Row:
    """One row of a results table: everything measured and published for one variant.

    `differences` are to the first row that was scored, by kind of record. `timings` are latencies
    under further conditions (engine, dtype, batch) than those of `latency`; `seeds` are scores and
    trainings of further seeds than that of `accuracy`, `recall` and `training`.
    """

    name: str
    label: str
    variant: str
    published: tuple[tuple[str, Published], ...] = ()
    not_published: tuple[str, ...] = ()
    group: str = ""
    cost: Cost | None = None
    latency: Latency | None = None
    accuracy: Accuracy | None = None
    masks: Accuracy | None = None
    recall: Recall | None = None
    training: Training | None = None
    failures: tuple[Failure, ...] = ()
    differences: tuple[tuple[str, ScoreDifference], ...] = ()
    timings: tuple[Latency, ...] = ()
    seeds: tuple[Seeded, ...] = ()


@dataclass(frozen=True)
class ClaimOutcome:
    """A published statement and what the rows give for it; None where a value is missing."""

    name: str
    formula: str
    published: float | None
    measured: float | None
    source: str
    unit: str
    digits: int


@dataclass(frozen=True)
class Origin:
    """When and where one record of a row was measured; `kind` as in its file's name."""

    row: str
    kind: str
    created: str
    environment: Environment


@dataclass(frozen=True)
class Results:
    """All there is about a suite on one machine: what a report is drawn from.

    `run_as` are the arguments of `sepcbench run` that measure it, such as "fusion --data shapes".
    `notes` are on where records come from, where that is several folders. `recipes` has how the
    suite says that rows are trained, by name, of those that were.
    """

    suite: str
    title: str
    about: str
    machine: str
    generated_data: bool
    rows: tuple[Row, ...]
    claims: tuple[ClaimOutcome, ...]
    environment: Environment | None
    created: str
    origins: tuple[Origin, ...] = ()
    run_as: str = ""
    notes: tuple[str, ...] = ()
    recipes: tuple[tuple[str, Recipe], ...] = ()
