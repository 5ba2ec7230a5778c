"""Configurations are read as text: literals only, and nothing is run."""

from __future__ import annotations

from pathlib import Path

import pytest

from sepcbench.checkpoints.config_text import ConfigText

TEXT = """../configs/retinanet.py
norm = dict(mean=[1, 2, 3.5], to_rgb=True)
model = dict(bbox_head=dict(type='RetinaHead', loss=dict(type='FocalLoss', std=0.01)), std=[4, 5])
train_pipeline = [dict(type='Pad', size_divisor=32)]
test_pipeline = [dict(transforms=[dict(type='Pad', size_divisor=384), dict(**norm)])]
"""


def test_values_by_name_and_place() -> None:
    config = ConfigText(TEXT)
    assert config.value("mean") == [1, 2, 3.5]
    assert config.value("to_rgb") is True
    assert config.values("size_divisor") == [32, 384]
    assert config.value("size_divisor") is None
    assert config.value("size_divisor", "test_pipeline") == 384
    assert config.values("std") == [[4, 5], 0.01]
    assert config.value("nothing") is None


def test_types_are_those_of_the_dict_itself() -> None:
    assert ConfigText(TEXT).types("bbox_head") == ["RetinaHead"]
    braces = "model = {'bbox_head': {'type': 'FSAFHead', 'loss': {'type': 'X'}}}"
    assert ConfigText(braces).types("bbox_head") == ["FSAFHead"]


@pytest.mark.parametrize("text", ["", "not python (", "\0", "x = 1\n  y = 2", "(" * 10000])
def test_what_is_no_python_says_nothing(text: str) -> None:
    assert ConfigText(text).value("x") is None


def test_nothing_is_run(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    config = ConfigText(f"open({str(mark)!r}, 'w')\nx = open({str(mark)!r}, 'w')\ny = [f'{{x}}']")
    assert config.value("x") is None
    assert config.value("y") is None
    assert not mark.exists()
