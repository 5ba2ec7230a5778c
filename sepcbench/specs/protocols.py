"""How latency is sampled, as frozen data, and the named ways of doing it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from sepcbench.errors import require
from sepcbench.specs.names import Scope

# Times the time limit, where there are too few rounds yet.
OVERTIME = 2.0

ProtocolName = Literal["standard", "thorough", "paper"]


@dataclass(frozen=True)
class Protocol:
    """How latency is sampled: interleaved rounds in random order, warm-up until settled.

    A round takes `samples_per_round` samples of every variant, in an order shuffled by `seed`.
    Sampling stops after `rounds`, or when the relative spread of the round medians of every
    variant is below `stop_spread` (never before `min_rounds`; 0 switches it off), or after
    `max_seconds`, of which "thorough" takes up to twice as much for its `min_rounds`. Warm-up has
    settled when the medians of its last two windows agree within `settle_spread`; with 0 the count
    of its iterations is enough.
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
    name: ProtocolName = "standard"

    def __post_init__(self) -> None:
        require(self.rounds >= 1, "rounds is at least 1")
        require(self.samples_per_round >= 1, "samples_per_round is at least 1")
        require(self.max_seconds > 0, "max_seconds is above 0")

    def limit_s(self, done: int) -> float:
        """Seconds that sampling may take, after so many rounds.

        Ratios of "thorough" come from `min_rounds`, so up to these it may take twice as long.
        """
        short = self.name == "thorough" and done < self.min_rounds
        return self.max_seconds * (OVERTIME if short else 1.0)

    def changed(self, **fields: Any) -> Protocol:
        """The same with other fields; rounds and warm-up never beyond their limits."""
        made = replace(self, **fields)
        return replace(
            made,
            min_rounds=min(made.min_rounds, made.rounds),
            warmup_max_seconds=min(made.warmup_max_seconds, made.max_seconds),
        )


# thorough: until the round medians are within 0.5 %. paper: SEPC, section 5: the mean of the
# iterations 101 to 300, here in blocks of 10 in turns, so that ratios are like for like.
PROTOCOLS: dict[ProtocolName, Protocol] = {
    "standard": Protocol(),
    "thorough": Protocol(
        rounds=200, min_rounds=50, stop_spread=0.005, max_seconds=1800, name="thorough"
    ),
    "paper": Protocol(
        rounds=20,
        min_rounds=20,
        samples_per_round=10,
        warmup_iterations=99,  # and the first call
        warmup_seconds=0,
        warmup_max_seconds=1800,
        settle_spread=0,
        max_seconds=3600,
        name="paper",
    ),
}

# Of one set of turns, twice that where 50 rounds take longer; there is one for every batch and
# dtype, and a kill loses one.
SUITE_SECONDS_ON_GPU = 240.0

# What a protocol times where nothing else is asked for: scope and batch.
TIMED: dict[ProtocolName, tuple[Scope, int]] = {"paper": ("pipeline", 8)}


def timed(name: ProtocolName, scope: Scope | None, batch: Any) -> tuple[Scope, Any]:
    """The scope and batch that are asked for, else those of a protocol."""
    usual_scope, usual_batch = TIMED.get(name, ("forward", 1))
    return scope or usual_scope, usual_batch if batch is None else batch


def default_protocol(device: str, name: ProtocolName | None = None) -> Protocol:
    """The protocol of a name; without one, "thorough" on a GPU and "standard" elsewhere."""
    return PROTOCOLS[name or ("thorough" if device.startswith("cuda") else "standard")]


def protocol_on(device: str, base: Protocol) -> Protocol:
    """A suite's protocol on a device: "standard" is "thorough" on a GPU, its own samples kept."""
    if base.name != "standard" or not device.startswith("cuda"):
        return base
    return PROTOCOLS["thorough"].changed(
        samples_per_round=base.samples_per_round,
        max_seconds=min(base.max_seconds, SUITE_SECONDS_ON_GPU),
        seed=base.seed,
    )
