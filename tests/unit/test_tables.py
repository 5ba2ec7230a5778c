"""The tables of builders and the spec types agree both ways."""

from __future__ import annotations

from typing import get_args

from sepcbench.backbones import BACKBONES
from sepcbench.heads import HEADS
from sepcbench.necks import NECKS
from sepcbench.ops.norms import NORMS
from sepcbench.specs import BACKBONE_TYPES, HEAD_TYPES, NECK_TYPES, Norm
from sepcbench.training.objectives import OBJECTIVES


def test_every_spec_type_has_a_builder_and_every_builder_a_spec_type() -> None:
    assert set(BACKBONES) == set(BACKBONE_TYPES.values())
    assert set(NECKS) == set(NECK_TYPES.values())
    assert set(HEADS) == set(HEAD_TYPES.values())
    assert set(OBJECTIVES) == set(HEAD_TYPES.values())
    assert tuple(NORMS) == get_args(Norm)
