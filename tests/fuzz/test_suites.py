"""Damaged suite files: a suite, or one line."""

import pytest
from damage import FUZZ, LONG, damaged, damaged_bytes, one_line, toml
from hypothesis import given
from hypothesis import strategies as st

from sepcbench.cli.app import run
from sepcbench.codec import decode, encode
from sepcbench.suites import SuiteFile, load, names, twin

TREE = {
    "title": "Fuzzed",
    "about": "Some words",
    "measures": ["cost", "latency"],
    "proposals": "rpn_r50_fpn",
    "cost": {"shape": "64x64", "convention": "paper"},
    "latency": {
        "scope": "neck", "shape": "64x64", "batch": 1, "dtype": "fp32", "engine": "eager",
        "protocol": {"rounds": 3, "samples_per_round": 2, "max_seconds": 1.5},
    },
    "shapes": {"images": 4, "val_images": 2, "size": "64x64", "seed": 1},
    "train": {"iterations": 3, "batch": 2, "learning_rate": 0.01, "decay_at": [0.5, 0.9]},
    "row": [
        {"name": "a", "variant": "retinanet_r50_fpn", "label": "A", "group": "g",
         "published": {"ap": {"value": 35.7, "source": "s", "tolerance": 0.1}},
         "not_published": ["ap50"]},
        {"name": "b", "variant": "retinanet_r50_sepc", "shape": "64x96",
         "set": {"necks.1.depth": 2, "norm": "gn", "backbone": "r18", "conventions": "mmdet1"}},
        {"name": "c", "published": {"gmacs": {"value": 1, "source": "x"}}},
    ],
    "claim": [{"name": "one", "formula": "(b.macs - a.macs) / 2 * 1.5 + a.params",
               "published": 1.0, "source": "s", "unit": "M", "digits": 2}],
}  # fmt: skip


def check(folder, content):
    path = folder / "fuzzed.toml"
    path.write_bytes(content)
    suite = one_line(load, str(path))
    if suite is not None:
        # what can be read can be kept beside its records, and is read again as the same
        assert decode(SuiteFile, encode(suite.file)) == suite.file
        one_line(twin, suite)


def test_the_undamaged_suite_is_read(tmp_path):
    (tmp_path / "fuzzed.toml").write_text(toml(TREE))
    suite = load(str(tmp_path / "fuzzed.toml"))
    assert [row.name for row in suite.rows] == ["a", "b"]
    assert encode(suite.file)["row"][1]["set"] == TREE["row"][1]["set"]


@FUZZ
@given(damaged(TREE))
def test_a_damaged_suite(tmp_path, tree):
    check(tmp_path, toml(tree).encode("utf-8", "surrogatepass"))


@FUZZ
@given(damaged_bytes(toml(TREE).encode()))
def test_a_suite_of_damaged_bytes(tmp_path, content):
    check(tmp_path, content)


@pytest.mark.slow
@LONG
@given(st.one_of(damaged(TREE).map(lambda tree: toml(tree).encode("utf-8", "surrogatepass")),
                 damaged_bytes(toml(TREE).encode())))  # fmt: skip
def test_many_damaged_suites(tmp_path, content):
    check(tmp_path, content)


@pytest.mark.parametrize(
    "text",
    [
        "a = " + "[" * 50_000,
        "a = " + "1" * 5000,
        "a = 0x" + "f" * 5000,
        '[[row]]\nname = "a"\nvariant = "retinanet_r50_fpn"\nset = {norm = ' + "[" * 200 + "]" * 200
        + "}",
        'title = "t"\nrow = 0x' + "f" * 5000,
        'title = "t"\n[[row]]\nname = "a"\nvariant = "retinanet_r50_fpn"\n[[claim]]\nname = "c"\n'
        'formula = "' + "(" * 5000 + '"',
        'title = "t"\n[[row]]\nname = "a"\nvariant = "retinanet_r50_fpn"\n[[claim]]\nname = "c"\n'
        'formula = "' + "1+" * 5000 + '1"',
        'title = "t"\n[[row]]\nname = "a"\nvariant = "retinanet_r50_fpn"\n[[claim]]\nname = "c"\n'
        'formula = "a.macs\\u0000"',
        "\x00", "row = 1", "row = [1]", "row = [[]]", "title = 1", "[row]", "[[row]]",
    ],
    ids=range(15),
)  # fmt: skip
def test_what_nobody_would_write_is_one_line(tmp_path, capsys, text):
    path = tmp_path / "odd.toml"
    path.write_text(text)
    assert run(["run", str(path), "--measures", "cost", "--results", str(tmp_path / "r")]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "odd.toml" in err


@pytest.mark.parametrize("name", names())
def test_every_suite_that_comes_along_survives_being_kept(name):
    suite = load(name)
    assert decode(SuiteFile, encode(suite.file)) == suite.file
