"""Tables and plots from made-up records: what they say, and that a blank stays blank."""

import csv
import dataclasses
import io

import pytest
from PIL import Image
from unit.make import results

from sepcbench.records import ClaimOutcome
from sepcbench.report.columns import COLUMNS, measured_cell, published_cells
from sepcbench.report.files import write_report
from sepcbench.report.suite_tables import claim_table, row_table
from sepcbench.report.text import markdown, to_csv


def column_of(table, header):
    at = next(i for i, name in enumerate(table.headers) if name.startswith(header))
    return [row[at] for row in table.rows]


def test_measured_published_and_difference_stand_side_by_side():
    table = row_table(results())
    at = table.headers.index(COLUMNS["ap"].header)
    assert table.headers[at : at + 3] == ("AP, % (higher is better)", "published", "difference")
    assert table.rows[0][at : at + 3] == ("36.0", "35.7", "+0.3")
    assert table.rows[1][at : at + 3] == ("", "not at hand", "")


def test_a_failed_measure_says_so_with_its_reason():
    table = row_table(results())
    assert column_of(table, "params")[3] == "failed"
    assert "Failed: Broken, cost: CountError: no formula" in table.notes


def test_ratios_carry_their_interval_and_a_tilde_when_unresolved():
    ratios = column_of(row_table(results()), "latency, times")
    assert ratios == ["1.000", "1.070 [1.050, 1.090]", "1.001 [0.990, 1.010] ~", ""]


def test_absolute_latency_only_from_a_gpu():
    assert not any(header.startswith("latency, ms") for header in row_table(results()).headers)
    assert column_of(row_table(results(gpu=True)), "latency, ms")[0] == "100.000"


def test_markdown_escapes_and_csv_reads_back():
    table = row_table(results())
    text = markdown(table)
    assert text.startswith("### Suite | title")
    assert all(
        line.count(" | ") == len(table.headers) - 1
        for line in text.splitlines()
        if line[:2] == "| "
    )
    rows = list(csv.reader(io.StringIO(to_csv(table))))
    assert rows[0] == list(table.headers)
    assert rows[2][0] == "SEPC"


def test_claims_show_difference_or_stay_blank():
    outcomes = (
        ClaimOutcome("c", "a.macs / b.macs", 0.5, 0.4985, "src", "times", 4),
        ClaimOutcome("d", "a.ap", None, None, "", "", 4),
    )
    table = claim_table(dataclasses.replace(results(), claims=outcomes))
    assert table.rows[0][1:4] == ("0.4985", "0.5", "-0.0015")
    assert table.rows[1][1:4] == ("", "", "")


def test_files_and_pictures_are_written(tmp_path):
    files = write_report(results(), tmp_path / "out")
    assert {file.name for file in files} == {
        "table.md",
        "table.csv",
        "table.tex",
        "page.html",
        "records.json",
        "macs.png",
        "latency.png",
        "ap_by_size.png",
        "ap_over_macs.png",
        "ap_over_latency.png",
    }
    for file in files:
        if file.suffix == ".png":
            with Image.open(file) as picture:
                assert min(picture.size) > 200
                assert len(set(picture.convert("RGB").resize((60, 40)).get_flattened_data())) > 5


@pytest.mark.parametrize("name", COLUMNS)
def test_every_column_survives_an_empty_row(name):
    empty = dataclasses.replace(results().rows[3], failures=())
    assert measured_cell(COLUMNS[name], empty) == ""
    assert published_cells(COLUMNS[name], empty) == ("not at hand", "")
    if COLUMNS[name].published is not None:
        told = dataclasses.replace(empty, not_published=(COLUMNS[name].published,))
        assert published_cells(COLUMNS[name], told)[0] == "not published"
