"""Tables and pictures of latency under further conditions, by part, and of AP by finer sizes."""

import dataclasses

import pytest
from unit.make import SPLIT, finely_scored, results, timed

from sepcbench.report.bands_plot import bands_plot
from sepcbench.report.engines_plot import engines_plot
from sepcbench.report.html import html_page
from sepcbench.report.levels_table import levels_table
from sepcbench.report.parts_plot import parts_plot
from sepcbench.report.suite_tables import tables
from sepcbench.report.timing_tables import part_names, parts_table, timing_table


def column(table, header):
    at = next(i for i, text in enumerate(table.headers) if text.startswith(header))
    return [row[at] for row in table.rows]


def test_every_condition_of_every_row_has_a_line_batch_by_batch():
    table = timing_table(timed())
    assert column(table, "row")[:2] == ["row a", "row a"]
    assert column(table, "batch") == ["1", "1", "1", "1", "8", "8", "1"]
    assert column(table, "engine")[:2] == ["eager", "folded"]
    assert column(table, "times eager")[1] == "0.500 [0.490, 0.510]"
    assert column(table, "times its roofline")[0] == "2.00"


def test_milliseconds_are_for_gpus_only():
    assert not any(header.startswith("latency, ms") for header in timing_table(timed()).headers)
    gpu = timing_table(timed(gpu=True))
    assert column(gpu, "latency, ms")[0] == "100.000"
    assert column(gpu, "per image, ms")[4] == "12.500"
    assert column(gpu, "SM clock")[1] == "1980-1980"
    assert column(gpu, "launches")[1] == "120"


def test_a_condition_that_failed_is_a_line_and_a_flagged_one_is_named():
    table = timing_table(timed())
    assert table.rows[-1][:5] == ("row b", "graphed", "fp32", "1", "failed")
    assert any("Low clocks" in note and "row a, row b" in note for note in table.notes)


def test_parts_are_shares_of_the_whole():
    table = parts_table(timed())
    assert table.headers[1:] == (
        "backbone, % of the whole",
        "fpn, % of the whole",
        "head, % of the whole",
        "sum, % of the whole",
    )
    assert table.rows[0][1:] == ("60.0", "10.0", "20.0", "90.0")
    assert len(table.notes) == 1


def test_parts_that_do_not_add_up_are_named():
    made = timed()
    row = made.rows[0]
    slow = dataclasses.replace(row.latency.split, whole_s=0.2)
    odd = dataclasses.replace(row, latency=dataclasses.replace(row.latency, split=slow))
    table = parts_table(dataclasses.replace(made, rows=(odd, made.rows[1])))
    assert "row a;" in table.notes[1]


def test_without_further_conditions_there_is_no_further_table():
    assert timing_table(results()) is None
    assert parts_table(results()) is None
    assert levels_table(results()) is None
    assert engines_plot(results(), "") is None


def test_levels_are_shares_of_what_was_found_of_a_size():
    table = levels_table(finely_scored())
    assert table.rows[0] == ("row a", "small", "75", "25")
    assert table.rows[2] == ("row a", "large", "0", "100")


def test_bars_of_parts_add_up_to_the_sum():
    axes = parts_plot(timed(gpu=True), "").axes[0, 0]
    assert sum(bar.get_width() for bar in axes.patches) == pytest.approx(2 * 90)
    relative = parts_plot(timed(), "").axes[0, 0]
    assert sum(bar.get_width() for bar in relative.patches) == pytest.approx(2 * 0.9)


def test_engines_have_a_panel_per_dtype_and_batch():
    made = engines_plot(timed(), "")
    titles = [axes.get_title(loc="left") for axes in made.axes.flat]
    assert titles == ["fp32, batch 1", "bf16, batch 8"]
    heights = [bar.get_height() for bar in made.axes.flat[0].patches]
    assert heights == [1.0, 0.5, 1.0, 0.5]


def test_finer_sizes_leave_out_bands_without_objects():
    made = bands_plot(finely_scored(), "")
    pixels, relative = made.axes[0]
    assert list(pixels.lines[0].get_ydata()) == [10, 50]
    assert list(relative.lines[0].get_ydata()) == [40]


def test_the_page_and_the_terminal_have_the_further_tables():
    assert "Latency by engine, dtype and batch" in html_page(timed())
    assert len(tables(timed())) == 3
    without = dataclasses.replace(timed(), rows=results().rows)
    assert "Latency by engine" not in html_page(without)


def test_few_rounds_on_a_gpu_and_memory_that_is_not_seen_are_notes():
    def notes(gpu, **changes):
        made = timed(gpu)
        rows = tuple(
            dataclasses.replace(
                row,
                latency=dataclasses.replace(row.latency, peak_bytes=2**20, **changes),
                timings=tuple(dataclasses.replace(one, **changes) for one in row.timings),
            )
            for row in made.rows
        )
        return " ".join(timing_table(dataclasses.replace(made, rows=rows)).notes)

    assert "Fewer than 50 rounds: row a, row b." in notes(True, rounds=49)
    assert "Fewer" not in notes(True, rounds=50)
    assert "Fewer" not in notes(False, rounds=6)
    assert "Peak memory is not told of folded" in notes(True)


def test_engines_stand_in_the_order_in_which_they_are_named():
    made = timed()
    row = made.rows[0]
    more = [dataclasses.replace(row.timings[0], engine=name) for name in ("fused", "channels_last")]
    rows = (dataclasses.replace(row, timings=(*more, *row.timings)),)
    table = timing_table(dataclasses.replace(made, rows=rows))
    assert column(table, "engine") == ["eager", "folded", "channels_last", "fused", "folded"]


def test_the_first_row_is_one_times_itself():
    made = timed()
    first = dataclasses.replace(made.rows[0].latency, ratio=None, reference="a")
    rows = (dataclasses.replace(made.rows[0], latency=first), made.rows[1])
    assert (
        column(timing_table(dataclasses.replace(made, rows=rows)), "times the first")[0] == "1.000"
    )


def test_parts_of_later_rows_stand_after_those_of_earlier_ones():
    def split(*names):
        parts = tuple(dataclasses.replace(SPLIT.parts[0], name=name) for name in names)
        return dataclasses.replace(SPLIT, parts=parts)

    rows = [
        ("backbone", "fpn", "head"),
        ("backbone", "pafpn", "head"),
        ("backbone", "fpn", "sepc", "head"),
    ]
    found = part_names(split(*names) for names in rows)
    assert found == ["backbone", "fpn", "pafpn", "sepc", "head"]
    assert sorted(part_names([split("a", "b"), split("b", "a")])) == ["a", "b"]  # no order fits
