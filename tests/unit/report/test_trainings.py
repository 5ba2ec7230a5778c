"""Rows that were trained differently are said to be."""

from dataclasses import replace

from unit.make import accuracy, results, seeded

from sepcbench.records import Seeded, Training
from sepcbench.report.columns import conditions
from sepcbench.report.compare import unlike
from sepcbench.report.seeds import seeds_table
from sepcbench.report.trainings import trained_unlike

TEN = Training("va", "coco", 9, 10, 2, 0, "sgd", 0.01, ((1, 1.0),))
THIRTY = replace(TEN, iterations=30, pretrained="imagenet")


def trained(*trainings):
    rows = [replace(row, accuracy=accuracy()) for row in results().rows]
    return replace(
        results(), rows=tuple(replace(row, training=one) for row, one in zip(rows, trainings))
    )


def test_rows_of_two_recipes_do_not_compare():
    lines = [line for line in conditions(trained(TEN, THIRTY, TEN)) if "trained" in line]
    assert lines == [
        "Rows were trained differently, their scores do not compare: iterations (10 of FPN, Twin; "
        "30 of SEPC), pretrained (none of FPN, Twin; imagenet of SEPC)."
    ]


def test_another_seed_or_machine_is_no_other_training():
    other = replace(TEN, seed=3, processes=8, variant="vb", losses=())
    assert trained_unlike(trained(TEN, other).rows) == []


def test_seeds_of_two_recipes_are_said_below_their_means():
    of = seeded()
    assert not any("trained" in note for note in seeds_table(of).notes)
    more = (*of.rows[0].seeds, Seeded("training", 1, THIRTY))
    rows = (replace(of.rows[0], training=TEN, seeds=more), *of.rows[1:])
    (line,) = [n for n in seeds_table(replace(of, rows=rows)).notes if "trained" in n]
    assert "iterations (10 of row a; 30 of row a)" in line


def test_two_sets_of_other_trainings_are_unlike_in_their_place():
    found = [one for one in unlike(trained(TEN), trained(THIRTY)) if "training" in one.what]
    assert [(one.what, one.first, one.second, one.work) for one in found] == [
        ("training's iterations", "10", "30", False),
        ("training's pretrained", "none", "imagenet", False),
    ]
    unscored = replace(trained(TEN), rows=(replace(trained(TEN).rows[0], accuracy=None),))
    assert not [one for one in unlike(unscored, trained(THIRTY)) if "training" in one.what]


def test_an_interval_that_ends_at_zero_has_no_sign():
    record = replace(accuracy(), ap_ci95=(-1e-9, 0.001))
    rows = (replace(results().rows[0], accuracy=record),)
    from sepcbench.report.columns import COLUMNS, measured_cell

    assert measured_cell(COLUMNS["ap_ci95"], rows[0]) == "[0.0, 0.1]"
