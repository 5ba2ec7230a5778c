"""Scores over seeds: the table and the picture."""

import statistics

import pytest
from unit.make import results, seeded

from sepcbench.report.html import html_page
from sepcbench.report.seeds import scores_by_seed, seeds_plot, seeds_table


def test_the_first_record_is_that_of_the_first_seed():
    assert scores_by_seed(seeded().rows[1], "accuracy") == {0: 0.32, 1: 0.35, 2: 0.36}
    assert scores_by_seed(seeded().rows[1], "recall") == {}


def test_mean_interval_and_paired_difference():
    a, b = seeds_table(seeded()).rows
    assert a[1:4] == ("AP", "3", "31.3")
    assert b[5] == "32.0 to 36.0"
    # differences 2, 4 and 3 points: mean 3, standard error 1 / sqrt(3), t of two degrees 4.303
    half = 4.302653 * statistics.stdev([2, 4, 3]) / 3**0.5
    assert b[6] == f"+3.00 [{3 - half:+.2f}, {3 + half:+.2f}]"
    assert a[6] == ""


def test_one_seed_gives_no_table_and_no_picture():
    assert seeds_table(results()) is None
    assert seeds_plot(results(), "", "accuracy") is None


def test_the_picture_has_a_ring_per_seed_and_the_page_the_table():
    axes = seeds_plot(seeded(), "", "accuracy").axes[0, 0]
    assert list(axes.lines[0].get_xdata()) == pytest.approx([30, 31, 33])
    assert "Over seeds</h2>" in html_page(seeded())
