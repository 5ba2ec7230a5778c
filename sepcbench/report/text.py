"""Tables as Markdown and CSV."""

from __future__ import annotations

import csv
import io

from sepcbench.report.table import Table


def markdown(table: Table) -> str:
    """Write a table as GitHub Markdown, with its title as a heading and notes as a list."""
    lines = [f"### {table.title}", "", _line(table.headers)]
    columns = range(len(table.headers))
    lines.append(_line(["---" if table.is_text(i) else "---:" for i in columns]))
    lines += [_line(row) for row in table.rows]
    if table.notes:
        lines += ["", *(f"- {note}" for note in table.notes)]
    return "\n".join(lines) + "\n"


def _line(cells: tuple[str, ...] | list[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def to_csv(table: Table) -> str:
    """Write headers and rows as CSV (RFC 4180 quoting, one header line, no notes)."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(table.headers)
    writer.writerows(table.rows)
    return out.getvalue()
