"""The norm flavours, each against its definition."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sepcbench.errors import UsageError
from sepcbench.ops.norms import NORMS

CHANNELS, SIZES = 8, ((6, 5), (3, 3), (2, 2))


def pyramid() -> list[Tensor]:
    torch.manual_seed(0)
    return [3 * level + torch.randn(2, CHANNELS, h, w) for level, (h, w) in enumerate(SIZES)]


def build(name: str) -> nn.Module:
    torch.manual_seed(1)
    norm = NORMS[name](CHANNELS, len(SIZES), 4)
    for key, value in norm.state_dict().items():
        if value.is_floating_point():
            value.copy_(torch.rand_like(value) + (0.5 if "var" in key else 0.0))
    return norm


@pytest.mark.parametrize("name", NORMS)
def test_a_norm_keeps_the_sizes(name: str) -> None:
    levels = pyramid()
    for mode in (True, False):
        out = build(name).train(mode)(levels)
        assert [x.shape for x in out] == [x.shape for x in levels]


@pytest.mark.parametrize("name", NORMS)
def test_a_norm_works_on_an_empty_batch(name: str) -> None:
    out = build(name).eval()([x[:0] for x in pyramid()])
    assert [tuple(x.shape) for x in out] == [(0, CHANNELS, *size) for size in SIZES]


def test_none_changes_nothing() -> None:
    levels = pyramid()
    assert all(torch.equal(a, b) for a, b in zip(build("none")(levels), levels))


def test_integrated_is_one_batch_norm_over_all_cells() -> None:
    levels, norm = pyramid(), build("integrated").train()
    cells = torch.cat([x.permute(1, 0, 2, 3).flatten(1) for x in levels], dim=1)  # (C, cells)
    mean, variance = cells.mean(dim=1), cells.var(dim=1, unbiased=False)
    old = norm.running_mean.clone(), norm.running_var.clone()
    for x, y in zip(levels, norm(levels)):
        scaled = (x - mean[:, None, None]) / (variance[:, None, None] + 1e-5).sqrt()
        torch.testing.assert_close(
            y, scaled * norm.weight[:, None, None] + norm.bias[:, None, None]
        )
    torch.testing.assert_close(norm.running_mean, 0.9 * old[0] + 0.1 * mean)
    torch.testing.assert_close(norm.running_var, 0.9 * old[1] + 0.1 * cells.var(dim=1))
    assert int(norm.num_batches_tracked) == 1


def test_single_normalises_every_level_by_itself_and_shares_statistics() -> None:
    levels, norm = pyramid(), build("single").train()
    mean, var = norm.running_mean.clone(), norm.running_var.clone()
    for x, y in zip(levels, norm(levels)):
        wanted = F.batch_norm(x, mean, var, norm.weight, norm.bias, training=True)
        torch.testing.assert_close(y, wanted)  # mean and var move once per level
    torch.testing.assert_close(norm.running_mean, mean)
    torch.testing.assert_close(norm.running_var, var)


@pytest.mark.parametrize("name", ["single", "integrated", "frozen"])
def test_one_set_of_statistics_serves_all_levels_in_eval_mode(name: str) -> None:
    levels, norm = pyramid(), build(name).eval()
    for x, y in zip(levels, norm(levels)):
        scale = norm.weight / (norm.running_var + 1e-5).sqrt()
        shift = norm.bias - norm.running_mean * scale
        torch.testing.assert_close(y, x * scale[:, None, None] + shift[:, None, None])


def test_independent_has_a_batch_norm_per_level() -> None:
    levels, norm = pyramid(), build("independent").train()
    assert len(norm.levels) == len(SIZES)
    for i, (x, y) in enumerate(zip(levels, norm(levels))):
        own = norm.levels[i]
        wanted = F.batch_norm(x, None, None, own.weight, own.bias, training=True)
        torch.testing.assert_close(y, wanted)
    assert not torch.equal(norm.levels[0].running_mean, norm.levels[1].running_mean)


def test_gn_normalises_groups_of_one_image_and_level() -> None:
    levels, norm = pyramid(), build("gn").train()
    for x, y in zip(levels, norm(levels)):
        torch.testing.assert_close(y, F.group_norm(x, 4, norm.weight, norm.bias))


def test_frozen_has_no_parameters_and_never_moves() -> None:
    norm = build("frozen").train()
    before = {k: v.clone() for k, v in norm.state_dict().items()}
    norm(pyramid())
    assert not list(norm.parameters())
    assert all(torch.equal(norm.state_dict()[k], v) for k, v in before.items())


def test_groups_that_do_not_divide_are_named() -> None:
    with pytest.raises(UsageError, match="8 channels do not divide into 3 groups"):
        NORMS["gn"](8, 3, 3)


@pytest.mark.parametrize("name", ["single", "independent"])
def test_batch_statistics_of_one_cell_are_an_error(name: str) -> None:
    with pytest.raises(UsageError, match="cannot train on one cell"):
        NORMS[name](4, 1, 1).train()([torch.rand(1, 4, 1, 1)])
