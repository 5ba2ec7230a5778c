"""Learning rate over time, and the optimizer a recipe asks for."""

from __future__ import annotations

import torch
from torch import nn

from sepcbench.specs import Recipe

_NORMS = (nn.modules.batchnorm._BatchNorm, nn.GroupNorm, nn.LayerNorm)


def learning_rate(recipe: Recipe, iteration: int) -> float:
    """The learning rate of an iteration, counted from 0.

    Linear warm-up from `warmup_factor` (mmdetection's, SEPC section 4), then a step down by
    `decay_factor` at each of `decay_at`. All of it scales with the batch if the recipe says so.
    """
    rate = recipe.peak_rate
    if iteration < recipe.warmup_iterations:
        done = iteration / recipe.warmup_iterations
        rate *= recipe.warmup_factor + (1 - recipe.warmup_factor) * done
    steps = sum(iteration >= round(at * recipe.iterations) for at in recipe.decay_at)
    return rate * float(recipe.decay_factor**steps)


def build_optimizer(recipe: Recipe, model: nn.Module) -> torch.optim.Optimizer:
    """The optimizer over all parameters that train.

    SGD decays every weight, as the papers do; AdamW leaves biases and norm parameters alone.
    """
    groups = _groups(model, recipe.weight_decay, sparing=recipe.optimizer == "adamw")
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=recipe.peak_rate, momentum=recipe.momentum)
    return torch.optim.AdamW(groups, lr=recipe.peak_rate, fused=True)


def _groups(model: nn.Module, decay: float, sparing: bool) -> list[dict[str, object]]:
    decayed: list[nn.Parameter] = []
    spared: list[nn.Parameter] = []
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.requires_grad:
                plain = sparing and (name == "bias" or isinstance(module, _NORMS))
                (spared if plain else decayed).append(parameter)
    groups: list[dict[str, object]] = [{"params": decayed, "weight_decay": decay}]
    return groups + ([{"params": spared, "weight_decay": 0.0}] if spared else [])


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give every parameter group the same learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = rate
