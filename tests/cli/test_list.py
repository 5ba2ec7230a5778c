"""`sepcbench list`: what it finds, and the names it shows."""

import json

import pytest

from sepcbench.cli.app import run
from sepcbench.specs import NECK_TYPES
from sepcbench.variants import VARIANTS


def listed(capsys, *words):
    capsys.readouterr()
    assert run(["list", *words, "--format", "json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_descriptions_are_searched_too(capsys):
    """The words are those of `list necks`: "PConv, arXiv 2005.03101" is no name."""
    assert [row["name"] for row in listed(capsys, "necks", "2005.03101")] == ["pconv", "sepc"]
    assert [row["name"] for row in listed(capsys, "norms", "LEVELS TOGETHER")] == ["integrated"]
    assert [row["name"] for row in listed(capsys, "necks", "pconv")] == ["pconv"]
    every = {row["name"] for row in listed(capsys, "variants", "sepc_lite")}
    assert every == {name for name in VARIANTS if name.endswith("sepc_lite")}


def test_necks_say_what_they_are_called_in_variants(capsys):
    necks = {row["name"]: row["names"] for row in listed(capsys, "necks")}
    assert list(necks) == list(NECK_TYPES)
    assert necks["sepc"] == ["sepc_lite", "sepc"]
    assert {"pconv", "pconv_ibn", "pconv_gn"} <= set(necks["pconv"])
    assert {"c4", "c5"} == set(necks["single_level"])
    for kind, names in necks.items():
        for name in names:
            detector = "retinanet" if f"retinanet_r50_{name}" in VARIANTS else "rpn"
            assert kind == VARIANTS[f"{detector}_r50_{name}"].necks[-1].TYPE
    assert [row["name"] for row in listed(capsys, "necks", "pconv_ibn")] == ["pconv"]


def test_recipes_tell_their_fields(capsys):
    assert run(["list", "recipes"]) == 0
    words = " ".join(capsys.readouterr().out.split())
    assert "1x_two_stage" in words
    assert "learning_rate=" in words.replace("- ", "")
    assert run(["list", "recipes", "--format", "json"]) == 0
    found = {one["name"]: one["about"] for one in json.loads(capsys.readouterr().out)}
    assert found["1x"].startswith("The 1x schedule of the SEPC paper")


def test_the_table_has_them_and_other_lists_do_not(capsys):
    assert run(["list", "necks", "sepc", "--format", "md"]) == 0
    assert "| sepc | sepc_lite, sepc | Scale-equalizing" in capsys.readouterr().out
    assert set(listed(capsys, "heads")[0]) == {"name", "about"}


@pytest.mark.parametrize("kind", ["necks", "suites"])
def test_nothing_found_is_said(kind, capsys):
    assert listed(capsys, kind, "nothing like it") == []
    assert run(["list", kind, "nothing like it"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert f"Nothing here has 'nothing like it' in it: `sepcbench list {kind}` shows all." in out
