"""Suite files: the committed ones are right, wrong ones get one line."""

from pathlib import Path

import pytest

from sepcbench import suites
from sepcbench.errors import UsageError

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


@pytest.mark.parametrize("name", ["quick", "appendix1", "components", "bn"])
def test_committed_suites_load(name):
    suite = suites.load(name)
    assert suite.rows
    assert all(value.source for row in suite.rows for _, value in row.published)


def test_a_minimal_suite_has_defaults(tmp_path):
    suite = suites.load(write(tmp_path, MINIMAL))
    assert suite.name == "mine"
    assert suite.cost_shape == (800, 1344)
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
