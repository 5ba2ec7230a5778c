"""Clocks behind one protocol: CPU, CUDA, and one that only pretends."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple, Protocol

import torch

from sepcbench.errors import UsageError

Call = Callable[[], object]


class Sample(NamedTuple):
    """One timed call: seconds by the timer's main clock, and by the wall if that is another."""

    seconds: float
    wall_seconds: float | None = None


class Timer(Protocol):
    """Times calls one at a time."""

    def time(self, call: Call) -> Sample:
        """Run `call` to its end and say how long it took."""

    def now(self) -> float:
        """Seconds on a clock that never goes back."""


class CpuTimer:
    """`time.perf_counter` around the call."""

    def time(self, call: Call) -> Sample:
        start = time.perf_counter()
        call()
        return Sample(time.perf_counter() - start)

    def now(self) -> float:
        return time.perf_counter()


class CudaTimer:
    """CUDA events on the current stream, and the wall clock from idle device to idle device.

    Every sample starts on an idle device, so gaps in which it waits for launches from the host are
    within the event time too; how large they are is told by `profile.launches`.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        with torch.cuda.device(device):
            self._start = torch.cuda.Event(enable_timing=True)
            self._end = torch.cuda.Event(enable_timing=True)

    def time(self, call: Call) -> Sample:
        with torch.cuda.device(self.device):
            torch.cuda.synchronize()
            start = time.perf_counter()
            self._start.record()
            call()
            self._end.record()
            torch.cuda.synchronize()
            wall = time.perf_counter() - start
        return Sample(self._start.elapsed_time(self._end) / 1e3, wall)

    def now(self) -> float:
        return time.perf_counter()


class FlushingTimer:
    """Another timer, with a cache emptied before every call; that is not timed.

    Args:
        timer: the clock.
        flush: empties the cache.
    """

    def __init__(self, timer: Timer, flush: Call) -> None:
        self._timer, self._flush = timer, flush

    def time(self, call: Call) -> Sample:
        self._flush()
        return self._timer.time(call)

    def now(self) -> float:
        return self._timer.now()


def l2_flush(device: str) -> Call:
    """What empties the L2 cache of a GPU: a write of twice its size."""
    size = 2 * torch.cuda.get_device_properties(device).L2_cache_size
    buffer = torch.empty(size, dtype=torch.uint8, device=device)
    return buffer.zero_


class FakeTimer:
    """A virtual clock that only moves when told: tests without timing.

    Every timed call takes the next of `durations` (none when they run out), plus whatever the
    call itself adds with `advance`.
    """

    def __init__(self, durations: Iterable[float] = ()) -> None:
        self._durations: Iterator[float] = iter(durations)
        self._clock = 0.0

    def time(self, call: Call) -> Sample:
        start = self._clock
        call()
        self.advance(next(self._durations, 0.0))
        return Sample(self._clock - start)

    def now(self) -> float:
        return self._clock

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self._clock += seconds


def timer_for(device: str) -> Timer:
    """Choose the timer of a device.

    Raises:
        UsageError: a CUDA device is asked for and there is none.
    """
    if not device.startswith("cuda"):
        return CpuTimer()
    if not torch.cuda.is_available():
        raise UsageError(f"device '{device}': this machine has no CUDA device; use --device cpu")
    return CudaTimer(torch.device(device))
