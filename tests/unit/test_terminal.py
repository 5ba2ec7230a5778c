"""Tables on narrow and wide terminals: no number is ever broken."""

import io

import pytest

from sepcbench.report.table import Table
from sepcbench.report.terminal import print_table

TABLE = Table(
    "A title",
    ("row", "params, M (lower is better)", "ratio", "failed measure"),
    (("first row", "37.969", "1.070 [1.050, 1.090]", ""), ("b", "250.488", "1.000", "failed")),
    ("a note",),
)


def printed(monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    out = io.StringIO()
    print_table(TABLE, out)
    return out.getvalue()


@pytest.mark.parametrize("columns", [48, 50, 60, 80, 120, 200])
def test_numbers_are_whole_at_every_width(monkeypatch, columns):
    text = printed(monkeypatch, columns)
    for number in ("37.969", "250.488", "1.070 [1.050, 1.090]", "1.000"):
        assert number in text
    assert "a note" in text


def test_a_narrow_terminal_gets_a_block_per_row_without_empty_cells(monkeypatch):
    assert printed(monkeypatch, 40).count("params, M") == 2
    assert printed(monkeypatch, 40).count("failed measure") == 1
    assert printed(monkeypatch, 200).count("params, M") == 1
