"""ATSS's anchors, training losses and their gradients against mmdetection 1.1 and 2.25."""

from __future__ import annotations

import pytest
from golden.ground_truth import check_losses, leaf_outputs, targets_of
from golden.scheme import Case, case_names

from sepcbench.heads.atss import AtssHead
from sepcbench.ops.anchors import cell_anchors, grid_anchors, octave_sizes
from sepcbench.specs import CONVENTIONS, AtssSpec
from sepcbench.training.objectives.atss import losses

STRIDES = (8, 16, 32, 64, 128)
VERSIONS = {"prims11": CONVENTIONS["mmdet1"], "prims2x": CONVENTIONS["mmdet2"]}


@pytest.mark.parametrize("version", VERSIONS)
def test_anchors(version: str) -> None:
    case, how, spec = Case(f"{version}/anchors_atss"), VERSIONS[version], AtssSpec()
    for level, stride in enumerate(STRIDES):
        sizes = octave_sizes(stride, spec.base_scale, spec.scales_per_octave, how)
        cell = cell_anchors(stride, sizes, spec.ratios, how)
        case.check(f"base{level}", cell, atol=1e-4, rtol=1e-6)
        grid = grid_anchors(cell, tuple(case.info["level_sizes"][level]), (stride, stride))
        case.check(f"grid{level}", grid, atol=1e-4, rtol=1e-6)


@pytest.mark.parametrize("name", case_names("loss*/atss*"))
def test_losses(name: str) -> None:
    case, how = Case(name), CONVENTIONS["mmdet2"]
    head = AtssHead(AtssSpec(depth=0), (64,) * 5, 80, STRIDES, how)
    outputs = leaf_outputs(case)
    ours = losses(outputs, head.priors(outputs, (288, 320)), targets_of(case), head.spec, 80, how)
    check_losses(case, ours, outputs)
