"""Engines: how a module is made to run for a measurement."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from sepcbench.specs import EngineName

Engine = Callable[[nn.Module], nn.Module]


def eager(module: nn.Module) -> nn.Module:
    """Run the module as it is, op by op."""
    return module


ENGINES: dict[EngineName, Engine] = {"eager": eager}
