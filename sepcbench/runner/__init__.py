"""Runs a suite: every measure of every row, stored the moment it is done, resumed where it stopped.

Nothing heavy is imported before it is needed, and a row that fails becomes a stored failure with
its reason while the others go on.
"""

from __future__ import annotations

from collections.abc import Callable

from sepcbench.errors import unknown
from sepcbench.locks import locked
from sepcbench.results import keep_suite
from sepcbench.runner.accuracy import run_accuracy
from sepcbench.runner.cost import run_cost
from sepcbench.runner.latency import run_latency
from sepcbench.runner.state import Bar, Run, RunOptions
from sepcbench.specs import MeasureName
from sepcbench.store import Store
from sepcbench.suites import Suite, SuiteRow
from sepcbench.whole_files import sweep

MEASURES: dict[MeasureName, Callable[[Run], None]] = {
    "cost": run_cost,
    "accuracy": run_accuracy,
    "latency": run_latency,
}

__all__ = ["MEASURES", "Run", "RunOptions", "run_suite"]


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
        StoreError: a record cannot be written, or another process is running this suite there.
    """
    from sepcbench.measures.environment import environment

    rows = _chosen(suite, options)
    machine = environment(options.device)
    store = Store(options.results / suite.name / machine.machine)
    run = Run(suite, options, store, machine, rows, bar)
    measures = options.measures or suite.file.measures
    with locked(store.folder, "choose another --results folder"):
        sweep(store.folder)
        sweep(store.folder / "records")
        keep_suite(store, suite)
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
