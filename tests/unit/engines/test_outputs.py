"""How far outputs are apart."""

from __future__ import annotations

import math
from typing import get_args

import pytest
import torch

from sepcbench.engines import TOLERANCES, allowed_error, output_error
from sepcbench.heads import LevelOutput, RoiOutput
from sepcbench.specs import Dtype

MAP = torch.tensor([[3.0, 4.0], [0.0, 12.0]])  # of norm 13


def test_the_error_is_relative_and_of_the_worst_tensor() -> None:
    wrong = MAP.clone()
    wrong[1, 0] = 0.13
    assert output_error([MAP, {"a": wrong}], [MAP, {"a": MAP}]) == pytest.approx(0.01)
    assert output_error((MAP, wrong * 1e-6), (MAP, MAP * 1e-6)) == pytest.approx(0.01, rel=1e-4)
    assert output_error(MAP, MAP) == 0


def test_named_tuples_and_missing_maps() -> None:
    assert output_error([LevelOutput(MAP, MAP)], [LevelOutput(MAP, MAP, None)]) == 0
    assert output_error([LevelOutput(MAP, MAP)], [LevelOutput(MAP, MAP, MAP)]) == math.inf


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (MAP[:1], MAP),
        (MAP * math.nan, MAP),
        (MAP, MAP * math.nan),
        (MAP / 0, MAP),
        (MAP, MAP * 0),
        ([MAP], [MAP, MAP]),
    ],
)
def test_what_cannot_be_compared_is_infinitely_wrong(found: object, expected: object) -> None:
    assert output_error(found, expected) == math.inf


def test_equal_infinities_and_zeros_and_nothing() -> None:
    infinite = torch.tensor([math.inf, 1.0])
    assert output_error(infinite, infinite) == 0
    assert output_error(MAP * 0, MAP * 0) == 0
    assert output_error(MAP[:0], MAP[:0]) == 0


def test_dtypes_and_layouts_may_differ() -> None:
    maps = torch.arange(48.0).reshape(1, 3, 4, 4)
    laid = maps.bfloat16().to(memory_format=torch.channels_last)
    assert output_error(laid, maps) < 1e-6  # whole numbers up to 48 are exact


def test_a_second_stage_counts_only_on_the_same_boxes() -> None:
    boxes = [torch.tensor([[0.0, 0, 9, 9]])]
    expected = RoiOutput([MAP], None, boxes, MAP, MAP)
    assert output_error(RoiOutput([MAP], None, boxes, MAP * 2, MAP), expected) > 0.9
    others = [torch.tensor([[0.0, 0, 9, 5]])]
    assert output_error(RoiOutput([MAP], None, others, MAP * 2, MAP), expected) == 0
    assert output_error(RoiOutput([MAP * 2], None, others, MAP, MAP), expected) > 0.9


def test_every_dtype_has_a_tolerance_that_rounding_widens() -> None:
    assert set(TOLERANCES) == set(get_args(Dtype))
    assert allowed_error("fp32") == 1e-4
    assert allowed_error("bf16", rounding=0.03) == pytest.approx(0.06)
    assert allowed_error("bf16", rounding=0.003) == 2e-2
