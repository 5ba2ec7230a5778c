"""The tables of builders and the spec types agree both ways."""

from __future__ import annotations

from dataclasses import fields
from typing import get_args

import pytest

from sepcbench.backbones import BACKBONES
from sepcbench.heads import HEADS
from sepcbench.necks import NECKS
from sepcbench.ops.norms import NORMS
from sepcbench.results import _QUANTITIES
from sepcbench.specs import (
    BACKBONE_TYPES,
    HEAD_TYPES,
    NECK_TYPES,
    AnyBackbone,
    AnyHead,
    AnyNeck,
    Norm,
)
from sepcbench.suites import CLAIM_QUANTITIES
from sepcbench.training.objectives import OBJECTIVES


def test_every_spec_type_has_a_builder_and_every_builder_a_spec_type() -> None:
    assert set(BACKBONES) == set(BACKBONE_TYPES.values())
    assert set(NECKS) == set(NECK_TYPES.values())
    assert set(HEADS) == set(HEAD_TYPES.values())
    assert set(OBJECTIVES) == set(HEAD_TYPES.values())
    assert tuple(NORMS) == get_args(Norm)


def test_every_quantity_of_a_claim_can_be_read_off_a_row() -> None:
    assert tuple(_QUANTITIES) == CLAIM_QUANTITIES


@pytest.mark.parametrize(
    ("types", "every"),
    [(BACKBONE_TYPES, AnyBackbone), (NECK_TYPES, AnyNeck), (HEAD_TYPES, AnyHead)],
)
def test_a_part_says_of_itself_only_what_is_asked(types: dict[str, type], every: type) -> None:
    """A property that is misspelled would leave the default of `specs.parts` standing."""
    asked = {name for name in vars(every) if not name.startswith("_")}
    for name, cls in types.items():
        assert issubclass(cls, every), name
        own = {key for base in cls.__mro__ for key in vars(base) if not key.startswith("_")}
        assert own - {field.name for field in fields(cls)} - {"TYPE"} <= asked, name
