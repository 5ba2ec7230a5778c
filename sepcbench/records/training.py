"""How a checkpoint came to be."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Speed:
    """How fast a training ran, all processes together, over all its sittings.

    `data_wait` is the share of the time that the first process waited for images; `peak_bytes` the
    most memory of its GPU, None on a CPU.
    """

    images_per_s: float
    data_wait: float
    peak_bytes: int | None = None


@dataclass(frozen=True)
class Training:
    """How a checkpoint came to be: recipe, data, and the loss on the way.

    `batch` is all images of an iteration, `learning_rate` the highest of the schedule. `losses` are
    (iteration, total loss) pairs, thinned out for long runs; `scores` (iteration, AP) on the way,
    as fractions of 1 (AR of an RPN). `pretrained` is where the backbone came from, "" if random.
    `speed` depends on the machine: two trainings are equal without it, and no checkpoint has it.
    """

    variant: str
    dataset: str
    images: int
    iterations: int
    batch: int
    seed: int
    optimizer: str
    learning_rate: float
    losses: tuple[tuple[int, float], ...]
    scores: tuple[tuple[int, float], ...] = ()
    processes: int = 1
    amp: str = "none"
    pretrained: str = ""
    speed: Speed | None = field(default=None, compare=False)
