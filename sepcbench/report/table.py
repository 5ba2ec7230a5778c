"""A table as text: what every renderer takes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Table:
    """Headers and rows of ready text; headers carry the unit and the direction.

    The first column is the row's name and is aligned left, the others right. `notes` go below. The
    first `keys` columns say which row it is: a terminal that is too narrow shows them again and
    again, each time with some of the other columns. With 0 it shows one block per row.
    """

    title: str
    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()
    keys: int = 0
