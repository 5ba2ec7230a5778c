"""How fast a training runs, and how much of its time it waits for images."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator
from typing import TypeVar

import torch

from sepcbench.records import Speed

T = TypeVar("T")
_RECENT = 20  # iterations that the speed shown now is the mean of


class Meter:
    """Images, seconds and seconds of waiting; evaluating and saving do not count.

    Attributes:
        images: of all processes.
        seconds: of their iterations.
        waited_s: of those, waiting for images in this process.
    """

    def __init__(self) -> None:
        self.images, self.seconds, self.waited_s = 0, 0.0, 0.0
        self._recent: deque[tuple[int, float, float]] = deque(maxlen=_RECENT)
        self._waited = 0.0
        self._since = time.perf_counter()

    def start(self) -> None:
        """The clock runs from here until `stop`."""
        self._since, self._waited = time.perf_counter(), 0.0

    def waiting(self, source: Iterable[T]) -> Iterator[T]:
        """What an iterable gives, with the time that it takes to give it."""
        given = iter(source)
        while True:
            start = time.perf_counter()
            try:
                item = next(given)
            except StopIteration:
                return
            finally:
                self._waited += time.perf_counter() - start
            yield item

    def stop(self, images: int) -> None:
        """An iteration of so many images is done."""
        seconds = time.perf_counter() - self._since
        self._recent.append((images, seconds, self._waited))
        self.images += images
        self.seconds += seconds
        self.waited_s += self._waited

    def now(self) -> Speed:
        """Over the last iterations."""
        images, seconds, waited = (sum(column) for column in zip(*self._recent))
        return Speed(images / max(seconds, 1e-9), waited / max(seconds, 1e-9))

    def speed(self, device: str) -> Speed | None:
        """Over all iterations; None before the first."""
        if not self.seconds:
            return None
        return Speed(self.images / self.seconds, self.waited_s / self.seconds, peak_bytes(device))

    def totals(self) -> list[float]:
        """What a state keeps of it."""
        return [self.images, self.seconds, self.waited_s]

    def go_on(self, totals: list[float]) -> None:
        """Add what an earlier sitting has measured."""
        images, seconds, waited = totals
        self.images, self.seconds, self.waited_s = int(images), float(seconds), float(waited)


def peak_bytes(device: str) -> int | None:
    """The most memory that tensors have had on a GPU; None on a CPU."""
    if not device.startswith("cuda"):
        return None
    return int(torch.cuda.max_memory_allocated(device))
