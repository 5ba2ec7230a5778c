"""A suite's results as one HTML page that needs no network: table, plot and provenance.

The table is written here and reads without scripts. The scripts sort and filter it, draw the plot
and open where a cell comes from, out of the JSON that is embedded in the page.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator, Sequence
from html import escape
from importlib import resources
from string import Template
from typing import Any

from sepcbench.records import Accuracy, Recall, Results, Row
from sepcbench.report.columns import (
    COLUMNS,
    counted_alike,
    counted_as,
    latency_ms,
    latency_ratio,
    measured_cell,
    published_cells,
    used_columns,
)
from sepcbench.report.further import MORE, conditions, under, written
from sepcbench.report.points import QUALITIES, published_ratios
from sepcbench.report.provenance import Source, published_facts, source
from sepcbench.report.suite_tables import MORE_TABLES, TIMINGS, VERDICT, claim_table, row_table
from sepcbench.report.table import Table
from sepcbench.report.timing_tables import timings

# Axes of the plot, where the rows have such values; the first of each is shown first.
X_AXES = ("latency_ratio", "macs", "latency", "params")
Y_AXES = (
    "ap",
    "ap50",
    "ap75",
    "ap_small",
    "ap_medium",
    "ap_large",
    "mask_ap",
    "mask_ap50",
    "ar100",
    "ar1000",
)
GROUP_COLOURS = 8  # .c0 to .c7 in page.css
SCRIPTS = ("table.js", "plot.js", "provenance.js", "theme.js")


def html_page(results: Results) -> str:
    """Write the page of a suite on one machine; the same records give the same text."""
    style = _part("page.css")
    script = "\n".join(_part(name) for name in SCRIPTS)
    return Template(_part("page.html")).substitute(
        title=escape(results.title),
        machine=escape(results.machine),
        about=_paragraphs(results.about),
        head=_head(results),
        body="\n".join(_row(results, row) for row in results.rows),
        count=len(results.rows),
        hint=_hint(results),
        notes=_list(row_table(results).notes),
        claims=_claims(results),
        verdict=_more(results),
        origin=_origin(results),
        data=embedded_json(page_data(results)),
        style=style,
        script=script,
        style_hash=_hash(style),
        script_hash=_hash(script),
    )


def _part(name: str) -> str:
    return (resources.files("sepcbench.report") / "page" / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """What the page's content security policy lets run: this very text and nothing else."""
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _paragraphs(text: str) -> str:
    return "\n".join(f"<p>{escape(part)}</p>" for part in text.strip().split("\n\n") if part)


# --- the table -------------------------------------------------------------------------------


def _head(results: Results) -> str:
    names = used_columns(results)
    labels = ["row", *(COLUMNS[name].header for name in names)]
    keys = ["", *names]
    if not counted_alike(results.rows):
        labels.insert(1, "counted at")
        keys.insert(1, "")
    return "".join(_header(key, label) for key, label in zip(keys, labels))


def _header(key: str, label: str) -> str:
    """A header whose button sorts; the direction in brackets stands small on its own line."""
    kind = "number" if key else "text"
    name, bracket, direction = label.partition(" (")
    small = f" <small>{escape(bracket.strip() + direction)}</small>" if bracket else ""
    return (
        f'<th scope="col" class="{kind}" data-key="{escape(key)}">'
        f'<button type="button"><span>{escape(name)}</span>{small}</button></th>'
    )


def _row(results: Results, row: Row) -> str:
    colour = _colours(results)[row.name]
    words = f"{row.name} {row.variant} {row.group} {row.label}"
    cells = [f'<th scope="row"><span class="dot c{colour}"></span>{escape(row.label)}</th>']
    if not counted_alike(results.rows):
        cells.append(f"<td>{escape(counted_as(row))}</td>")
    cells += [_cell(results, row, name) for name in used_columns(results)]
    return (
        f'<tr data-row="{escape(row.name)}" data-words="{escape(words.lower())}">'
        f"{''.join(cells)}</tr>"
    )


def _cell(results: Results, row: Row, name: str) -> str:
    """A cell: a button that opens its provenance, and the published value below."""
    column = COLUMNS[name]
    text = measured_cell(column, row)
    value, published = column.value(row), ""
    facts = published_facts(results, column, row)
    if facts:
        number, difference = published_cells(column, row)
        said = '<span class="unseen">published </span>'
        published = f'<small class="published">{said}{escape(number)} {escape(difference)}</small>'
    given = dict(row.published).get(column.published or "")
    order = value if value is not None else given.value if given else None
    if not text and not facts:
        return '<td class="number empty"></td>'
    label = f"{row.label}, {column.header}: {text or 'not measured'}; where it comes from"
    return (
        f'<td class="number"{_sort_key(order)}>'
        f'<button type="button" data-cell="{escape(f"{row.name}.{name}")}" aria-haspopup="dialog" '
        f'aria-label="{escape(label)}">{escape(text or "–")}</button>{published}</td>'
    )


def _sort_key(value: float | None) -> str:
    return "" if value is None else f' data-value="{value:.9g}"'


def _hint(results: Results) -> str:
    published = (
        " Published values stand in grey below the measured ones, with measured minus published."
    )
    some = any(row.published for row in results.rows)
    return "A header sorts. A number opens where it comes from." + (published if some else "")


def _list(lines: tuple[str, ...]) -> str:
    return "\n".join(f"<li>{escape(line)}</li>" for line in lines)


def _claims(results: Results) -> str:
    if not results.claims:
        return ""
    return _plain_table(claim_table(results), "claims", "Published statements")


def _more(results: Results) -> str:
    """Every further table that the records give something for."""
    found = {title: make(results) for title, make in MORE_TABLES.items()}
    return "\n".join(
        _plain_table(table, f"table-{i}", title, _cells_of_timings(results, title))
        for i, (title, table) in enumerate(found.items())
        if table is not None
    )


def _cells_of_timings(results: Results, title: str) -> list[str]:
    """The cell of each line of the table of engines, by its name; none in other tables."""
    if title != TIMINGS:
        return []
    found = timings(results)
    column = "latency" if any(one.on_gpu for one in found) else "latency_ratio"
    if column not in used_columns(results):
        return []
    return [
        f"{one.row.name}.{column}"
        + ("" if one.record is one.row.latency else MORE + written(conditions(one.record)))
        for one in found
    ]


def _plain_table(table: Table, name: str, title: str, cells: Sequence[str] = ()) -> str:
    """A table that is not sorted; `cells` are opened by the first number of each line."""
    kinds = [_cell_class(table, i) for i in range(len(table.headers))]
    head = "".join(
        f'<th scope="col"{kind}>{escape(text)}</th>' for kind, text in zip(kinds, table.headers)
    )
    rows = "\n".join(
        f'<tr><th scope="row">{escape(first)}</th>'
        f"{''.join(f'<td{kind}>{text}</td>' for kind, text in zip(kinds[1:], rest))}</tr>"
        for first, *rest in _openable(table, cells)
    )
    lead, notes = "", table.notes
    if title == VERDICT:  # its first note is the whole in a paragraph
        lead, notes = f'<p class="lead">{escape(notes[0])}</p>', notes[1:]
    return (
        f'<section aria-labelledby="{name}"><h2 id="{name}">{title}</h2>{lead}'
        f'<div class="scroll" tabindex="0" role="region" aria-labelledby="{name}">'
        f"<table><thead><tr>{head}</tr></thead>\n<tbody>{rows}</tbody></table></div>"
        f'<ul class="notes">{_list(notes)}</ul></section>'
    )


_CONDITIONS = 4  # columns of the table of engines before its first number


def _openable(table: Table, cells: Sequence[str]) -> Iterator[list[str]]:
    """The lines of a table as HTML but for the row's name."""
    for i, line in enumerate(table.rows):
        written_line = [line[0], *map(escape, line[1:])]
        if i < len(cells) and line[_CONDITIONS]:
            label = f"{', '.join(line[:_CONDITIONS])}: {line[_CONDITIONS]}; where it comes from"
            written_line[_CONDITIONS] = (
                f'<button type="button" data-cell="{escape(cells[i])}" aria-haspopup="dialog" '
                f'aria-label="{escape(label)}">{escape(line[_CONDITIONS])}</button>'
            )
        yield written_line


def _cell_class(table: Table, column: int) -> str:
    """How a column of a table stands: words from the left, sentences with room."""
    if not table.is_text(column):
        return ""
    return ' class="text long"' if table.is_long(column) else ' class="text"'


def _origin(results: Results) -> str:
    made = results.environment
    versions = ", ".join(f"{name} {number}" for name, number in made.versions) if made else ""
    parts = [f"suite {results.suite}", results.machine, results.created, versions]
    return escape("; ".join(part for part in parts if part))


# --- what the scripts read -------------------------------------------------------------------


def page_data(results: Results) -> dict[str, Any]:
    """Values, intervals, published values and provenance, as JSON types."""
    environments: list[Any] = []
    used = used_columns(results)
    axes = [name for name in X_AXES if _is_x(results, name)]
    sources = {
        f"{row.name}.{kind}": _source_data(found, environments)
        for row in results.rows
        for kind in dict.fromkeys(COLUMNS[name].measure for name in used)
        if (found := source(results, row, kind))
    }
    for row in results.rows:
        for record in row.timings:
            more = written(conditions(record))
            found = source(results, under(row, "latency", more), f"latency{MORE}{more}")
            if found:
                sources[f"{row.name}.latency{MORE}{more}"] = _source_data(found, environments)
    return {
        "columns": {
            name: {"header": COLUMNS[name].header, "measure": COLUMNS[name].measure}
            for name in dict.fromkeys((*used, *axes))
        },
        "rows": [_row_data(results, row) for row in results.rows],
        "sources": sources,
        "environments": environments,
        "x": axes,
        "y": [name for name in Y_AXES if name in used],
        "data": "generated set" if results.generated_data else "",
    }


def _is_x(results: Results, name: str) -> bool:
    if name == "latency_ratio" and published_ratios(results):
        return True
    if name == "latency":  # published times are of other machines: no axis of their own
        return any(latency_ms(row) is not None for row in results.rows)
    return name in used_columns(results)


def _source_data(found: Source, environments: list[Any]) -> dict[str, Any]:
    """A record's facts; its environment as an index, since most records share one."""
    facts = [list(pair) for pair in found.environment]
    if facts and facts not in environments:
        environments.append(facts)
    return {
        "file": found.file,
        "command": found.command,
        "created": found.created,
        "commit": found.commit,
        "conditions": [list(pair) for pair in found.conditions],
        "environment": environments.index(facts) if facts else None,
        "samples": list(found.samples_ms),
    }


def _row_data(results: Results, row: Row) -> dict[str, Any]:
    return {
        "name": row.name,
        "label": row.label,
        "colour": _colours(results)[row.name],
        "cells": {name: _cell_data(results, row, name) for name in used_columns(results)},
        "published_ratio": _rounded(published_ratios(results).get(row.name)),
        "failures": {failure.measure: failure.reason for failure in row.failures},
    }


def _cell_data(results: Results, row: Row, name: str) -> dict[str, Any]:
    column = COLUMNS[name]
    given = dict(row.published).get(column.published or "")
    data = {
        "text": measured_cell(column, row),
        "value": _rounded(column.value(row)),
        "interval": _interval(row, name),
        "published": given.value if given else None,
        "facts": [list(pair) for pair in published_facts(results, column, row)],
    }
    return {key: value for key, value in data.items() if value not in (None, [], "")}


def _interval(row: Row, name: str) -> list[float] | None:
    """The 95 % interval of a latency or a score in the column's unit."""
    for quality in QUALITIES.values():
        if name == quality.column:
            return _percent(getattr(row, quality.record))
    if row.latency is None or COLUMNS[name].value(row) is None:
        return None
    if COLUMNS[name].value is latency_ratio:
        return [*row.latency.ratio.ci95] if row.latency.ratio else None
    if COLUMNS[name].value is latency_ms:
        return [1e3 * end for end in row.latency.ci95_s]
    return None


def _percent(record: Accuracy | Recall | None) -> list[float] | None:
    return [100 * end for end in record.ap_ci95] if record and record.ap_ci95 else None


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.6g}")


def _colours(results: Results) -> dict[str, int]:
    """A colour per row; rows of one group share theirs."""
    groups = list(dict.fromkeys(row.group or row.name for row in results.rows))
    return {r.name: groups.index(r.group or r.name) % GROUP_COLOURS for r in results.rows}


def embedded_json(value: Any) -> str:
    """JSON that may stand inside a script element: nothing in it can end the element."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for sign in "<>&\u2028\u2029":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text
