"""Tables for a terminal, by rich: a grid where it fits, else one block per row."""

from __future__ import annotations

import os
import sys
from typing import Literal, TextIO

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table as RichTable

from sepcbench.report.table import Table

# For output that is no terminal, unless COLUMNS says otherwise.
REDIRECTED_WIDTH = 200
# Columns with longer cells hold text, which reads from the left and may be folded.
_SENTENCE = 40
_GAP = 2


def print_table(table: Table, stream: TextIO | None = None) -> None:
    """Print one table with its title above and its notes below; numbers are never folded."""
    out = stream or sys.stdout
    width = None if out.isatty() else _redirected_width()
    console = Console(file=out, width=width, highlight=False)
    console.print(escape(table.title), style="bold")
    if _narrowest(table) <= console.width:
        console.print(_grid(table, console.width))
    else:
        _print_blocks(table, console)
    for note in table.notes:
        console.print(escape(note), style="dim")
    console.print()


def _redirected_width() -> int:
    given = os.environ.get("COLUMNS", "")
    return int(given) if given.isdigit() and int(given) > 0 else REDIRECTED_WIDTH


def _is_text(table: Table, column: int) -> bool:
    cells = [row[column] for row in table.rows if row[column]]
    long = any(len(cell) > _SENTENCE for cell in cells)
    return column == 0 or long or not any(cell[0] in "0123456789+-" for cell in cells)


def _least(table: Table, column: int) -> int:
    """The least width of a column at which no number and no word is broken."""
    words = table.headers[column].split()
    for row in table.rows:
        words += row[column].split() if _is_text(table, column) else [row[column]]
    return max(map(len, words), default=0)


def _narrowest(table: Table) -> int:
    """The least width of the whole table."""
    return sum(_least(table, i) + _GAP for i in range(len(table.headers)))


def _widest(table: Table) -> int:
    """The width at which nothing wraps."""
    columns = zip(table.headers, *table.rows)
    return sum(max(map(len, cells)) + _GAP for cells in columns)


def _grid(table: Table, width: int) -> RichTable:
    """The table; where it is tight, columns of numbers get just what their numbers need."""
    view = RichTable(box=box.SIMPLE_HEAD, pad_edge=False)
    tight = _widest(table) > width
    for i, header in enumerate(table.headers):
        text = _is_text(table, i)
        fixed = _least(table, i) if tight and not text else None
        justify: Literal["left", "right"] = "left" if text else "right"
        view.add_column(escape(header), justify=justify, overflow="fold", width=fixed)
    for row in table.rows:
        view.add_row(*(escape(cell) for cell in row))
    return view


def _print_blocks(table: Table, console: Console) -> None:
    """One block per row: its name, then a line per column; empty cells are left out."""
    for row in table.rows:
        console.print(f"\n{escape(row[0])}", style="bold")
        view = RichTable(box=None, show_header=False, pad_edge=False, padding=(0, 2))
        view.add_column(justify="left", overflow="fold")
        view.add_column(justify="left", overflow="fold")
        for header, cell in zip(table.headers[1:], row[1:]):
            if cell:
                view.add_row(f"  {escape(header)}", escape(cell))
        console.print(view)
    console.print()
