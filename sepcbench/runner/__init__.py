"""Runs a suite: every measure of every row, stored the moment it is done, resumed where it stopped.

Nothing heavy is imported before it is needed, and a row that fails becomes a stored failure with
its reason while the others go on.
"""

from __future__ import annotations

from collections.abc import Callable

from sepcbench.errors import unknown
from sepcbench.runner.accuracy import rows_to_score, run_accuracy
from sepcbench.runner.cost import run_cost
from sepcbench.runner.jobs import Say, run_jobs
from sepcbench.runner.latency import run_latency
from sepcbench.runner.places import prepare, rows_locked
from sepcbench.runner.state import Bar, Run, RunOptions
from sepcbench.specs import MeasureName
from sepcbench.store import Store
from sepcbench.suites import Suite, SuiteRow

MEASURES: dict[MeasureName, Callable[[Run], None]] = {
    "cost": run_cost,
    "accuracy": run_accuracy,
    "latency": run_latency,
}

# A process of a run that was killed ends soon after it; its rows are then free.
PART_WAIT_S = 90.0

__all__ = ["MEASURES", "Run", "RunOptions", "run_suite"]


def run_suite(suite: Suite, options: RunOptions, bar: Bar, say: Say | None = None) -> Run:
    """Run a suite.

    Args:
        suite: what to run.
        options: measures, rows, device and folders.
        bar: opens a progress bar of a given title.
        say: takes what the processes of `jobs` print, line by line.

    Returns:
        The run, with its failures and notes; the records are in its store.

    Raises:
        UsageError: an unknown row, or data that the suite cannot use.
        StoreError: a record cannot be written, or another process is running one of the rows.
    """
    from sepcbench.measures.environment import environment

    rows = _chosen(suite, options)
    machine = environment(options.device)
    store = Store(options.results / suite.name / machine.machine)
    run = Run(suite, options, store, machine, rows, bar)
    measures = list(options.measures or suite.file.measures)
    if 0 not in options.seeds:  # the first seed's run counts and times
        measures = [name for name in measures if name == "accuracy"]
    if options.jobs:
        measures = _hand_out(run, measures, say)
    wait_s = PART_WAIT_S if options.part else 0.0
    seeds = options.seeds if "accuracy" in measures else (0,)
    with rows_locked(store, (row.name for row in rows), wait_s, seeds):
        prepare(store, suite)
        for name, measure in MEASURES.items():
            if name in measures:
                measure(run)
    return run


def _hand_out(run: Run, measures: list[MeasureName], say: Say | None) -> list[MeasureName]:
    """Have jobs do all but the timing, which needs the device alone; what is left to do."""
    parts = [name for name in measures if name != "latency"]
    prepare(run.store, run.suite)
    if "accuracy" in parts:
        rows_to_score(run)
    if parts:
        run_jobs(run, parts, say or (lambda line: None))
    return [name for name in measures if name == "latency"]


def _chosen(suite: Suite, options: RunOptions) -> tuple[SuiteRow, ...]:
    names = [row.name for row in suite.rows]
    for name in (*options.only, *options.checkpoints):
        if name not in names:
            raise unknown(f"row of suite '{suite.name}'", name, names)
    return tuple(row for row in suite.rows if not options.only or row.name in options.only)
