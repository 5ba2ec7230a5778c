"""A table as text: what every renderer takes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Table:
    """Headers and rows of ready text; headers carry the unit and the direction.

    The first column is the row's name and is aligned left, the others right. `notes` go below.
    """

    title: str
    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()
