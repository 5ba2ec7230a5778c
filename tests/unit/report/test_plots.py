"""Pictures from made-up records: which there are, what is in them, and that they come out alike."""

import dataclasses
from itertools import pairwise

import pytest
from matplotlib.text import Text
from PIL import Image
from unit.make import accuracy, cost, latency, results

from sepcbench.records import Published, Ratio, Recall, Row, SizeBand, Training
from sepcbench.report.figures import COLOURS, GREY, STYLE, colours, heading, legend_lines
from sepcbench.report.plots import PLOTS, write_plots
from sepcbench.report.points import (
    PRICES,
    QUALITIES,
    Mark,
    front,
    marks,
    named,
    published_ratios,
    ranked,
)
from sepcbench.report.row_axis import row_axis

AP = QUALITIES["ap"]


def point(x, y, name="r", kind="measured"):
    return Mark(Row(name, name, "v"), kind, x, y)


def with_rows(*rows):
    return dataclasses.replace(results(), rows=rows)


def many(groups=5, each=6):
    """A suite of groups, with everything measured."""
    rows = []
    for i in range(groups * each):
        ap, time = 0.3 + 0.01 * (i % each) + 0.002 * i, 1 + 0.1 * (i % each) + 0.03 * i
        ratio = Ratio("r0", time, (time - 0.02, time + 0.02), time, (time, time), True)
        scored = dataclasses.replace(accuracy("v", ap), ap_ci95=(ap - 0.01, ap + 0.01))
        rows.append(
            Row(
                f"r{i}",
                f"G{i // each}, neck {i % each}",
                "v",
                published=(("ap", Published(100 * ap + 1, "paper")),) if i % 3 == 0 else (),
                group=f"G{i // each}",
                cost=cost("v", 10**11 + 10**9 * i),
                latency=dataclasses.replace(latency(ratio=ratio if i else None), reference="r0"),
                accuracy=scored,
                masks=dataclasses.replace(scored, task="segm"),
                training=trained(1.0 + i),
            )
        )
    return with_rows(*rows)


def trained(level):
    losses = tuple((step, level + 5 / step) for step in range(1, 60, 2))
    return Training("v", "d", 10, 60, 2, 0, "sgd", 0.01, losses)


@pytest.fixture
def style():
    from matplotlib import style

    with style.context(["default", STYLE]):
        yield


# --- points: nothing here draws ---------------------------------------------------------------


def test_front_has_exactly_the_rows_that_no_other_equals_or_betters():
    found = [point(1, 30), point(2, 29), point(2, 31), point(3, 31), point(4, 33), point(4, 32)]
    kept = front(found)
    assert [(mark.x, mark.y) for mark in kept] == [(1, 30), (2, 31), (4, 33)]
    for mark in found:
        beaten = any(
            other.x <= mark.x and other.y >= mark.y and (other.x, other.y) != (mark.x, mark.y)
            for other in found
        )
        assert (mark in kept) is not beaten


def test_published_and_measured_points_are_never_ranked_against_each_other():
    found = [point(1, 40, "a", "elsewhere"), point(2, 30, "b"), point(3, 31, "c")]
    assert {mark.kind for mark in ranked(found)} == {"measured"}
    assert ranked(found[:2]) == []


def test_a_measured_point_carries_its_intervals_in_the_units_of_the_axes():
    row = many().rows[3]
    suite = with_rows(many().rows[0], row)
    mark = marks(suite, AP, PRICES["latency"](suite))[-2]
    assert mark.row.name == "r3"
    assert mark.x_interval == pytest.approx((mark.x - 0.02, mark.x + 0.02))
    assert mark.y_interval == pytest.approx((mark.y - 1, mark.y + 1))


def test_published_latency_stands_in_multiples_of_the_first_row():
    def told(name, ap, ms):
        published = (("ap", Published(ap, "p")), ("latency_ms", Published(ms, "p")))
        return Row(name, name, "v", published)

    suite = with_rows(told("a", 35.7, 80.0), told("b", 38.8, 100.0))
    assert published_ratios(suite) == {"a": 1.0, "b": 1.25}
    found = marks(suite, AP, PRICES["latency"](suite))
    assert [(mark.kind, mark.x, mark.y) for mark in found] == [
        ("elsewhere", 1.0, 35.7),
        ("elsewhere", 1.25, 38.8),
    ]


def test_a_gpu_is_in_ms_unless_published_times_must_stand_beside_it():
    suite = results(gpu=True)
    price = PRICES["latency"](suite)
    assert price.label == "latency, ms"
    assert price.value(suite.rows[0]) == 100.0
    first = dataclasses.replace(
        suite.rows[0], published=(("latency_ms", Published(70.0, "paper")),)
    )
    beside = PRICES["latency"](dataclasses.replace(suite, rows=(first, *suite.rows[1:])))
    assert beside.label == "latency, times FPN"


def test_costs_counted_on_different_inputs_are_no_axis():
    suite = results()
    other = dataclasses.replace(suite.rows[1].cost, shape=(640, 640))
    rows = (suite.rows[0], dataclasses.replace(suite.rows[1], cost=other))
    assert PRICES["macs"](with_rows(*rows)) is None


def test_each_row_is_named_once_at_what_was_measured():
    found = marks(many(), AP, PRICES["macs"](many()))
    names = named(found)
    assert len(names) == 30
    assert len(found) == 40
    assert all(mark.kind == "measured" for mark in names)


# --- rows, colours, headings ---------------------------------------------------------------------


def test_groups_share_a_colour_and_rows_outside_of_them_are_grey():
    suite = many(groups=2, each=2)
    alone = Row("alone", "alone", "v")
    given = colours(dataclasses.replace(suite, rows=(*suite.rows, alone)))
    assert given == {
        "r0": COLOURS[0],
        "r1": COLOURS[0],
        "r2": COLOURS[1],
        "r3": COLOURS[1],
        "alone": GREY,
    }


def test_rows_stand_under_their_group_and_leave_its_name_out():
    axis = row_axis(many(groups=2, each=2).rows)
    assert axis.labels == ("neck 0", "neck 1", "neck 0", "neck 1")
    assert [text for _, text in axis.headings] == ["G0", "G1"]
    everything = [*axis.places, *(place for place, _ in axis.headings)]
    assert len(set(everything)) == 6
    assert min(abs(a - b) for a in everything for b in everything if a != b) >= 1 - 1e-9
    assert axis.headings[0][0] > axis.places[0] > axis.places[1] > axis.headings[1][0]


def test_heading_wraps_and_says_when_nothing_was_measured():
    long = dataclasses.replace(results(), title="word " * 40, environment=None)
    lines = heading(long).split("\n")
    assert lines[-1] == "published values only"
    assert max(map(len, lines)) <= 88
    assert heading(results()).endswith("test-machine")


def test_a_legend_has_room_for_all_of_its_lines():
    assert [legend_lines(n) for n in (0, 1, 4, 5, 6, 7)] == [0, 1, 1, 2, 2, 3]


# --- pictures ----------------------------------------------------------------------------------


def test_what_the_records_give_nothing_for_is_not_drawn(tmp_path, style):
    empty = with_rows(Row("a", "A", "v"), Row("b", "B", "v"))
    assert write_plots(empty, tmp_path) == []
    assert all(draw(empty, "") is None for draw in PLOTS.values())


@pytest.mark.parametrize(
    "name", ["macs", "latency", "ap_over_macs", "ap_over_latency", "mask_ap_over_macs", "losses"]
)
def test_all_of_thirty_rows_are_named_inside_the_picture_and_no_two_hide_each_other(name, style):
    made = PLOTS[name](many(), "title")
    made.figure.draw_without_rendering()
    width, height = made.figure.canvas.get_width_height()
    down = name in ("macs", "latency")  # rows are down the left
    texts = [
        text
        for axes in made.axes.flat
        for text in [*axes.texts, *(axes.get_yticklabels() if down else ()), axes.title]
        if text.get_text() and text.get_visible() and axes.axison
    ]
    texts += made.strip.legends[0].get_texts() if made.strip.legends else []
    texts += [text for text in (made.body._supxlabel, made.body._supylabel) if text]
    boxes = [text.get_window_extent() for text in texts]
    assert all(box.x0 >= 0 and box.x1 <= width for box in boxes)
    assert all(box.y0 >= 0 and box.y1 <= height for box in boxes)
    if name != "losses":
        said = " ".join(text.get_text() for text in texts)
        assert said.count("neck 3") == 5
    if down:
        labels = [text.get_window_extent() for text in made.axes[0, 0].get_yticklabels()]
        labels.sort(key=lambda box: box.y0)
        assert all(above.y0 > below.y1 - 1 for below, above in pairwise(labels))


def test_names_in_a_full_picture_keep_off_each_other_and_off_the_markers(style):
    suite = many(groups=3, each=5)
    made = PLOTS["ap_over_latency"](suite, "title")
    made.figure.draw_without_rendering()
    axes = made.axes[0, 0]
    boxes = [Text.get_window_extent(text) for text in axes.texts]  # of a name without its leader
    assert len(boxes) == 15
    shared = [
        max(0, min(a.x1, b.x1) - max(a.x0, b.x0)) * max(0, min(a.y1, b.y1) - max(a.y0, b.y0) - 2)
        for i, a in enumerate(boxes)
        for b in boxes[:i]
    ]
    assert max(shared) < 0.2 * min(box.width * box.height for box in boxes)


def test_a_suite_of_many_rows_gets_a_picture_per_group_on_one_scale(style):
    made = PLOTS["ap_over_latency"](many(), "")
    titles = [axes.get_title(loc="left") for axes in made.axes.flat if axes.axison]
    assert titles == ["G0", "G1", "G2", "G3", "G4"]
    limits = {(axes.get_xlim(), axes.get_ylim()) for axes in made.axes.flat if axes.axison}
    assert len(limits) == 1


def test_bars_of_sizes_are_as_long_as_the_scores(style):
    scored = dataclasses.replace(accuracy("v", 0.4), ap_small=0.2, ap_medium=None, ap_large=0.6)
    told = (("ap_small", Published(21.5, "paper")),)
    made = PLOTS["ap_by_size"](with_rows(Row("a", "A", "v", told, accuracy=scored)), "")
    widths = [[round(bar.get_width(), 6) for bar in axes.patches] for axes in made.axes[0]]
    assert widths == [[40.0], [20.0, 21.5], [], [60.0]]


def test_proposals_have_recall_over_cost_and_by_size(tmp_path):
    recall = Recall("v", "val", 10, 100, None, 0.4, 0.5, 0.2, 0.5, 0.7)
    row = Row("a", "A", "v", cost=cost(), recall=recall)
    names = [path.name for path in write_plots(with_rows(row), tmp_path)]
    assert names == ["macs.png", "ar_over_macs.png", "ar_by_size.png"]


def test_the_curve_of_a_steady_loss_is_that_loss(style):
    flat = Training("v", "d", 1, 40, 1, 0, "sgd", 0.1, tuple((i, 2.5) for i in range(1, 41)))
    made = PLOTS["losses"](with_rows(Row("a", "A", "v", training=flat)), "")
    curves = [line.get_ydata() for line in made.axes[0, 0].lines]
    assert len(curves) == 2
    assert all(value == pytest.approx(2.5) for curve in curves for value in curve)


def test_a_loss_of_zero_and_a_single_step_can_be_drawn(style):
    one = Training("v", "d", 1, 1, 1, 0, "sgd", 0.1, ((1, 0.0),))
    made = PLOTS["losses"](with_rows(Row("a", "A", "v", training=one)), "")
    assert made.axes[0, 0].get_yscale() == "linear"


def test_paper_formats_are_written_besides_without_a_heading_and_byte_for_byte_again(tmp_path):
    from matplotlib import rcParams

    before = dict(rcParams)
    ap, ms = Published(35.7, "paper"), Published(70.0, "paper")
    suite = with_rows(Row("a", "A", "v", (("ap", ap), ("latency_ms", ms))))
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        folder.mkdir()
        files = write_plots(suite, folder, ("svg", "pdf"))
    assert [path.name for path in files] == [
        f"ap_over_latency.{form}" for form in ("png", "svg", "pdf")
    ]
    for path in files:
        assert path.read_bytes() == (folders[0] / path.name).read_bytes(), path.name
    with Image.open(folders[0] / "ap_over_latency.png") as titled:
        tall = titled.height / 150
    svg = (folders[0] / "ap_over_latency.svg").read_text()
    assert svg.lstrip().startswith("<?xml")
    assert "<svg" in svg
    assert "Suite | title" in svg  # in the metadata
    height = float(svg.split('height="')[1].split("pt")[0]) / 72
    assert height < tall - 0.3
    pdf = (folders[0] / "ap_over_latency.pdf").read_bytes()
    assert pdf.startswith(b"%PDF")
    assert b"/Type3" not in pdf
    assert b"CreationDate" not in pdf
    assert dict(rcParams) == before


def crossed(name, lines):
    """Whether an upright or level line, in pixels, goes through a name."""
    box = Text.get_window_extent(name)
    return any(
        box.x0 < max(x0, x1)
        and min(x0, x1) < box.x1
        and box.y0 < max(y0, y1)
        and min(y0, y1) < box.y1
        for (x0, y0), (x1, y1) in lines
    )


def test_no_interval_crosses_a_name_where_there_is_room_elsewhere(style):
    def row(name, time, ap):
        ratio = Ratio("r0", time, (time - 0.01, time + 0.01), time, (time, time), True)
        scored = dataclasses.replace(accuracy("v", ap), ap_ci95=(ap - 0.04, ap + 0.04))
        timed = dataclasses.replace(latency(ratio=ratio), reference="r0")
        return Row(name, f"a neck of {name}", "v", latency=timed, accuracy=scored)

    # the second point's interval stands where the first one's name would
    rows = (row("r0", 1, 0.41), row("r1", 1.05, 0.38), row("r2", 1.2, 0.4), row("r3", 2.7, 0.39))
    made = PLOTS["ap_over_latency"](with_rows(*rows), "")
    made.figure.draw_without_rendering()
    axes = made.axes[0, 0]
    lines = [line.get_xydata() for line in axes.lines if len(line.get_xydata()) == 2]
    pixels = [axes.transData.transform(ends) for ends in lines]
    assert len(pixels) >= 8
    assert [name.get_text() for name in axes.texts if crossed(name, pixels)] == []


def test_finer_sizes_of_a_grouped_suite_have_a_panel_per_group(style):
    bands = (SizeBand("pixels", 0, 16, 10, 0.1), SizeBand("relative", 0, 0.25, 10, 0.1001))
    scored = dataclasses.replace(accuracy("v", 0.3), bands=bands)
    rows = [Row(f"r{i}", f"G{i % 2}, {i}", "v", group=f"G{i % 2}", accuracy=scored) for i in (0, 1)]
    made = PLOTS["ap_by_finer_size"](with_rows(*rows), "")
    assert [one.get_title(loc="left") for one in made.axes.flat] == ["G0", "G1"]
    plain = [dataclasses.replace(row, group="") for row in rows]
    alone = PLOTS["ap_by_finer_size"](with_rows(*plain), "")
    assert len(alone.axes.flat) == 1  # images of one size: relative sizes say the same


def test_counts_have_four_digits_each(style):
    counts = (251 * 10**9, 1234567 * 10**6)
    rows = [Row(f"r{i}", f"R{i}", "v", cost=cost("v", count)) for i, count in enumerate(counts)]
    made = PLOTS["macs"](with_rows(*rows), "")
    assert {"251.0", "1,235"} <= {text.get_text() for text in made.axes[0, 0].texts}
