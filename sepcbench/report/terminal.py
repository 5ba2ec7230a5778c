"""Tables for a terminal, by rich: a grid where it fits, else several, or one block per row."""

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
_GAP = 3


def print_table(table: Table, stream: TextIO | None = None) -> None:
    """Print one table with its title above and its notes below; numbers are never folded.

    Where it goes to a file, lines are as long as they are: no word is folded either.
    """
    out = stream or sys.stdout
    to_file = not out.isatty()
    width = _redirected_width() if to_file else None
    console = Console(file=out, width=width, highlight=False, soft_wrap=to_file)
    console.print(escape(table.title), style="bold")
    if _narrowest(table) <= console.width:
        console.print(_grid(table, console.width), soft_wrap=False)
    elif parts := _strips(table, console.width):
        for part in parts:
            console.print(_grid(part, console.width), soft_wrap=False)
    elif to_file:
        _print_lines(table, console)
    else:
        _print_blocks(table, console)
    for note in table.notes:
        console.print(escape(note), style="dim")
    console.print()


def _redirected_width() -> int:
    given = os.environ.get("COLUMNS", "")
    return int(given) if given.isdigit() and int(given) > 0 else REDIRECTED_WIDTH


def _least(table: Table, column: int) -> int:
    """The least width of a column at which no number and no word is broken."""
    words = table.headers[column].split()
    for row in table.rows:
        words += row[column].split() if table.is_text(column) else [row[column]]
    return max(map(len, words), default=0)


def _narrowest(table: Table) -> int:
    """The least width of the whole table."""
    return sum(_least(table, i) + _GAP for i in range(len(table.headers)))


def _strips(table: Table, width: int) -> list[Table]:
    """The columns in as few tables as fit, each with the keys; none of one row or too narrow."""
    needs = [_least(table, i) + _GAP for i in range(len(table.headers))]
    keys = list(range(table.keys))
    room = width - sum(needs[i] for i in keys)
    if not keys or len(table.rows) < 2 or max(needs[table.keys :], default=0) > room:
        return []
    strips: list[list[int]] = []
    left = 0
    for i in range(table.keys, len(needs)):
        if needs[i] > left:
            strips.append([])
            left = room
        strips[-1].append(i)
        left -= needs[i]
    return [_columns(table, keys + strip) for strip in strips]


def _columns(table: Table, chosen: list[int]) -> Table:
    headers = tuple(table.headers[i] for i in chosen)
    return Table("", headers, tuple(tuple(row[i] for i in chosen) for row in table.rows))


def _longest(table: Table, column: int) -> int:
    """The width at which a column does not wrap."""
    return max(map(len, [table.headers[column], *(row[column] for row in table.rows)]))


def _widths(table: Table, width: int) -> list[int]:
    """A width per column: what it needs, and of what is left as much as its text has use for."""
    columns = range(len(table.headers))
    widths = [_least(table, i) for i in columns]
    spare = width - sum(widths) - _GAP * len(widths)
    for i in sorted(columns, key=lambda i: not table.is_text(i)):
        more = min(max(spare, 0), _longest(table, i) - widths[i])
        widths[i] += more
        spare -= more
    return widths


def _grid(table: Table, width: int) -> RichTable:
    """The table; where it is tight, no word and no number is broken."""
    view = RichTable(box=box.SIMPLE_HEAD, pad_edge=False)
    for i, (header, given) in enumerate(zip(table.headers, _widths(table, width))):
        justify: Literal["left", "right"] = "left" if table.is_text(i) else "right"
        view.add_column(escape(header), justify=justify, overflow="fold", width=given)
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


def _print_lines(table: Table, console: Console) -> None:
    """The same for a file: one line per cell, however long."""
    widest = max(map(len, table.headers[1:]), default=0)
    for row in table.rows:
        console.print(f"\n{escape(row[0])}", style="bold")
        for header, cell in zip(table.headers[1:], row[1:]):
            if cell:
                console.print(f"  {escape(header):<{widest}}  {escape(cell)}")
    console.print()
