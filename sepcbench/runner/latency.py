"""Times the rows of a suite against each other."""

from __future__ import annotations

from typing import Any

from sepcbench.records import Failure, Record, interrupted
from sepcbench.runner.state import Run, keep, reason, todo_rows
from sepcbench.store import key_of
from sepcbench.suites import SuiteRow


def run_latency(run: Run) -> None:
    """Time the chosen rows against each other and against the suite's first row.

    If one of them is missing, all are timed again. After Ctrl-C the complete rounds are stored.
    """
    from sepcbench.engines import ENGINES
    from sepcbench.measures.latency import measure

    settings, first = run.suite.file.latency, run.suite.rows[0]
    group = run.rows if first in run.rows else (first, *run.rows)
    key = key_of(settings, run.options.device, *(row.spec for row in group))
    if not todo_rows(run, "latency", {row.name: key for row in run.rows}):
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
        keep(run, row, "latency", "interrupted" if broken_off else key, records[row.name])
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
