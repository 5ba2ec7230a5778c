"""How latency is sampled, as frozen data."""

from __future__ import annotations

from dataclasses import dataclass

from sepcbench.errors import require


@dataclass(frozen=True)
class Protocol:
    """How latency is sampled: interleaved rounds in random order, warm-up until settled.

    A round takes `samples_per_round` samples of every variant, in an order shuffled by `seed`.
    Sampling stops after `rounds`, or when the relative spread of the round medians of every
    variant is below `stop_spread` (never before `min_rounds`; 0 switches it off), or after
    `max_seconds`.
    """

    rounds: int = 50
    min_rounds: int = 10
    samples_per_round: int = 5
    warmup_iterations: int = 10
    warmup_seconds: float = 1.0
    warmup_max_seconds: float = 30.0
    settle_spread: float = 0.02
    stop_spread: float = 0.0
    max_seconds: float = 600.0
    seed: int = 0

    def __post_init__(self) -> None:
        require(self.rounds >= 1, "rounds is at least 1")
        require(self.samples_per_round >= 1, "samples_per_round is at least 1")
        require(self.max_seconds > 0, "max_seconds is above 0")
