"""Tables on narrow and wide terminals: no number is ever broken."""

import io

import pytest

from sepcbench.cli.app import run
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


def test_variants_stay_beside_each_other_and_one_alone_is_a_list(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "70")
    for names, times in ((["retinanet_tiny_fpn", "retinanet_tiny_sepc"], 2), (["rpn_tiny_fpn"], 1)):
        assert run(["flops", *names, "--shape", "64x64"]) == 0
        found = capsys.readouterr().out
        assert found.count(f"\n {names[0]}" if times > 1 else f"\n{names[0]}") == times
        assert found.count("neck, GMAC") <= 1


WORDS = Table(
    "A title that is longer than a narrow window",
    ("row", "total, GMAC (lower is better)", "what"),
    (("FPN + 2 convs", "0.0533 [0.05, 0.06]", "retinanet_tiny_pconv_gn forward eager"),),
    ("A note with a/path/that/is/longer/than/a/narrow/window/is/wide.",),
)


@pytest.mark.parametrize("columns", [20, 40, 60, 70, 200])
def test_no_word_is_folded_where_the_output_is_a_file(monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    out = io.StringIO()
    print_table(WORDS, out)
    for word in ("retinanet_tiny_pconv_gn", "0.0533 [0.05, 0.06]", WORDS.title, *WORDS.notes):
        assert word in out.getvalue()


KEYED = Table(
    "A title",
    (
        "variant",
        "engine",
        "median, ms (lower is better)",
        "p10-p90, ms",
        "times the first",
        "rounds",
    ),
    (
        (
            "retinanet_r50_sepc_lite",
            "fused_graphed",
            "1.421",
            "1.3-1.7",
            "1.070 [1.050, 1.090]",
            "9",
        ),
        ("retinanet_r50_sepc", "eager", "12.5", "12.1-14.0", "", "8"),
    ),
    keys=2,
)


@pytest.mark.parametrize(("columns", "grids"), [(200, 1), (100, 1), (80, 2), (66, 3), (62, 0)])
def test_a_table_with_keys_is_cut_between_columns(monkeypatch, columns, grids):
    """As many grids as it takes, each with the keys; blocks where a column does not fit beside."""
    monkeypatch.setenv("COLUMNS", str(columns))
    out = io.StringIO()
    print_table(KEYED, out)
    text = out.getvalue()
    for cell in ("1.421", "1.3-1.7", "1.070 [1.050, 1.090]", "12.1-14.0"):
        assert text.count(cell) == 1
    assert text.count("retinanet_r50_sepc_lite") == max(grids, 1)
    assert text.count("\u2500\u2500\u2500\n") + text.count("\u2500\u2500\u2500 \n") == grids
    assert max(map(len, text.splitlines())) <= columns
