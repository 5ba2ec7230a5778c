r"""A suite's tables as LaTeX, ready to be read in by a paper with `\input{table.tex}`.

Needs the packages booktabs, threeparttable, xcolor and adjustbox.
"""

from __future__ import annotations

import re

from sepcbench.records import Results, Row
from sepcbench.report.columns import (
    BLANK_NOTE,
    COLUMNS,
    Column,
    comparable,
    conditions,
    counted_alike,
    counted_as,
    higher_is_better,
    measured_cell,
    published_text,
    used_columns,
)
from sepcbench.report.suite_tables import claim_table

DASH = "--"
_ESCAPES = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "~": r"$\sim$",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "''",
}
_PACKAGES = r"% needs \usepackage{booktabs,threeparttable,xcolor,adjustbox}"
_DASH_NOTE = f"{DASH} not measured here; in grey: not published, or no source of it is at hand"
_HYPHEN = re.compile(r"(?<![\w-])-(?=\d)")  # before a number: its sign
_ARROWS = {" (lower is better)": r" $\downarrow$", " (higher is better)": r" $\uparrow$"}


def latex(results: Results) -> str:
    """Write the row table, and the claim table if the suite makes claims."""
    parts = [_PACKAGES, _row_table(results)]
    if results.claims:
        parts.append(_claim_table(results))
    return "\n\n".join(parts) + "\n"


def escape(text: str) -> str:
    """Text as LaTeX prints it; line breaks become spaces."""
    plain = "".join(_ESCAPES.get(sign, sign) for sign in " ".join(text.split()))
    # at the start of a row or an item these would be read as an argument
    return "{}" + plain if plain[:1] in ("[", "*") else plain


def _row_table(results: Results) -> str:
    names = used_columns(results)
    twice = [name for name in names if _any_published(COLUMNS[name], results.rows)]
    marks = _source_marks(results.rows, twice)
    alike = counted_alike(results.rows)
    heads = ["row"] if alike else ["row", "counted at"]
    text_columns = len(heads)
    for name in names:
        heads += [COLUMNS[name].header] + (["published"] if name in twice else [])
    best = {name: _best(COLUMNS[name], results.rows) for name in names}
    lines = []
    for row in results.rows:
        cells = [escape(row.label)] if alike else [escape(row.label), escape(counted_as(row))]
        for name in names:
            cells.append(_measured(COLUMNS[name], row, best[name]))
            if name in twice:
                cells.append(_published(COLUMNS[name], row, marks))
        lines.append(cells)
    align = "l" * text_columns + "r" * (len(heads) - text_columns)
    notes = _notes(results, marks, any(DASH in cell for line in lines for cell in line))
    return _float(f"{results.title} ({results.machine})", results.suite, align, heads, lines, notes)


def _notes(results: Results, marks: dict[str, str], dashes: bool) -> list[str]:
    """Items below the table: what a dash is, the sources, the conditions, the failures."""
    notes = [rf"\item {_DASH_NOTE}"] if dashes else []
    notes += [rf"\item[{mark}] {escape(source)}" for source, mark in marks.items()]
    notes += [rf"\item {escape(line)}" for line in conditions(results)]
    for row in results.rows:
        for failure in row.failures:
            line = f"Failed: {row.label}, {failure.measure}: {failure.reason}"
            notes.append(rf"\item {escape(line)}")
    return notes


def _head(text: str) -> str:
    """A header in two lines, the unit below; its direction in brackets becomes an arrow."""
    if text == "published":
        return _grey(text)
    arrow = ""
    for words, sign in _ARROWS.items():
        if text.endswith(words):
            text, arrow = text.removesuffix(words), sign
    name, comma, unit = text.partition(", ")
    whole = escape(text) + arrow
    return rf"\shortstack[r]{{{escape(name)},\\{escape(unit)}{arrow}}}" if comma else whole


def _source_marks(rows: tuple[Row, ...], names: list[str]) -> dict[str, str]:
    """A letter for every published source, in the order in which the table shows them."""
    values = [
        dict(row.published).get(COLUMNS[name].published or "") for row in rows for name in names
    ]
    sources = dict.fromkeys(value.source for value in values if value)
    return {source: _letters(i) for i, source in enumerate(sources)}


def _letters(number: int) -> str:
    """0 is a, 25 is z, 26 is aa."""
    rest, last = divmod(number, 26)
    return (_letters(rest - 1) if rest else "") + chr(ord("a") + last)


def _any_published(column: Column, rows: tuple[Row, ...]) -> bool:
    return any(column.published in dict(row.published) for row in rows)


def _best(column: Column, rows: tuple[Row, ...]) -> str | None:
    """The printed number of the best row; None where there is nothing to be better than.

    None too where a measured row has no such quantity: no sampling is less than any.
    """
    if not column.ranked:
        return None
    taken = [row for row in rows if getattr(row, column.measure) is not None]
    found = [(value, row) for row in taken if (value := column.value(row)) is not None]
    several = len({_number(column, row) for _, row in found}) > 1
    if not several or len(found) < len(taken) or not comparable(column, rows):
        return None
    pick = max if higher_is_better(column) else min
    return _number(column, pick(found, key=lambda pair: pair[0])[1])


def _number(column: Column, row: Row) -> str:
    """The measured number as printed, without its interval."""
    return measured_cell(column, row).split(" ")[0]


def _measured(column: Column, row: Row, best: str | None) -> str:
    text = measured_cell(column, row)
    if not text:
        return DASH
    plain, number = escape(text), escape(_number(column, row))
    bold = rf"\textbf{{{number}}}" if _number(column, row) == best else number
    return _minus(bold + plain[len(number) :])


def _minus(text: str) -> str:
    """Text whose numbers have a minus sign, where a hyphen would stand."""
    return _HYPHEN.sub("$-$", text)


def _published(column: Column, row: Row, marks: dict[str, str]) -> str:
    value = dict(row.published).get(column.published or "")
    if value is None:
        return _grey(DASH)
    return _grey(published_text(value.value, column)) + rf"\tnote{{{marks[value.source]}}}"


def _grey(text: str) -> str:
    return rf"\textcolor{{gray}}{{{text}}}"


def _claim_table(results: Results) -> str:
    table = claim_table(results)
    lines = [[escape(cell) or DASH for cell in row] for row in table.rows]
    lines = [
        [name, _minus(measured), _grey(_minus(published)), _minus(difference), *rest]
        for name, measured, published, difference, *rest in lines
    ]
    notes = [_DASH_NOTE if note == BLANK_NOTE else escape(note) for note in table.notes]
    items = [rf"\item {note}" for note in notes]
    label = f"{results.suite}-claims"
    return _float(table.title, label, "lrrrll", list(table.headers), lines, items)


def _float(
    caption: str,
    label: str,
    align: str,
    heads: list[str],
    lines: list[list[str]],
    notes: list[str],
) -> str:
    r"""A table float; it is shrunk to the width of the text where it is wider."""
    rows = [" & ".join(cells) + r" \\" for cells in ([_head(text) for text in heads], *lines)]
    name = re.sub(r"[^A-Za-z0-9_-]", "-", label)
    return "\n".join(
        [
            r"\begin{table*}",
            r"\centering",
            r"\begin{adjustbox}{max width=\linewidth}",
            r"\begin{threeparttable}",
            rf"\caption{{{escape(caption)}}}",
            rf"\label{{tab:{name}}}",
            r"\setlength{\tabcolsep}{4pt}",
            rf"\begin{{tabular}}{{{align}}}",
            r"\toprule",
            rows[0],
            r"\midrule",
            *rows[1:],
            r"\bottomrule",
            r"\end{tabular}",
            r"\begin{tablenotes}\footnotesize",
            *notes,
            r"\end{tablenotes}",
            r"\end{threeparttable}",
            r"\end{adjustbox}",
            r"\end{table*}",
        ]
    )
