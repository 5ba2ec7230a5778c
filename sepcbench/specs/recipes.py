"""How a variant is trained, as frozen data."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from sepcbench.errors import UsageError, require

Amp = Literal["none", "bf16", "fp16"]
"""Arithmetic of the forward pass: float32, or autocast to bfloat16 or float16 (with a scaler)."""


@dataclass(frozen=True)
class Recipe:
    """How a variant is trained. `decay_at` are fractions of all iterations.

    The defaults are the small recipe for the generated set; others are files (`sepcbench.recipes`).

    `batch` is the images of one iteration (one step of the optimizer), whatever they are spread
    over: each of the processes takes its share, in `accumulate` passes one after the other. With a
    `reference_batch` the learning rate is for that batch and grows linearly with the batch. With
    `images_per_pass`, `accumulate` follows where a norm of the pyramid trains: see `for_norms`.
    `epochs` above 0 gives the length instead of `iterations`.

    `sync_norm` gathers the batch statistics of norms over all processes. `short_sides` draws the
    short side of an image between two sizes, `group_by_aspect` keeps wide and tall images in
    batches of their own, `skip_empty` leaves out images without objects, as mmdetection does.
    `pretrained` is where the backbone's weights come from: "imagenet", a file, or "" for random
    ones.
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
    epochs: float = 0.0
    reference_batch: int = 0
    accumulate: int = 1
    images_per_pass: int = 0
    amp: Amp = "none"
    channels_last: bool = False
    sync_norm: bool = False
    short_sides: tuple[int, int] | None = None
    group_by_aspect: bool = False
    skip_empty: bool = False
    pretrained: str = ""

    def __post_init__(self) -> None:
        require(self.iterations >= 1, "iterations is at least 1")
        require(self.batch >= 1, "batch is at least 1")
        require(self.learning_rate > 0, "learning_rate is above 0")
        require(all(0 < at <= 1 for at in self.decay_at), "decay_at are fractions of the run")
        require(0 <= self.epochs < float("inf"), "epochs is a number of 0 or more")
        require(self.reference_batch >= 0, "reference_batch is 0 (no scaling) or more")
        require(self.accumulate >= 1, "accumulate is at least 1")
        require(self.images_per_pass >= 0, "images_per_pass is 0 (as many as fall to it) or more")
        low, high = self.short_sides or (1, 1)
        require(1 <= low <= high, "short_sides are two sizes in pixels, the smaller first")

    @property
    def peak_rate(self) -> float:
        """The learning rate after warm-up, scaled with the batch if it is to be."""
        if self.reference_batch:
            return self.learning_rate * self.batch / self.reference_batch
        return self.learning_rate

    def for_images(self, images: int) -> Recipe:
        """The same for a set of so many images: `epochs` become iterations."""
        if not self.epochs:
            return self
        iterations = max(1, round(self.epochs * images / self.batch))
        return replace(self, iterations=iterations, epochs=0.0)

    def for_norms(self, processes: int) -> Recipe:
        """The same where norms train, whose statistics are those of `images_per_pass` images.

        So many passes that each process takes as many at a time as the papers' GPUs did, or fewer
        where they do not divide. What is set already stays: passes, and norms of all processes.
        """
        images, rest = divmod(self.batch, processes)
        if not self.images_per_pass or self.accumulate > 1 or self.sync_norm or rest:
            return self
        fits = (n for n in range(1, images + 1) if images % n == 0)
        return replace(
            self, accumulate=next(n for n in fits if images // n <= self.images_per_pass)
        )

    def share(self, processes: int) -> int:
        """Images per process and pass.

        Raises:
            UsageError: the batch does not divide into so many parts.
        """
        parts = processes * self.accumulate
        if self.batch % parts:
            raise UsageError(
                f"a batch of {self.batch} images does not divide among {processes} processes with "
                f"{self.accumulate} passes each; use a multiple of {parts}, such as --batch "
                f"{-(-self.batch // parts) * parts}"
            )
        return self.batch // parts
