"""Suite files: the committed ones are right, wrong ones get one line."""

from dataclasses import replace
from pathlib import Path

import pytest

from sepcbench import suites
from sepcbench.codec import decode, encode
from sepcbench.errors import UsageError
from sepcbench.specs import TinySpec
from sepcbench.suites import SuiteFile

MINIMAL = """
title = "T"
[[row]]
name = "a"
variant = "retinanet_tiny_fpn"
"""


def write(folder: Path, text: str) -> str:
    path = folder / "mine.toml"
    path.write_text(text)
    return str(path)


COMMITTED = sorted(path.stem for path in (Path(__file__).parents[2] / "suites").glob("*.toml"))


def test_every_table_of_the_papers_has_a_suite():
    promised = ["single_stage", "fusion", "state_of_the_art", "two_stage", "components", "bn"]
    promised += ["depth", "figure1", "fpn_rpn", "fpn_fast_rcnn", "fpn_faster_rcnn"]
    assert set(promised) <= set(COMMITTED)


@pytest.mark.parametrize("name", COMMITTED)
def test_committed_suites_load(name):
    suite = suites.load(name)
    assert suite.rows
    assert all(value.source for row in suite.rows for _, value in row.published)


@pytest.mark.parametrize("name", COMMITTED)
def test_every_suite_has_a_twin_of_all_that_differs_in_necks_and_head(name):
    suite = suites.load(name)
    twin = suites.twin(suite)
    specs = [replace(row.spec, name="") for row in twin.rows]
    assert len(set(specs)) == len(specs)
    assert [row.name for row in suite.rows if row.name in {r.name for r in twin.rows}] == [
        row.name for row in twin.rows
    ]
    large = {replace(row.spec, name="", backbone=TinySpec()) for row in suite.rows}
    assert len(specs) >= len({(s.necks, type(s.head)) for s in large}) or name == "appendix1"
    assert all(row.spec.backbone.TYPE == "tiny" for row in twin.rows)
    assert twin.file.shapes is not None
    assert twin.file.train is not None
    assert not any(row.published for row in twin.rows) or suite.file.shapes is not None
    assert decode(SuiteFile, encode(twin.file)) == twin.file


def test_a_reference_has_only_published_values(tmp_path):
    text = MINIMAL + "[[row]]\nname = 'b'\n[row.published.ap]\nvalue = 1\nsource = 's'"
    suite = suites.load(write(tmp_path, text))
    assert [row.name for row in suite.rows] == ["a"]
    assert [row.name for row in suite.references] == ["b"]
    with pytest.raises(UsageError, match="nothing to measure"):
        suites.load(write(tmp_path, "title = 'T'\n[[row]]\nname = 'b'"))


def test_rows_may_be_counted_in_their_own_way(tmp_path):
    text = MINIMAL + "shape = '64x96'\nconvention = 'mmdet'\n"
    suite = suites.load(write(tmp_path, text))
    assert suite.rows[0].cost == suites.CostSettings("64x96", "mmdet")


def test_a_minimal_suite_has_defaults(tmp_path):
    suite = suites.load(write(tmp_path, MINIMAL))
    assert suite.name == "mine"
    assert suite.rows[0].cost.shape == "800x1344"
    assert suite.rows[0].label == "a"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("title = 'T'", "has no rows"),
        ("title = 'T'\n[[rows]]\nname = 'a'", "'rows' should be 'row'"),
        (MINIMAL + "varient = 'x'", "did you mean 'variant'"),
        (MINIMAL.replace("tiny_fpn", "tiny_fnp"), "did you mean 'retinanet_tiny_fpn'"),
        (MINIMAL + "[row.set]\n'necks.0.chanels' = 4", "did you mean 'necks.0.channels'"),
        (MINIMAL + "[row.published.app]\nvalue = 1\nsource = 's'", "did you mean 'ap'"),
        (MINIMAL + MINIMAL.split("\n", 2)[2], "is there twice"),
        (MINIMAL.replace('name = "a"', 'name = "a b"'), "letters, digits and _"),
        (MINIMAL + "shape = '64'", "write it like 800x1344"),
        (MINIMAL + "not_published = ['app']", "did you mean 'ap'"),
        ("proposals = 'rpn_r50'\n" + MINIMAL, "unknown variant 'rpn_r50'"),
        (MINIMAL + "[cost]\nshape = '800,1344'", "write it like 800x1344"),
        (MINIMAL + "[cost]\nshape = '0x0'", "both above 0"),
        (MINIMAL + "[latency]\ndtype = 'fp8'", "unknown value 'fp8'"),
        (MINIMAL + "[latency.protocol]\nrounds = 0", "rounds is at least 1"),
        (MINIMAL + "[[claim]]\nname = 'c'\nformula = 'b.macs'", "unknown row"),
        (MINIMAL + "[[claim]]\nname = 'c'\nformula = 'a.mac'", "did you mean 'macs'"),
        (MINIMAL + "[[claim]]\nname = 'c'\nformula = '__import__(\"os\")'", "may hold only"),
        (MINIMAL + "[[claim]]\nname = 'c'\nformula = 'a.macs +'", "not a formula"),
        ("title = ", "not valid TOML"),
    ],
)
def test_bad_suites_are_one_line_that_names_the_file(tmp_path, text, words):
    with pytest.raises(UsageError) as caught:
        suites.load(write(tmp_path, text))
    line = str(caught.value)
    assert words in line
    assert "mine.toml" in line
    assert "\n" not in line


def test_unknown_suite_names_the_nearest():
    with pytest.raises(UsageError, match="did you mean 'quick'"):
        suites.load("quik")
    with pytest.raises(UsageError, match="no such file"):
        suites.load("nowhere/quick.toml")
