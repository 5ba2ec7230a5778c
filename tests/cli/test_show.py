"""`sepcbench show` for every detector."""

import json

import pytest

from sepcbench.cli.app import run
from sepcbench.variants import DETECTORS


@pytest.mark.parametrize("detector", DETECTORS)
def test_show_gives_the_maps_of_every_detector(detector, capsys):
    assert run(["show", f"{detector}_tiny_fpn", "--format", "json"]) == 0
    (shown,) = json.loads(capsys.readouterr().out)
    levels = [level["level"] for level in shown["maps"]]
    expected = {"fast_rcnn": []}  # it has no maps of its own
    for name in ("rpn", "faster_rcnn", "mask_rcnn"):
        expected[name] = ["P2", "P3", "P4", "P5", "P6"]
    assert levels == expected.get(detector, ["P3", "P4", "P5", "P6", "P7"])
