"""Scores the rows of a suite, seed by seed; what has no checkpoint is trained first."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from sepcbench.records import Failure, Record
from sepcbench.runner.proposals import make_proposals
from sepcbench.runner.scoring import forget_images, kinds, score
from sepcbench.runner.sets import Sets, open_sets
from sepcbench.runner.state import Run, attempt, keep
from sepcbench.runner.training import Trainee, recipe_key, recipe_of, train, with_seed
from sepcbench.store import key_of, seeded_kind
from sepcbench.suites import SuiteRow


@dataclass(frozen=True)
class _Job:
    """One row with one seed: a given checkpoint, or a training."""

    row: SuiteRow
    seed: int
    label: str
    given: Path | None
    trainee: Trainee | None
    key: str

    def kind(self, plain: str) -> str:
        """The kind of a record as stored."""
        return seeded_kind(plain, self.seed)


def run_accuracy(run: Run) -> None:
    """Score each row's checkpoint, or train it, once for every seed."""
    rows = rows_to_score(run)
    if not rows:
        return
    sets = open_sets(run)
    # every row with the first seed, then with the next: a table is whole as early as can be
    for seed in run.options.seeds:
        for row in rows:
            if seed == 0 or has_seeds(run, row):
                _attempt(run, _job(run, row, seed, sets), sets)


def rows_to_score(run: Run) -> list[SuiteRow]:
    """The rows that have a checkpoint or will be trained; of others there is a note."""
    given = run.options.checkpoints
    rows = [row for row in run.rows if row.name in given or recipe_of(run, row) is not None]
    missing = len(run.rows) - len(rows)
    if missing:
        run.notes.append(
            f"accuracy: {missing} of {len(run.rows)} rows have no checkpoint and stay empty; "
            "give one with --checkpoint ROW=FILE --data DIR, train them with --train --data DIR, "
            "or see the suite's small twin with --data shapes"
        )
    return rows


def has_seeds(run: Run, row: SuiteRow) -> bool:
    """Whether a row is trained: a checkpoint that is given has no other seeds."""
    return row.name not in run.options.checkpoints and recipe_of(run, row) is not None


def _job(run: Run, row: SuiteRow, seed: int, sets: Sets) -> _Job:
    given = run.options.checkpoints.get(row.name)
    label = f"{row.label}, seed {seed}" if seed else row.label
    passes = [] if row.test_time is None else [row.test_time]
    if given is not None:
        fixed = sets.fixed(row.spec)
        files = [given, sets.val.annotations, *([fixed] if fixed else [])]
        key = key_of(row.spec, run.device_kind, *(sets.digest(file) for file in files), *passes)
        return _Job(row, seed, label, given, None, key)
    recipe = with_seed(recipe_of(run, row), seed)
    assert recipe is not None  # rows without a checkpoint are left out where none is trained
    trained = recipe_key(run, row.spec, recipe, sets)
    trainee = Trainee(label, row.spec, recipe, trained, row)
    val = [] if sets.made_here else [sets.digest(sets.val.annotations)]
    job = _Job(row, seed, label, None, trainee, key_of(row.spec, trained, *val, *passes))
    return replace(job, trainee=replace(trainee, kind=job.kind("training")))


def _attempt(run: Run, job: _Job, sets: Sets) -> None:
    first, *others = (job.kind(plain) for plain in kinds(job.row.spec.head))
    done = all(run.store.done(job.row.name, kind, job.key) for kind in (first, *others))
    if done and not run.options.fresh:
        return
    more: dict[str, Record] = {}
    checkpoints: list[Path] = []

    def make() -> Record:
        checkpoints.append(_checkpoint(run, job, sets))
        scored = _score(run, job, checkpoints[0], sets)
        more.update({kind: scored[kind] for kind in others})
        return scored[first]

    record = attempt(run, job.row, first, job.key, make)
    if isinstance(record, Failure):
        more = {kind: replace(record, measure=kind) for kind in others}
    for kind, other in more.items():
        keep(run, job.row, kind, job.key, other)
    if not isinstance(record, Failure):
        forget_images(run, checkpoints[0])


def _checkpoint(run: Run, job: _Job, sets: Sets) -> Path:
    """That which is given, or trained now."""
    if job.trainee is not None or sets.made_here:
        make_proposals(run, job.row.spec, sets)
    path = job.given if job.trainee is None else train(run, job.trainee, sets)
    assert path is not None  # a job has one or the other
    return path


def _score(run: Run, job: _Job, path: Path, sets: Sets) -> dict[str, Record]:
    """The records by kind as stored."""
    scored = score(run, job.label, job.row, path, sets)
    return {job.kind(plain): record for plain, record in scored.items()}
