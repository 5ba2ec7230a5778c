"""A suite's results as tables: rows with measured, published and difference; and its claims."""

from __future__ import annotations

from collections.abc import Callable

from sepcbench.records import ClaimOutcome, Results, Row
from sepcbench.report.columns import (
    BLANK,
    BLANK_NOTE,
    COLUMNS,
    NOT_AT_HAND,
    conditions,
    counted_alike,
    counted_as,
    measured_cell,
    published_cells,
    used_columns,
)
from sepcbench.report.levels_table import levels_table
from sepcbench.report.seeds import seeds_table
from sepcbench.report.table import Table
from sepcbench.report.timing_tables import parts_table, timing_table
from sepcbench.report.verdict import verdict_table


def tables(results: Results) -> list[Table]:
    """The row table, then every other one that the records give something for."""
    claims = claim_table(results) if results.claims else None
    more = (claims, *(make(results) for make in MORE_TABLES.values()))
    return [row_table(results), *(table for table in more if table is not None)]


VERDICT, TIMINGS = "Verdict", "Latency by engine, dtype and batch"
# After the rows and the claims: each where the records give something for it.
MORE_TABLES: dict[str, Callable[[Results], Table | None]] = {
    VERDICT: verdict_table,
    "Over seeds": seeds_table,
    TIMINGS: timing_table,
    "Latency by part": parts_table,
    "Which pyramid level found what": levels_table,
}


def row_table(results: Results) -> Table:
    """Measured values, each beside the published one and their difference where one exists."""
    names = used_columns(results)
    shown = {name: _is_published(name, results.rows) for name in names}
    alike = counted_alike(results.rows)
    headers = ["row"] if alike else ["row", "counted at"]
    for name, published in shown.items():
        headers.append(COLUMNS[name].header)
        if published:
            headers += ["published", "difference"]
    rows = tuple(_cells(row, shown, alike) for row in results.rows)
    notes = [*conditions(results)]
    if any(cell in (BLANK, NOT_AT_HAND) for row in rows for cell in row):
        notes.append(BLANK_NOTE)
    notes += [*results.notes, *_sources(results.rows), *_failures(results.rows)]
    keys = 1 if alike else 2
    return Table(f"{results.title} ({results.machine})", tuple(headers), rows, tuple(notes), keys)


def _is_published(name: str, rows: tuple[Row, ...]) -> bool:
    key = COLUMNS[name].published
    return any(key in dict(row.published) for row in rows)


def _cells(row: Row, shown: dict[str, bool], alike: bool) -> tuple[str, ...]:
    cells = [row.label] if alike else [row.label, counted_as(row)]
    for name, published in shown.items():
        cells.append(measured_cell(COLUMNS[name], row))
        if published:
            cells += published_cells(COLUMNS[name], row)
    return tuple(cells)


def _sources(rows: tuple[Row, ...]) -> list[str]:
    sources = {value.source for row in rows for _, value in row.published}
    return [f"Published: {source}" for source in sorted(sources)]


def _failures(rows: tuple[Row, ...]) -> list[str]:
    return [
        f"Failed: {row.label}, {failure.measure}: {failure.reason}"
        for row in rows
        for failure in row.failures
    ]


def claim_table(results: Results) -> Table:
    """What the paper states about the rows, beside what the rows give."""
    headers = ("statement", "measured", "published", "difference", "unit", "formula")
    rows = tuple(_claim_cells(claim) for claim in results.claims)
    sources = sorted({claim.source for claim in results.claims if claim.source})
    notes = [f"Published: {source}" for source in sources]
    if any(claim.measured is None for claim in results.claims):
        notes.insert(0, BLANK_NOTE)
    return Table(f"{results.title}: published statements", headers, rows, tuple(notes))


def _claim_cells(claim: ClaimOutcome) -> tuple[str, ...]:
    digits, measured, published = claim.digits, claim.measured, claim.published
    both = measured is not None and published is not None
    return (
        claim.name,
        BLANK if measured is None else f"{measured:.{digits}f}",
        BLANK if published is None else f"{published:g}",
        f"{measured - published:+.{digits}f}" if both else BLANK,  # type: ignore[operator]
        claim.unit,
        claim.formula,
    )
