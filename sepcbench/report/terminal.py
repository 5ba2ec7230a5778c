"""Tables for a terminal, by rich."""

from __future__ import annotations

import sys
from typing import TextIO

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table as RichTable

from sepcbench.report.table import Table

# Wide enough that a redirected table is not folded; on a terminal its own width is used.
REDIRECTED_WIDTH = 200
# Columns with longer cells hold text, which reads from the left; the others hold numbers.
_SENTENCE = 40


def print_table(table: Table, stream: TextIO | None = None) -> None:
    """Print one table with its title above and its notes below."""
    out = stream or sys.stdout
    width = None if out.isatty() else REDIRECTED_WIDTH
    console = Console(file=out, width=width, highlight=False)
    view = RichTable(box=box.SIMPLE_HEAD, pad_edge=False, title_justify="left", title_style="bold")
    view.title = escape(table.title)
    for i, header in enumerate(table.headers):
        left = i == 0 or any(len(row[i]) > _SENTENCE for row in table.rows)
        view.add_column(escape(header), justify="left" if left else "right", overflow="fold")
    for row in table.rows:
        view.add_row(*(escape(cell) for cell in row))
    console.print(view)
    for note in table.notes:
        console.print(escape(note), style="dim")
