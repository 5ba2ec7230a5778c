"""The cells of a suite's table by name: ROW.COLUMN, and what cells a row has."""

from __future__ import annotations

from sepcbench.errors import UsageError, unknown
from sepcbench.records import Results, Row
from sepcbench.report.columns import COLUMNS, measured_cell, published_cells, used_columns
from sepcbench.report.further import MORE, completed, first, further, split_kind, under
from sepcbench.report.table import Table


def find_cell(results: Results, cell: str) -> tuple[Row, str]:
    """Find a cell named ROW.COLUMN, such as "sepc.latency_ratio".

    "sepc.latency@folded-fp32-1" is under further conditions, "sepc.ap@2" of a further seed. Rows
    and columns may be written as the table heads them, in any case: "SEPC.AP".

    Returns:
        The row, and the key of the column in `COLUMNS`, with what is after the sign.

    Raises:
        UsageError: there is no such row, no such column in this suite's table, or no such further
            record; the line says what there is.
    """
    row_name, dot, column = cell.rpartition(".")
    if not dot or not row_name or not column or column[0] == MORE or column[-1] == MORE:
        raise UsageError(
            f"cell '{cell}' is not ROW.COLUMN; write it like {_example(results)}, or a row alone "
            f"to see its cells: {results.rows[0].name}"
        )
    row = find_row(results, row_name)
    if row is None:
        rows = [one.name for one in results.rows]
        raise unknown(f"row of suite '{results.suite}'", row_name, rows)
    name, more = split_kind(column)
    # a CPU's latencies have no column of their own; what there is of them are ratios
    on_cpu = name.lower() == "latency" and not _on_gpu(row) and (more or row.latency)
    used = used_columns(results)
    name = "latency_ratio" if on_cpu else _named(name, used)
    if name not in used and not (more and name in COLUMNS and further(row, COLUMNS[name].measure)):
        raise unknown(f"column of suite '{results.suite}'", name, used, _columns_hint(used))
    kind = COLUMNS[name].measure
    more = completed(row, kind, more) if more else more
    if not more or more == first(row, kind):
        return row, name
    under(row, kind, more)
    return row, f"{name}{MORE}{more}"


def find_row(results: Results, name: str) -> Row | None:
    """The row of a name, else the one row that is labelled or spelt so but for upper case."""
    exact = [row for row in results.rows if row.name == name]
    plain = name.lower()
    alike = [row for row in results.rows if plain in (row.name.lower(), row.label.lower())]
    found = exact or alike
    return found[0] if len(found) == 1 else None


def _named(name: str, used: list[str]) -> str:
    """The key of the one column that is headed so, such as "AP" or "AP small"; else the name."""
    if name in COLUMNS:
        return name
    plain = name.lower()
    heads = {key: COLUMNS[key].header.partition(" (")[0].lower() for key in used}
    found = [
        key for key, head in heads.items() if plain in (key, head, head.partition(",")[0].strip())
    ]
    return found[0] if len(found) == 1 else name


def row_cells(results: Results, row: Row) -> Table:
    """What cells a row has in its table: how each is named, and what it says."""
    lines = []
    for name in used_columns(results):
        column = COLUMNS[name]
        published = dict(row.published).get(column.published or "")
        given = published_cells(column, row)[0] if published else ""
        more = ", ".join(f"{MORE}{one}" for one in further(row, column.measure))
        lines.append((f"{row.name}.{name}", column.header, measured_cell(column, row), given, more))
    headers = ("cell", "column", "measured", "published", "further")
    kept = [i for i in range(len(headers)) if i < 3 or any(line[i] for line in lines)]
    return Table(
        f"Cells of {row.label} ({results.machine})",
        tuple(headers[i] for i in kept),
        tuple(tuple(line[i] for i in kept) for line in lines),
        ("Where one comes from: --why with its name, and what is under further if that is meant.",),
    )


def _on_gpu(row: Row) -> bool:
    timed = [one for one in (row.latency, *row.timings) if one is not None]
    return any(one.device.startswith("cuda") for one in timed)


def _example(results: Results) -> str:
    used = used_columns(results) or list(COLUMNS)
    return f"{results.rows[0].name}.{used[0]}"


def _columns_hint(used: list[str]) -> str:
    return f"columns: {', '.join(used)}"
