"""How a variant is trained, as frozen data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sepcbench.errors import require


@dataclass(frozen=True)
class Recipe:
    """How a variant is trained. `decay_at` are fractions of all iterations.

    The defaults are the small recipe for the generated set.
    """

    optimizer: Literal["sgd", "adamw"] = "adamw"
    learning_rate: float = 1.5e-3
    momentum: float = 0.9
    weight_decay: float = 1e-4
    batch: int = 8
    iterations: int = 250
    warmup_iterations: int = 30
    warmup_factor: float = 1 / 3
    decay_at: tuple[float, ...] = (0.7, 0.9)
    decay_factor: float = 0.1
    clip_norm: float = 10.0
    flip: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        require(self.iterations >= 1, "iterations is at least 1")
        require(self.batch >= 1, "batch is at least 1")
        require(self.learning_rate > 0, "learning_rate is above 0")
        require(all(0 < at <= 1 for at in self.decay_at), "decay_at are fractions of the run")
