"""A table as text: what every renderer takes."""

from __future__ import annotations

from dataclasses import dataclass

# Columns with longer cells hold sentences.
_SENTENCE = 40


@dataclass(frozen=True)
class Table:
    """Headers and rows of ready text; headers carry the unit and the direction.

    The first column is the row's name; it and columns of words are aligned left, the others right.
    `notes` go below. The first `keys` columns say which row it is: a terminal that is too narrow
    shows them again and again, each time with some of the other columns. With 0 it shows one block
    per row.
    """

    title: str
    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()
    keys: int = 0

    def is_text(self, column: int) -> bool:
        """Whether a column holds words, which may be folded, not numbers."""
        cells = [row[column] for row in self.rows if row[column]]
        numbers = not cells or any(cell[0] in "0123456789+-[" for cell in cells)
        return column == 0 or self.is_long(column) or not numbers

    def is_long(self, column: int) -> bool:
        """Whether a column holds sentences."""
        return any(len(row[column]) > _SENTENCE for row in self.rows)
