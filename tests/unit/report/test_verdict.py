"""The Pareto front and what it comes to, on rows whose answers are known beforehand."""

import dataclasses
import re

import numpy as np
import pytest
from unit.make import accuracy, cost, latency, results

from sepcbench.differences import against_first
from sepcbench.records import Published, Row, Seeded
from sepcbench.report.columns import COLUMNS, measured_cell
from sepcbench.report.front import front
from sepcbench.report.html import html_page
from sepcbench.report.latex import latex
from sepcbench.report.suite_tables import tables
from sepcbench.report.verdict import verdict_table
from sepcbench.stats import compare as compare_rounds

RESAMPLES, ROUNDS = 1000, 20
SET = "100 images, 500 objects, mark 1, seed 0"


def row(name, ap, times, gmacs, noise=0.001, own=0.002, spread=0.02, rounds=ROUNDS, images=100):
    """A row whose AP has spread `spread` shared with all rows and `own` of its own.

    `times` is its latency in multiples of row a's, with a mood of the machine that all share.
    """
    rng = np.random.default_rng(sum(map(ord, name)))
    shared = np.random.default_rng(0)
    drawn = ap + spread * shared.standard_normal(RESAMPLES) + own * rng.standard_normal(RESAMPLES)
    mood = 1 + 0.2 * np.random.default_rng(1).random((rounds, 1))
    samples = 0.01 * times * mood * (1 + noise * rng.standard_normal((rounds, 3)))
    reference = 0.01 * mood * np.ones((1, 3))
    made = compare_rounds(samples.tolist(), reference.tolist())
    ratio = None if name == "a" else _ratio(made)
    score = dataclasses.replace(
        accuracy(name, ap),
        images=images,
        draws=tuple(float(x) for x in drawn),
        drawn_from=SET,
        ap_ci95=(ap - 2 * spread, ap + 2 * spread),
    )
    timed = dataclasses.replace(
        latency(name, ratio=ratio),
        rounds=rounds,
        samples_s=tuple(map(tuple, samples.tolist())),
        median_s=float(np.median(samples)),
    )
    return Row(
        name,
        f"Row {name}",
        name,
        cost=cost(name, int(gmacs * 1e9)),
        latency=timed,
        accuracy=score,
    )


def _ratio(made):
    from sepcbench.records import Ratio

    return Ratio("a", made.median, made.ci95, made.p20, made.p20_ci95, made.resolved)


def suite(*rows):
    return dataclasses.replace(results(), title="S", rows=against_first(rows))


def places(*rows):
    return {place.row.name: place for place in front(suite(*rows)).places}


def test_a_row_that_is_better_in_all_beats_the_other_in_every_draw():
    found = places(row("a", 0.30, 1, 100), row("b", 0.35, 0.9, 90))
    assert found["b"].on_front
    assert found["b"].share == 1
    assert (found["a"].on_front, found["a"].beaten_by) == (False, "b")
    assert found["a"].share == 0
    assert found["a"].beaten_share == 1


def test_rows_that_trade_ap_for_price_are_both_on_the_front():
    found = places(row("a", 0.30, 1, 100), row("b", 0.35, 1.2, 120))
    assert [place.share for place in found.values()] == [1, 1]
    assert [place.beaten_by for place in found.values()] == ["", ""]


def test_the_share_is_that_of_the_draws_in_which_ap_is_higher():
    """b costs more, and its AP is one standard deviation of the difference higher."""
    rows = [row("a", 0.30, 1, 100), row("b", 0.3 + 0.002 * np.sqrt(2), 1.2, 120)]
    found = places(*rows)
    assert found["a"].share == 1
    assert found["b"].share == pytest.approx(0.841, abs=0.03)  # the normal distribution at 1
    assert found["b"].beaten_by == "a"
    assert found["b"].on_front


def test_shared_spread_of_images_and_shared_mood_of_the_machine_drop_out():
    """A tenth of a point and a thousandth of time are shown, though both spread far more."""
    sharp = {"noise": 0.0002, "own": 0.0001, "spread": 0.05}
    found = places(row("a", 0.300, 1.01, 100, **sharp), row("b", 0.301, 1.0, 100, **sharp))
    assert found["b"].share == 1
    assert found["a"].share == 0


def test_one_more_row_only_takes_places_away():
    two = places(row("a", 0.30, 1, 100), row("b", 0.31, 1.1, 110))
    three = places(row("a", 0.30, 1, 100), row("b", 0.31, 1.1, 110), row("c", 0.31, 1.05, 105))
    for name, place in two.items():
        assert three[name].share <= place.share
    assert three["b"].beaten_by == "c"


def test_without_draws_places_have_no_share():
    rows = [row("a", 0.30, 1, 100), row("b", 0.35, 0.9, 90)]
    bare = [
        dataclasses.replace(r, latency=None, accuracy=dataclasses.replace(r.accuracy, draws=()))
        for r in rows
    ]
    found = places(*bare)
    assert [place.share for place in found.values()] == [None, None]
    assert found["a"].beaten_by == "b"
    notes = verdict_table(suite(*bare)).notes
    assert any("Taken as exact" in note and "AP" in note for note in notes)


def test_rows_drawn_from_other_images_are_not_paired():
    rows = [row("a", 0.30, 1, 100), row("b", 0.35, 1.2, 120)]
    other = dataclasses.replace(rows[1].accuracy, drawn_from="elsewhere")
    found = front(suite(rows[0], dataclasses.replace(rows[1], accuracy=other)))
    assert found.axis("AP").draws is None


def test_published_ap_stands_in_where_none_was_measured():
    def published(name, ap, gmacs):
        return Row(name, name, name, (("ap", Published(ap, "paper")),), cost=cost(name, gmacs))

    found = front(suite(published("a", 35.0, 100), published("b", 36.0, 90)))
    assert [axis.name for axis in found.axes] == ["published AP", "MACs"]
    assert [place.on_front for place in found.places] == [False, True]


@pytest.mark.parametrize("missing", ["cost and latency", "accuracy", "second row"])
def test_no_verdict_where_nothing_compares(missing):
    rows = [row("a", 0.30, 1, 100), row("b", 0.35, 0.9, 90)]
    if missing == "cost and latency":
        rows = [dataclasses.replace(r, cost=None, latency=None) for r in rows]
    if missing == "accuracy":
        rows = [dataclasses.replace(r, accuracy=None) for r in rows]
    found = suite(*(rows[:1] if missing == "second row" else rows))
    assert verdict_table(found) is None
    assert not any("verdict" in table.title for table in tables(found))


def test_the_paragraph_names_who_is_where():
    table = verdict_table(
        suite(
            row("a", 0.30, 1, 100),
            row("b", 0.36, 1.04, 104),
            row("c", 0.25, 1.3, 130),
            row("d", 0.36 + 0.0005, 1.4, 140),
        )
    )
    paragraph = table.notes[0]
    assert "Row a and Row b are on the Pareto front of AP, latency and MACs" in paragraph
    assert "Beaten: Row c by Row b." in paragraph or "Beaten: Row c by Row a." in paragraph
    assert "Not decided by these measurements: Row d." in paragraph
    said = {line[0]: line[1] for line in table.rows}
    assert said["Row a"] == "on the front in 100 % of draws"
    assert re.fullmatch(r"beaten by Row [ab] in 100 % of draws", said["Row c"])
    assert re.match(r"~ on the front in \d\d % of draws; beaten by Row b in \d\d %", said["Row d"])


def test_a_budget_buys_the_highest_ap_within_it():
    table = verdict_table(
        suite(row("a", 0.30, 1, 100), row("b", 0.32, 1.04, 104), row("c", 0.36, 1.2, 120))
    )
    lines = [note for note in table.notes if note.startswith("For a budget")]
    assert lines[0].startswith("For a budget of +5 % and +10 % latency over Row a take Row b: +2.0")
    assert lines[1].startswith(
        "For a budget of +25 % and +50 % latency over Row a take Row c: +6.0"
    )
    assert len(lines) == 2


def test_a_budget_says_where_a_cheaper_row_may_do():
    table = verdict_table(suite(row("a", 0.30, 1, 100), row("b", 0.3001, 1.04, 104)))
    line = next(note for note in table.notes if note.startswith("For a budget"))
    assert "that it is better than the cheaper Row a is not shown" in line
    assert "~" in line


def test_nothing_within_a_budget_is_better_than_the_first_row():
    table = verdict_table(suite(row("a", 0.30, 1, 100), row("b", 0.2, 1.04, 104)))
    assert any("take Row a itself" in note for note in table.notes)


def test_few_images_and_few_rounds_are_said():
    few = {"images": 12, "rounds": 3}
    table = verdict_table(suite(row("a", 0.30, 1, 100, **few), row("b", 0.2, 1.04, 104, **few)))
    assert any("Too few images or rounds" in note and "latency" in note for note in table.notes)


# --- columns -----------------------------------------------------------------------------------


def test_ap_differences_stand_in_the_table_and_on_the_page():
    found = suite(row("a", 0.30, 1, 100), row("b", 0.36, 1.2, 120), row("c", 0.3001, 1.2, 120))
    cells = [measured_cell(COLUMNS["ap_difference"], r) for r in found.rows]
    assert cells[0] == ""
    assert re.fullmatch(r"\+6\.00 \[\+5\.\d\d, \+6\.\d\d\]", cells[1])
    assert re.fullmatch(r"\+0\.01 \[-0\.\d\d, \+0\.\d\d\] ~", cells[2])
    assert measured_cell(COLUMNS["ap_ci95"], found.rows[0]) == "[26.0, 34.0]"
    page = html_page(found)
    assert cells[1] in page
    assert "Verdict</h2>" in page
    assert r"\textbf{[" not in latex(found)  # an interval is not the best of its column


def test_differences_are_to_the_first_row_with_draws_on_the_same_images():
    rows = [row("a", 0.30, 1, 100), row("b", 0.36, 1.2, 120), row("c", 0.36, 1.2, 120)]
    plain = dataclasses.replace(rows[0], accuracy=accuracy("a", 0.3))
    other = dataclasses.replace(
        rows[2], accuracy=dataclasses.replace(rows[2].accuracy, drawn_from="elsewhere")
    )
    found = against_first([plain, rows[1], row("d", 0.30, 1, 100), other])
    assert [dict(r.differences) for r in found[:2]] == [{}, {}]
    assert dict(found[2].differences)["accuracy"].to == "b"
    assert found[3].differences == ()


def test_few_images_resolve_nothing():
    few = {"images": 29}
    found = suite(row("a", 0.30, 1, 100, **few), row("b", 0.36, 1.2, 120, **few))
    assert not dict(found.rows[1].differences)["accuracy"].resolved


def test_of_several_seeds_the_first_is_said_to_be_taken():
    rows = [row("a", 0.30, 1.0, 100), row("b", 0.35, 1.1, 110)]
    more = dataclasses.replace(rows[1], seeds=(Seeded("accuracy", 1, accuracy("b", 0.36)),))
    notes = [
        " ".join(verdict_table(dataclasses.replace(results(), rows=tuple(of))).notes)
        for of in (rows, [rows[0], more])
    ]
    assert ["AP here is of the first seed alone" in text for text in notes] == [False, True]


def test_labels_with_commas_stand_in_quotes_and_many_beaten_rows_are_counted():
    def labelled(name, ap, cost):
        made = row(name, ap, 1 + cost / 100, cost)
        return dataclasses.replace(made, label=f"G, {name}")

    few = suite(labelled("a", 0.4, 100), labelled("b", 0.3, 110))
    assert "'G, a' is on the Pareto front" in verdict_table(few).notes[0]
    assert "Beaten: 'G, b' by 'G, a'." in verdict_table(few).notes[0]
    many = [labelled(f"b{i}", 0.3, 110 + i) for i in range(8)]
    paragraph = verdict_table(suite(labelled("a", 0.4, 100), *many)).notes[0]
    assert "8 rows are beaten; their lines say by which." in paragraph
