"""Can these timings be trusted? Trials of the clock and of the protocol on this very machine.

On a GPU: kernels of known length, events against the wall clock, against `triton.testing.do_bench`
and against the profiler's kernels, and a detector against itself. On a CPU: busy loops of known
length, `timeit`, and a detector against itself.
"""

from __future__ import annotations

import time
import timeit
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch

from sepcbench.detectors import build
from sepcbench.measures.environment import device_name, measuring, on_device
from sepcbench.measures.profile import kernel_seconds
from sepcbench.measures.sampling import Progress, sample
from sepcbench.measures.timers import Call, Timer, timer_for
from sepcbench.specs import Protocol
from sepcbench.stats import Comparison, compare
from sepcbench.variants import variant

# Two ways to time the same thing are this near to each other, relative.
AGREEMENT = 0.02
# A variant against itself: 1 is in the 95 % interval, and the interval reaches no further.
HALF_WIDTH = 0.01
# A 95 % interval leaves out the truth in one run of twenty: it is taken once more then.
_TRIES = 2
_ROUNDS, _TRIED = 7, 5

# What is timed against itself, (variant, shape), and how.
_REPEATED = {
    "cpu": ("retinanet_tiny_sepc", (128, 128)),
    "cuda": ("retinanet_r50_sepc", (800, 1344)),
}
_PROTOCOL = Protocol(rounds=60, samples_per_round=5, warmup_seconds=0.5, max_seconds=60.0)


@dataclass(frozen=True)
class Trial:
    """One trial: `found` is to be `expected`, in `unit`, within `limit` (relative).

    `interval` is that of a ratio, where there is one; its half-width is what the limit is for.
    """

    name: str
    about: str
    found: float
    expected: float
    unit: str
    limit: float
    passed: bool
    interval: tuple[float, float] | None = None
    tries: int = 1


@dataclass(frozen=True)
class Trust:
    """All trials of a device."""

    device: str
    device_name: str
    trials: tuple[Trial, ...]

    @property
    def passed(self) -> bool:
        """Whether all trials did well."""
        return all(trial.passed for trial in self.trials)


def trust(device: str, progress: Progress | None = None) -> Trust:
    """Run all trials of a device: 20 seconds to a minute or so.

    Args:
        device: "cpu", "cuda" or "cuda:INDEX".
        progress: told of (trials done, trials, label).

    Raises:
        UsageError: there is no such device.
    """
    timer = timer_for(device)
    names = TRIALS[device.partition(":")[0]]
    found: list[Trial] = []
    with measuring(), on_device(device), torch.inference_mode():
        for i, (name, trials) in enumerate(names.items()):
            if progress:
                progress(i, len(names), name)
            found += trials(device, timer)
    return Trust(device, device_name(device), tuple(found))


# --- what a trial says ---------------------------------------------------------------------


def agreement(name: str, about: str, found: float, expected: float, unit: str = "s") -> Trial:
    """Two figures of the same thing."""
    passed = expected > 0 and abs(found / expected - 1) <= AGREEMENT
    return Trial(name, about, found, expected, unit, AGREEMENT, passed)


def repeatability(comparison: Comparison, about: str, tries: int = 1) -> Trial:
    """A variant against itself."""
    low, high = comparison.ci95
    passed = low <= 1 <= high and (high - low) / 2 < HALF_WIDTH
    return Trial(
        "against itself", about, comparison.median, 1.0, "ratio", HALF_WIDTH, passed,
        interval=(low, high), tries=tries,
    )  # fmt: skip


def in_turns(ways: Mapping[str, Callable[[], float]], rounds: int = _ROUNDS) -> dict[str, float]:
    """Take figures in turns, so that all see the same moods of the machine.

    Returns:
        The median of each way, but all scaled to the first by the median of the ratios per round.
    """
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            taken[name].append(way())
    first = next(iter(taken.values()))
    base = median(first)
    return {
        name: base * median(one / other for one, other in zip(values, first))
        for name, values in taken.items()
    }


# --- the trials ----------------------------------------------------------------------------


def known_durations(
    timer: Timer, busy: Callable[[float], Call], durations: tuple[float, ...]
) -> Iterator[Trial]:
    """Time calls that take so many seconds."""
    for seconds in durations:
        call = busy(seconds)
        # the fastest of some: this is about the clock, what else runs shows against itself
        found = median(min(timer.time(call).seconds for _ in range(_TRIED)) for _ in range(_ROUNDS))
        yield agreement(f"known: {seconds * 1e3:g} ms", "a call of known length", found, seconds)


def itself(
    call: Call, timer: Timer, about: str, protocol: Protocol = _PROTOCOL, tries: int = _TRIES
) -> Trial:
    """Time a call against itself by the protocol that all latencies are taken with."""
    for tried in range(1, tries + 1):
        found = sample({"one": call, "other": call}, timer, protocol)
        comparison = compare(found["other"].seconds, found["one"].seconds, protocol.seed)
        trial = repeatability(comparison, about, tried)
        if trial.passed:
            break
    return trial


def _detector_itself(device: str, timer: Timer) -> Iterator[Trial]:
    name, shape = _REPEATED[device.partition(":")[0]]
    torch.manual_seed(0)
    detector = build(variant(name)).to(device).eval()
    images = torch.randn(1, 3, *shape, device=device)
    yield itself(lambda: detector(images), timer, f"{name}, {shape[0]}x{shape[1]}, forward")


def _cpu_known(device: str, timer: Timer) -> Iterator[Trial]:
    yield from known_durations(timer, _spin, (0.002, 0.01, 0.05))


def _spin(seconds: float) -> Call:
    """Keep a core busy, by a clock that is not the timer's where the system has one."""
    raw = getattr(time, "CLOCK_MONOTONIC_RAW", None)
    clock = time.monotonic if raw is None else lambda: time.clock_gettime(raw)

    def call() -> None:
        end = clock() + seconds
        while clock() < end:
            pass

    return call


def _cpu_timeit(device: str, timer: Timer) -> Iterator[Trial]:
    call = _work(device, side=512)
    ways = {
        "timer": lambda: min(timer.time(call).seconds for _ in range(3 * _TRIED)),
        "timeit": lambda: min(timeit.repeat(call, number=1, repeat=3 * _TRIED)),
    }
    found = in_turns(ways, 3 * _ROUNDS)
    yield agreement("timeit", "a matmul, by timeit.repeat", found["timer"], found["timeit"])


def _cuda_known(device: str, timer: Timer) -> Iterator[Trial]:
    """A kernel that waits for so many cycles: how many a second has is found with the longest."""
    whole = 2**26
    timer.time(lambda: torch.cuda._sleep(4 * whole))  # until the clocks are up
    slow = timer.time(lambda: torch.cuda._sleep(4 * whole))
    assert slow.wall_seconds is not None
    about = "a kernel that waits, by events and by the wall clock"
    yield agreement("wall clock", about, slow.seconds, slow.wall_seconds)
    ways: dict[str, Callable[[], float]] = {
        f"{part:g}": lambda part=part: (  # type: ignore[misc]
            timer.time(lambda: torch.cuda._sleep(int(part * whole))).seconds / part
        )
        for part in (1, 1 / 16, 1 / 4, 2)
    }
    found = in_turns(ways)
    for part, seconds in list(found.items())[1:]:
        about = f"a kernel of {part} times the cycles, over {part}"
        yield agreement(f"cycles x {part}", about, seconds, found["1"])


def _cuda_others(device: str, timer: Timer) -> Iterator[Trial]:
    """The same matmuls by Triton's benchmark and by the profiler."""
    call = _work(device, side=4096, times=2)

    def kernels() -> float:
        return kernel_seconds(call, device) or 0.0

    ways: dict[str, Callable[[], float]] = {
        "timer": lambda: median(timer.time(call).seconds for _ in range(20)),
        "kernels": kernels,
    }
    do_bench = _do_bench()
    if do_bench is not None:
        ways["do_bench"] = lambda: 1e-3 * float(do_bench(call, return_mode="median"))
    found = in_turns(ways)
    about = "two matmuls, by the profiler's kernels"
    yield agreement("profiler", about, found["timer"], found["kernels"])
    if do_bench is not None:
        about = "two matmuls, by triton.testing.do_bench"
        yield agreement("do_bench", about, found["timer"], found["do_bench"])


def _do_bench() -> Any | None:
    try:
        from triton.testing import do_bench
    except ImportError:
        return None
    return do_bench


def _work(device: str, side: int, times: int = 1) -> Call:
    a, b = (torch.randn(side, side, device=device) for _ in range(2))
    out = torch.empty_like(a)

    def call() -> None:
        for _ in range(times):
            torch.mm(a, b, out=out)

    return call


TRIALS: dict[str, dict[str, Callable[[str, Timer], Iterator[Trial]]]] = {
    "cpu": {"known length": _cpu_known, "timeit": _cpu_timeit, "itself": _detector_itself},
    "cuda": {"known length": _cuda_known, "others": _cuda_others, "itself": _detector_itself},
}
