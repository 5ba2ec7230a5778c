"""The page of a suite: what is in it, that text stays text, what a real browser makes of it."""

import dataclasses
import io
import json
import re
from html.parser import HTMLParser

import pytest
from chromium import Chromium
from PIL import Image
from unit.make import accuracy, cost, latency, results, timed

from sepcbench.records import ClaimOutcome, Failure, Origin, Published, Row
from sepcbench.report.columns import used_columns
from sepcbench.report.html import embedded_json, html_page, page_data

EVIL = "<script>window.hit = 1</script>\"'><img src=x onerror='window.hit = 1'>&amp;$about ${x}"


class Elements(HTMLParser):
    """The start tags of a page, and the text of its scripts."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.scripts = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data):
        if self.tags and self.tags[-1][0] == "script":
            self.scripts[-1] += data

    def named(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def suite(rows=12):
    """Rows with measured and published AP, in an order that is sorted by nothing."""
    made = []
    for i in range(rows):
        n = (7 * i + 3) % rows  # a permutation
        ap = None if n == 5 else 0.3 + n / 100
        samples = tuple(tuple(0.1 + 0.001 * n + 0.0001 * j for j in range(5)) for _ in range(4))
        timed = dataclasses.replace(latency(f"v{n}", "cuda:0"), samples_s=samples)
        timed = dataclasses.replace(timed, median_s=0.1 + 0.001 * n)
        made.append(
            Row(
                f"row{n}",
                f"Neck {n}",
                f"v{n}",
                (("ap", Published(30.5 + n, f"paper {n}")),) if n % 2 else (),
                group="odd" if n % 2 else "even",
                latency=timed,
                accuracy=None if ap is None else accuracy(f"v{n}", ap),
            )
        )
    return dataclasses.replace(results(), title="A suite", rows=tuple(made), run_as="s")


def evil():
    """Every text of the records an attack."""
    value = Published(35.7, EVIL, EVIL)
    rows = (
        dataclasses.replace(results().rows[0], label=EVIL, group=EVIL, published=(("ap", value),)),
        Row("d", EVIL, EVIL, failures=(Failure("vd", "cost", EVIL),)),
    )
    claim = ClaimOutcome(EVIL, EVIL, 1.0, 2.0, EVIL, EVIL, 4)
    environment = dataclasses.replace(results().environment, cpu=EVIL, versions=((EVIL, EVIL),))
    return dataclasses.replace(
        results(),
        title=EVIL,
        about=EVIL,
        machine=EVIL,
        rows=rows,
        claims=(claim,),
        run_as=EVIL,
        environment=environment,
        origins=(Origin("a", "cost", EVIL, environment),),
    )


def test_the_page_stands_alone():
    page = Elements(html_page(results(gpu=True)))
    assert len(page.named("script")) == 2
    for _, attributes in page.tags:
        assert not {"src", "href", "action"} & set(attributes)
        assert not any(name.startswith("on") for name in attributes)
    assert "url(" not in html_page(results())
    assert "@import" not in html_page(results())


def test_the_scripts_end_their_element_only_once():
    text = html_page(results())
    assert text.count("</script>") == 2
    assert text.count("</style>") == 1


def test_the_same_records_give_the_same_page():
    assert html_page(results()) == html_page(results())


def test_the_table_is_a_real_one_with_every_value():
    text = html_page(results(gpu=True))
    page = Elements(text)
    heads = [a["data-key"] for a in page.named("th") if a.get("scope") == "col"]
    assert heads == ["", *used_columns(results(gpu=True))]
    assert len([a for a in page.named("th") if a.get("scope") == "row"]) == 4
    assert "1.070 [1.050, 1.090]" in text
    assert ">36.0</button>" in text
    assert "35.7 +0.3" in text
    assert "CountError: no formula" in text
    cells = [a["data-cell"] for a in page.named("button") if "data-cell" in a]
    assert "a.ap" in cells
    assert "b.latency_ratio" in cells


def test_text_of_records_stays_text():
    text = html_page(evil())
    page = Elements(text)
    assert not page.named("img")
    assert len(page.named("script")) == 2
    assert "&lt;script&gt;window.hit" in text
    assert "$about ${x}" in text  # what looks like a placeholder is none
    assert json.loads(page.scripts[0]) == page_data(evil())


def test_embedded_json_cannot_end_its_element():
    text = embedded_json({"a": "</script><!--\u2028", "b": [1.5, None]})
    assert not set("<>&\u2028") & set(text)
    assert json.loads(text) == {"a": "</script><!--\u2028", "b": [1.5, None]}


def test_samples_are_short_and_environments_shared():
    data = page_data(suite())
    assert data["sources"]["row3.latency"]["samples"][:2] == [103.0, 103.1]
    assert len(data["environments"]) == 1
    assert len(html_page(suite())) < 200_000


def test_a_suite_with_published_values_only_has_its_plot():
    rows = tuple(
        Row(
            f"r{i}",
            f"R{i}",
            "v",
            (("ap", Published(30 + i, "p")), ("latency_ms", Published(50 + i, "p"))),
        )
        for i in range(3)
    )
    data = page_data(dataclasses.replace(results(), rows=rows))
    assert data["x"] == ["latency_ratio"]
    assert [row["published_ratio"] for row in data["rows"]] == [1.0, 1.02, 1.04]


# --- in a real browser -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser():
    found = Chromium()
    yield found
    found.close()


@pytest.fixture
def tab(browser, tmp_path):
    """Opens a page of results; at the end nothing may have gone wrong or over the network."""
    page = browser.page()

    def opened(of, **options):
        (tmp_path / "page.html").write_text(html_page(of), encoding="utf-8")
        page.open(tmp_path / "page.html", **options)
        return page

    yield opened
    assert page.problems() == []
    assert page.requests() == [(tmp_path / "page.html").as_uri()]


NAMES = (
    "[...document.querySelectorAll('#table tbody tr')].filter(r => !r.hidden)"
    ".map(r => r.dataset.row)"
)
SORTED = "document.querySelector('#table th[data-key=ap]').getAttribute('aria-sort')"
OPEN = "document.getElementById('provenance').open"
PANEL = "document.getElementById('provenance').innerText"
FOCUS = "document.activeElement.dataset.cell"


def rows(*numbers):
    return [f"row{n}" for n in numbers]


def test_a_click_on_a_header_sorts_by_number_and_back(tab):
    page = tab(suite())
    before = page.script(NAMES)
    assert page.script(SORTED) is None
    page.click("#table th[data-key=ap] button")
    assert page.script(SORTED) == "ascending"
    # row5 has no measured AP, and counts with the published one: 35.5
    assert page.script(NAMES) == rows(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11)
    page.click("#table th[data-key=ap] button")
    assert page.script(SORTED) == "descending"
    assert page.script(NAMES) == rows(11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0)
    assert page.script(NAMES) != before
    page.click("#table th[data-key=latency] button")
    assert page.script(SORTED) is None
    assert page.script(NAMES) == rows(*range(12))
    page.click("#table th:first-child button")
    assert page.script(NAMES) == rows(*range(12))  # Neck 2 before Neck 10


def test_rows_without_a_value_stay_last_in_both_directions(tab):
    made = suite()
    blank = [dataclasses.replace(r, published=()) if r.name == "row5" else r for r in made.rows]
    page = tab(dataclasses.replace(made, rows=tuple(blank)))
    for _ in range(2):
        page.click("#table th[data-key=ap] button")
        assert page.script(NAMES)[-1] == "row5"


def test_the_keyboard_sorts_and_opens_and_closes(tab):
    page = tab(suite())
    page.script("document.querySelector('#table th[data-key=latency] button').focus()")
    page.press("Tab")
    page.press("Enter")
    key = page.script("document.querySelector('#table th[aria-sort]').dataset.key")
    assert key == used_columns(suite())[used_columns(suite()).index("latency") + 1]
    page.script("document.querySelector('[data-cell=\"row3.ap\"]').focus()")
    page.press("Enter")
    assert page.script(OPEN)
    page.press("Escape")
    assert not page.script(OPEN)
    assert page.script(FOCUS) == "row3.ap"


def test_the_filter_leaves_rows_and_points_that_have_all_words(tab):
    page = tab(suite())
    points = "new Set([...document.querySelectorAll('.point')].map(p => p.dataset.row)).size"
    assert page.script(points) == 12
    page.click("#filter")
    page.type("ODD neck 1")
    assert sorted(page.script(NAMES)) == ["row1", "row11"]
    assert page.script("document.getElementById('count').textContent") == "2 of 12 rows"
    assert page.script(points) == 2
    page.type(" nothing like it")
    assert page.script(NAMES) == []
    assert (
        page.script("document.querySelector('#plot svg').textContent") == "no row has both values"
    )


def test_a_cell_opens_where_it_comes_from(tab):
    page = tab(suite())
    page.click('[data-cell="row3.latency"]')
    assert page.script(OPEN)
    text = page.script(PANEL)
    assert "Neck 3: latency, ms" in text
    assert "records/row3.latency.json" in text
    assert "sepcbench run s --only row3" in text
    assert "20 samples" in text
    bars = page.script("document.querySelectorAll('.histogram rect').length")
    tall = (
        "[...document.querySelectorAll('.histogram rect')].filter(r => r.height.baseVal.value > 0)"
    )
    assert (bars, page.script(f"{tall}.length")) == (24, 5)  # five different times
    page.click("#close")
    assert not page.script(OPEN)
    page.click('[data-cell="row3.ap"]')
    text = page.script(PANEL)
    assert "paper 3" in text
    assert "33.5" in text
    assert page.script("document.querySelector('.histogram')") is None


def test_a_press_beside_the_panel_closes_it(tab):
    page = tab(suite())
    page.click('[data-cell="row3.ap"]')
    page.click("#provenance h3")
    assert page.script(OPEN)
    for kind in ("mousePressed", "mouseReleased"):
        place = {"x": 5, "y": 5, "button": "left", "clickCount": 1}
        page.call("Input.dispatchMouseEvent", type=kind, **place)
    assert not page.script(OPEN)


def test_the_plot_has_full_and_hollow_markers_intervals_and_a_front(tab):
    page = tab(suite())
    page.script("x.value = 'latency'; x.dispatchEvent(new Event('change')); 0")
    kinds = "[...document.querySelectorAll('.point')].map(p => p.dataset.kind)"
    found = page.script(kinds)
    assert found.count("measured") == 11
    assert found.count("published") == 6
    assert page.script("document.querySelectorAll('.hollow').length") == 6
    assert page.script("document.querySelectorAll('.point .bar').length") == 17
    # dearer is better throughout, so that every measured point is on the front: one step each
    path = page.script("document.querySelector('.front.measured').getAttribute('d')")
    assert path.count("V") == 11


def test_the_front_leaves_out_dominated_points(tab):
    made = suite(4)
    worse = [accuracy(r.variant, 0.5 - int(r.name[3:]) / 100) for r in made.rows]
    rows = tuple(dataclasses.replace(r, accuracy=a, published=()) for r, a in zip(made.rows, worse))
    page = tab(dataclasses.replace(made, rows=rows))
    page.script("x.value = 'latency'; x.dispatchEvent(new Event('change')); 0")
    path = page.script("document.querySelector('.front.measured').getAttribute('d')")
    assert path.count("V") == 1


def test_a_point_tells_on_hover_and_focus_and_opens(tab):
    page = tab(suite())
    shown = (
        "document.getElementById('tip').hidden ? null : document.getElementById('tip').innerText"
    )
    assert page.script(shown) is None
    page.script("document.querySelector('.point[data-row=row3]').focus()")
    assert "Neck 3" in page.script(shown)
    page.script("document.activeElement.blur()")
    assert page.script(shown) is None
    page.hover(".point[data-row=row3] .mark")
    assert "Neck 3\nAP, %: 33.0" in page.script(shown)
    page.hover("h1")
    assert page.script(shown) is None
    page.script("document.querySelector('.point[data-row=row3]').focus()")
    page.press("Enter")
    assert page.script(OPEN)
    page.press("Escape")
    page.click(".point[data-row=row7] .mark")
    assert "Neck 7" in page.script(PANEL)


def test_axes_can_be_chosen(tab):
    page = tab(results(gpu=True))
    choices = "[...document.getElementById('x').options].map(o => o.value)"
    assert page.script(choices) == ["latency_ratio", "macs", "latency", "params"]
    page.script("x.value = 'macs'; x.dispatchEvent(new Event('change')); 0")
    assert "total, GMAC" in page.script("document.querySelector('#plot svg').textContent")


def test_text_of_records_stays_text_in_the_browser(tab):
    page = tab(evil())
    page.click('[data-cell="a.ap"]')
    assert "<script>window.hit" in page.script(PANEL)
    page.press("Escape")
    page.script("document.querySelector('.point').focus()")
    assert page.script("window.hit === undefined && !document.querySelector('img')")
    assert page.script("document.querySelector('h1').textContent") == EVIL


def colour(page, selector="body"):
    found = page.script(f"getComputedStyle(document.querySelector('{selector}')).backgroundColor")
    return sum(map(int, re.findall(r"\d+", found)[:3])) / 3


@pytest.mark.parametrize("dark", [False, True])
def test_the_theme_follows_the_system_until_it_is_chosen(tab, dark):
    page = tab(suite(), dark=dark)
    assert (colour(page) < 128) == dark
    page.click("#theme")
    assert colour(page) > 200
    page.click("#theme")
    assert colour(page) < 50
    assert page.script("document.getElementById('theme').textContent") == "Theme: dark"
    page.click("#theme")
    assert (colour(page) < 128) == dark


@pytest.mark.parametrize("dark", [False, True])
def test_text_stands_out_from_its_ground(tab, dark):
    """WCAG AA: a contrast of 4.5 for text, of 3 for marks."""
    page = tab(suite(), dark=dark)
    page.click('[data-cell="row3.latency"]')
    for selector in ("h1", ".machine", ".published", "td button", ".hint", "#count", "dt", "dd"):
        assert contrast(page, selector, "color") >= 4.5, selector
    for i in range(8):
        page.script(f"document.body.insertAdjacentHTML('beforeend', '<i class=\"dot c{i}\"></i>')")
        assert contrast(page, f"body > .c{i}", "backgroundColor") >= 3, i


def contrast(page, selector, what):
    shade = f"getComputedStyle(document.querySelector('{selector}')).{what}"
    one, two = (luminance(page.script(text)) for text in (shade, GROUND))
    return (max(one, two) + 0.05) / (min(one, two) + 0.05)


GROUND = "getComputedStyle(document.body).backgroundColor"


def luminance(colour):
    parts = [int(n) / 255 for n in re.findall(r"\d+", colour)[:3]]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_on_a_phone_the_table_scrolls_in_its_box_and_names_stay(tab):
    far = (("ap_large", Published(50.0, "a column far to the right")),)
    rows = tuple(dataclasses.replace(row, published=(*row.published, *far)) for row in suite().rows)
    page = tab(dataclasses.replace(suite(), rows=rows), width=390, height=844)
    assert page.script("[innerWidth, document.documentElement.scrollWidth]") == [390, 390]
    box = "document.querySelector('#table').parentNode"
    assert page.script(f"{box}.scrollWidth > {box}.clientWidth")
    left = "document.querySelector('#table tbody th').getBoundingClientRect().left"
    before = page.script(left)
    page.script(f"{box}.scrollLeft = 200; 0")
    assert page.script(f"{box}.scrollLeft") == 200
    assert page.script(left) == before
    page.click('[data-cell="row3.latency"]')
    width = page.script("document.getElementById('provenance').getBoundingClientRect().width")
    assert width <= 390
    assert page.script("document.getElementById('provenance-body').scrollWidth") <= width


def test_the_picture_is_not_empty(tab):
    page = tab(suite())
    with Image.open(io.BytesIO(page.screenshot())) as picture:
        assert picture.size == (1280, 900)
        assert len(picture.convert("RGB").getcolors(1 << 20)) > 50


def test_every_control_has_a_name(tab):
    """Through the accessibility tree: what a screen reader would say."""
    page = tab(suite())
    page.call("Accessibility.enable")
    nodes = page.call("Accessibility.getFullAXTree")["nodes"]
    roles = ("button", "combobox", "searchbox", "textbox", "link", "columnheader", "rowheader")
    controls = [n for n in nodes if n.get("role", {}).get("value") in roles]
    assert len(controls) > 50
    assert all(node.get("name", {}).get("value") for node in controls)


def test_the_plot_has_the_interval_of_a_score_as_a_vertical_bar(tab):
    scored = dataclasses.replace(accuracy(), ap_ci95=(0.34, 0.39))
    rows = tuple(dataclasses.replace(row, accuracy=scored) for row in suite(3).rows)
    page = tab(dataclasses.replace(suite(3), rows=rows))
    bars = "[...document.querySelectorAll('.point .rise')]"
    heights = page.script(f"{bars}.map(b => b.y1.baseVal.value - b.y2.baseVal.value)")
    assert len(heights) == 3
    assert all(height > 5 for height in heights)


def test_a_latency_of_an_engine_opens_where_it_comes_from(tab):
    page = tab(timed())
    page.click('[data-cell="a.latency_ratio@folded-fp32-1"]')
    panel = page.script(PANEL)
    assert "folded-fp32-1" in panel
    assert "records/a.latency@folded-fp32-1.json" in panel
    assert "Raw samples" in panel
    assert page.script("document.querySelectorAll('[data-cell=\"a.latency_ratio\"]').length") == 2


def test_words_of_tables_stand_left_and_the_verdict_leads_with_its_paragraph(tab):
    priced = [dataclasses.replace(row, cost=cost(row.variant)) for row in suite(4).rows]
    page = tab(dataclasses.replace(suite(4), rows=tuple(priced)))
    align = "getComputedStyle(document.querySelector('.lead ~ .scroll td')).textAlign"
    assert page.script(align) == "left"
    assert page.script("document.querySelector('.lead').textContent").startswith("Of ")


def test_no_interval_of_the_plot_crosses_a_name(tab):
    page = tab(suite(6))
    crossed = page.script("""[...document.querySelectorAll('#plot .name')].filter(name => {
        const n = name.getBoundingClientRect();
        return [...document.querySelectorAll('#plot .bar')].some(bar => {
            const b = bar.getBoundingClientRect();
            const across = b.left < n.right - 2 && b.right > n.left + 2;
            return across && b.top < n.bottom - 4 && b.bottom > n.top + 4;
        });
    }).map(name => name.textContent)""")
    assert crossed == []
