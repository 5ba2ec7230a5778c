"""Sampling several calls against each other: warm-up, interleaved rounds, stopping.

Calls timed one after the other drift apart with the machine's mood; calls timed in turns, in a
random order within every round, share it, and their ratio per round is stable.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from sepcbench.measures.timers import Call, Sample, Timer
from sepcbench.specs import Protocol
from sepcbench.stats import spread

Progress = Callable[[int, int, str], None]

# As in "operator(), /build/csrc/ops/deform_conv2d_kernel.cpp:234, "
_SOURCE_PLACE = re.compile(r"^.*\.(cpp|cu|cuh|h):\d+, ")

# Warming up all rows may take this part of the time limit.
WARMUP_SHARE = 0.5


@dataclass
class Sampled:
    """Everything timed of one call; `rounds` keeps every sample."""

    first_call_s: float = 0.0
    warmup_calls: int = 0
    warmup_settled: bool = False
    rounds: list[list[Sample]] = field(default_factory=list)
    stopped: str = ""
    failure: str | None = None

    @property
    def seconds(self) -> tuple[tuple[float, ...], ...]:
        """Times by the main clock, one tuple per round."""
        return tuple(tuple(sample.seconds for sample in taken) for taken in self.rounds)

    @property
    def wall_seconds(self) -> tuple[tuple[float, ...], ...]:
        """Times by the wall clock, one tuple per round; empty where there is only one clock."""
        return tuple(
            walls
            for taken in self.rounds
            if (walls := tuple(s.wall_seconds for s in taken if s.wall_seconds is not None))
        )


def sample(
    calls: Mapping[str, Call],
    timer: Timer,
    protocol: Protocol,
    progress: Progress | None = None,
) -> dict[str, Sampled]:
    """Time calls in interleaved rounds.

    Args:
        calls: row name to a call without arguments.
        timer: the clock.
        protocol: how much to sample and when to stop.
        progress: told of (rounds done, rounds, label).

    Returns:
        Row name to its samples, in the order of `calls`. A call that raises has `failure` set
        to one line and is left out from then on; the others go on.
    """
    start = timer.now()
    found = {name: Sampled() for name in calls}
    limit = min(
        protocol.warmup_max_seconds,
        WARMUP_SHARE * protocol.max_seconds / max(len(calls), 1),
    )
    for name, call in calls.items():
        if progress:
            progress(0, protocol.rounds, f"warm-up {name}")
        _attempt(found[name], lambda name=name, call=call: _warm_up(  # type: ignore[misc]
            found[name], call, timer, protocol, limit
        ))  # fmt: skip
    _sample_rounds(calls, found, timer, protocol, start, progress)
    return found


def _attempt(row: Sampled, action: Call) -> None:
    try:
        action()
    except Exception as error:
        row.failure = reason(error)


def reason(error: Exception) -> str:
    """An exception as one line: its first line of text, without a source place, or its type."""
    text = _SOURCE_PLACE.sub("", str(error))
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _warm_up(row: Sampled, call: Call, timer: Timer, protocol: Protocol, limit: float) -> None:
    """Call until count and time are enough and the running median settles, or `limit` seconds."""
    start = timer.now()
    row.first_call_s = timer.time(call).seconds
    times: list[float] = []
    while timer.now() - start < limit:
        enough = (
            len(times) >= protocol.warmup_iterations
            and timer.now() - start >= protocol.warmup_seconds
        )
        if enough and _settled(times, protocol):
            row.warmup_settled = True
            break
        times.append(timer.time(call).seconds)
    row.warmup_calls = 1 + len(times)


def _settled(times: list[float], protocol: Protocol) -> bool:
    """Whether the medians of the last two windows agree within `settle_spread`."""
    window = max(protocol.warmup_iterations // 2, 1)
    if len(times) < 2 * window:
        return not times and protocol.warmup_iterations == 0
    last, before = np.median(times[-window:]), np.median(times[-2 * window : -window])
    return bool(abs(last - before) <= protocol.settle_spread * before)


def _sample_rounds(
    calls: Mapping[str, Call],
    found: dict[str, Sampled],
    timer: Timer,
    protocol: Protocol,
    start: float,
    progress: Progress | None,
) -> None:
    order = random.Random(protocol.seed)
    for done in range(1, protocol.rounds + 1):
        begin = timer.now()
        alive = [name for name in calls if found[name].failure is None]
        try:
            for name in order.sample(alive, len(alive)):
                if progress:
                    progress(done - 1, protocol.rounds, name)
                _attempt(found[name], lambda name=name: _take(  # type: ignore[misc]
                    found[name], calls[name], timer, protocol
                ))  # fmt: skip
        except KeyboardInterrupt:
            _keep_rounds(found.values(), done - 1)
            return
        rows = [row for row in found.values() if row.failure is None]
        round_s = timer.now() - begin
        stopped = _stopped(rows, done, timer.now() - start + round_s, protocol)
        if progress:
            progress(done, protocol.rounds, stopped)
        if stopped:
            for row in rows:
                row.stopped = stopped
            return


def _keep_rounds(rows: Iterable[Sampled], done: int) -> None:
    """Drop the round that Ctrl-C broke off and keep the others; go on raising if there are none."""
    if done == 0:
        raise KeyboardInterrupt
    for row in rows:
        del row.rounds[done:]
        row.stopped = "interrupted"


def _take(row: Sampled, call: Call, timer: Timer, protocol: Protocol) -> None:
    row.rounds.append([timer.time(call) for _ in range(protocol.samples_per_round)])


def _stopped(rows: Iterable[Sampled], done: int, next_end: float, protocol: Protocol) -> str:
    """Why to stop after `done` rounds, or ""; `next_end` is when one more round would end."""
    rows = list(rows)
    if not rows:
        return "failed"
    if done >= protocol.rounds:
        return "rounds"
    if protocol.stop_spread > 0 and done >= protocol.min_rounds and _steady(rows, protocol):
        return "settled"
    return "time limit" if next_end > protocol.max_seconds else ""


def _steady(rows: Iterable[Sampled], protocol: Protocol) -> bool:
    medians = ([np.median(taken) for taken in row.seconds] for row in rows)
    return all(spread(np.array(values)) < protocol.stop_spread for values in medians)
