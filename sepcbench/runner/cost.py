"""Counts the rows of a suite."""

from __future__ import annotations

from sepcbench.runner.state import Run, attempt, todo_rows
from sepcbench.store import key_of
from sepcbench.units import parse_shape


def run_cost(run: Run) -> None:
    """Count every row that is not counted yet."""
    from sepcbench import detectors
    from sepcbench.measures.cost import cost

    keys = {row.name: key_of(row.spec, row.cost) for row in run.rows}
    todo = todo_rows(run, "cost", keys)
    with run.bar(f"{run.suite.name}: cost") as progress:
        for done, row in enumerate(todo):
            progress(done, len(todo), row.label)
            attempt(
                run,
                row,
                "cost",
                keys[row.name],
                lambda row=row: cost(  # type: ignore[misc]
                    detectors.build(row.spec, init=False),
                    parse_shape(row.cost.shape),
                    convention=row.cost.convention,
                ),
            )
