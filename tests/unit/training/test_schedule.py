from __future__ import annotations

import pytest
import torch
from torch import nn

from sepcbench.specs import Recipe
from sepcbench.training.schedule import build_optimizer, learning_rate, set_learning_rate


def test_the_papers_schedule() -> None:
    """12 epochs of 7330 iterations, warm-up 500 from 1/3, x0.1 at epochs 8 and 11."""
    recipe = Recipe(
        learning_rate=0.01,
        iterations=12 * 7330,
        warmup_iterations=500,
        warmup_factor=1 / 3,
        decay_at=(8 / 12, 11 / 12),
    )
    wanted = {
        0: 0.01 / 3,
        250: 0.01 * 2 / 3,
        500: 0.01,
        8 * 7330 - 1: 0.01,
        8 * 7330: 0.001,
        11 * 7330 - 1: 0.001,
        11 * 7330: 0.0001,
    }
    for iteration, rate in wanted.items():
        assert learning_rate(recipe, iteration) == pytest.approx(rate), iteration


def test_without_warm_up_the_first_rate_is_full() -> None:
    assert learning_rate(Recipe(warmup_iterations=0, learning_rate=0.5), 0) == 0.5


def _model() -> nn.Module:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1))
    model[2].weight.requires_grad_(False)
    return model


def test_sgd_decays_every_weight_that_trains() -> None:
    optimizer = build_optimizer(Recipe(optimizer="sgd", weight_decay=0.1, momentum=0.8), _model())
    assert isinstance(optimizer, torch.optim.SGD)
    (group,) = optimizer.param_groups
    assert (group["weight_decay"], group["momentum"], len(group["params"])) == (0.1, 0.8, 5)


def test_adamw_leaves_biases_and_norms_alone() -> None:
    model = _model()
    optimizer = build_optimizer(Recipe(optimizer="adamw", weight_decay=0.1), model)
    assert isinstance(optimizer, torch.optim.AdamW)
    decay = {id(p): g["weight_decay"] for g in optimizer.param_groups for p in g["params"]}
    found = {name: decay.get(id(p)) for name, p in model.named_parameters()}
    assert found == {
        "0.weight": 0.1,
        "0.bias": 0.0,
        "1.weight": 0.0,
        "1.bias": 0.0,
        "2.weight": None,
        "2.bias": 0.0,
    }


def test_the_rate_reaches_every_group() -> None:
    optimizer = build_optimizer(Recipe(), _model())
    set_learning_rate(optimizer, 0.25)
    assert {group["lr"] for group in optimizer.param_groups} == {0.25}
