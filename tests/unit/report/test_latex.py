"""The LaTeX tables: structure, escaping, bold and grey, and that a real LaTeX takes them."""

import dataclasses
import re
import shutil
import subprocess

import pytest
from unit.make import cost, latency, results

from sepcbench.records import ClaimOutcome, Failure, Published, Row, ScoreDifference
from sepcbench.report.latex import escape, latex

SPECIAL = '50% of $5 & a_b #1 {x} ~y ^z \\w <t> |u| "q" [v] *s'


def body_lines(text):
    """Cells of the rows between the rules of the first table."""
    inside = text.split(r"\midrule")[1].split(r"\bottomrule")[0]
    return [line.removesuffix(r" \\").split(" & ") for line in inside.strip().splitlines()]


def heads(text):
    return (
        text.split(r"\toprule")[1].split(r"\midrule")[0].strip().removesuffix(r" \\").split(" & ")
    )


def column(text, name):
    at = next(i for i, head in enumerate(heads(text)) if name in head)
    return [line[at] for line in body_lines(text)]


def test_every_line_has_as_many_cells_as_the_table_has_columns():
    text = latex(results(gpu=True))
    columns = len(re.search(r"\\begin{tabular}{([lr]+)}", text)[1])
    assert len(heads(text)) == columns
    assert [len(line) for line in body_lines(text)] == [columns] * 4
    for opened in re.findall(r"\\begin{([a-z*]+)}", text):
        assert text.count(rf"\begin{{{opened}}}") == text.count(rf"\end{{{opened}}}")
    for rule in (r"\toprule", r"\midrule", r"\bottomrule"):
        assert text.count(rule) == 1


def test_the_best_measured_value_of_a_column_is_bold():
    text = latex(results())
    assert column(text, "total")[:2] == [r"\textbf{100.000}", "110.000"]
    better = results().rows[0].accuracy
    rows = (*results().rows[:2], dataclasses.replace(results().rows[2], accuracy=better))
    rows = (dataclasses.replace(rows[0], accuracy=dataclasses.replace(better, ap=0.1)), *rows[1:])
    text = latex(dataclasses.replace(results(), rows=rows))
    assert [cell.count("textbf") for cell in column(text, "AP,")] == [0, 0, 1]


def test_nothing_is_bold_where_rows_do_not_compare():
    mixed = dataclasses.replace(results().rows[1].cost, shape=(64, 64))
    rows = (results().rows[0], dataclasses.replace(results().rows[1], cost=mixed))
    text = latex(dataclasses.replace(results(), rows=rows))
    assert not any("textbf" in cell for cell in column(text, "total"))
    assert column(text, "counted at") == ["800x1344, mac", "64x64, mac"]


def test_a_quantity_that_some_measured_row_lacks_has_no_best():
    sampled = dataclasses.replace(cost("vb"), sampling_macs=2_000_000_000)
    more = dataclasses.replace(cost("vc"), sampling_macs=3_000_000_000)
    rows = (
        results().rows[0],
        Row("b", "B", "vb", cost=sampled),
        Row("c", "C", "vc", cost=more),
    )
    text = latex(dataclasses.replace(results(), rows=rows))
    assert column(text, "sampling") == ["--", "2.000", "3.000"]


def test_published_values_are_grey_with_their_source_below():
    text = latex(results())
    at = next(i for i, head in enumerate(heads(text)) if "published" in head)
    cells = [line[at] for line in body_lines(text)]
    assert cells[0] == r"\textcolor{gray}{35.7}\tnote{a}"
    assert cells[1] == r"\textcolor{gray}{--}"
    assert r"\item[a] the paper" in text
    assert "no source of it is at hand" in text


def test_many_sources_get_many_marks():
    rows = tuple(
        Row(f"r{i}", f"R{i}", "v", (("ap", Published(30.0, f"source {i}")),)) for i in range(30)
    )
    text = latex(dataclasses.replace(results(), rows=rows))
    assert r"\item[z] source 25" in text
    assert r"\item[aa] source 26" in text


def test_ratios_keep_their_interval_and_failures_their_reason():
    text = latex(results())
    assert column(text, "latency")[1:3] == ["1.070 [1.050, 1.090]", r"1.001 [0.990, 1.010] $\sim$"]
    assert r"\item Failed: Broken, cost: CountError: no formula" in text


def test_claims_are_a_second_table():
    outcome = ClaimOutcome("a_b", "a.macs / b.macs", 0.5, None, "src & co", "%", 4)
    text = latex(dataclasses.replace(results(), claims=(outcome,)))
    assert text.count(r"\begin{tabular}") == 2
    assert r"a\_b & -- & \textcolor{gray}{0.5} & -- & \% & a.macs / b.macs \\" in text
    assert r"\item Published: src \& co" in text


@pytest.mark.parametrize(
    ("plain", "written"),
    [
        ("a & b", r"a \& b"),
        ("100 %", r"100 \%"),
        ("x_y^2", r"x\_y\textasciicircum{}2"),
        ("\\input{/etc/passwd}", r"\textbackslash{}input\{/etc/passwd\}"),
        ("two\nlines", "two lines"),
        ("[1]", "{}[1]"),
    ],
)
def test_escaping(plain, written):
    assert escape(plain) == written


def hostile():
    """Every text of the results full of signs that mean something to LaTeX."""
    rows = (
        dataclasses.replace(
            results().rows[0], label=SPECIAL, published=(("ap", Published(1, SPECIAL)),)
        ),
        Row("b", f"[{SPECIAL}]", "vb", cost=cost("vb", 2), latency=latency("vb")),
        Row("c", "*", "vc", failures=(Failure("vc", "cost", SPECIAL),)),
    )
    claim = ClaimOutcome(SPECIAL, SPECIAL, 1.0, 2.0, SPECIAL, SPECIAL, 4)
    return dataclasses.replace(results(), title=SPECIAL, rows=rows, claims=(claim,), suite="a_b%")


def test_no_sign_of_a_hostile_text_stands_bare():
    text = latex(hostile())
    rest = re.sub(r"\$\\(sim|downarrow|uparrow)\$", "", text)
    rest = "\n".join(line for line in rest.splitlines() if not line.startswith("%"))
    for sign in '$#^~"':
        assert not re.search(rf"(?<!\\){re.escape(sign)}", rest), sign
    assert not re.search(r"(?<!\\)%", rest)


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
@pytest.mark.parametrize("make", [lambda: results(gpu=True), hostile])
def test_a_real_latex_takes_it(make, tmp_path):
    (tmp_path / "table.tex").write_text(latex(make()))
    packages = "booktabs,threeparttable,xcolor,adjustbox"
    (tmp_path / "doc.tex").write_text(
        rf"\documentclass{{article}}\usepackage{{{packages}}}\begin{{document}}"
        r"\input{table.tex}\end{document}"
    )
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "doc.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100)
    if "not found" in done.stdout and ".sty" in done.stdout:
        pytest.skip("pdflatex lacks one of the packages")
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Overfull" not in done.stdout


def test_a_negative_number_has_a_minus_sign_and_a_name_its_hyphen():
    row = results().rows[0]
    gap = ScoreDifference("b", -0.02, (-0.03, -0.01), True)
    changed = dataclasses.replace(row, label="SEPC-2 lite", differences=(("accuracy", gap),))
    text = latex(dataclasses.replace(results(), rows=(changed,)))
    assert "$-$2.00 [$-$3.00, $-$1.00]" in text
    assert "SEPC-2 lite &" in text


def test_a_published_score_has_a_decimal():
    row = Row("r", "R", "v", (("ap", Published(37.0, "p")), ("params_m", Published(38.0, "p"))))
    text = latex(dataclasses.replace(results(), rows=(row,)))
    assert r"\textcolor{gray}{37.0}" in text
    assert r"\textcolor{gray}{38}" in text
