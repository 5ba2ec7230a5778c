"""Sampling several calls against each other: warm-up, interleaved rounds, stopping.

Calls timed one after the other drift apart with the machine's mood; calls timed in turns, in a
random order within every round, share it, and their ratio per round is stable.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import numpy as np

from sepcbench.measures.monitor import Monitor, NoMonitor
from sepcbench.measures.timers import Call, Sample, Timer
from sepcbench.records import DeviceState
from sepcbench.specs import Protocol
from sepcbench.stats import spread

Progress = Callable[[int, int, str], None]
Around = Callable[[str], AbstractContextManager[object]]

# As in "operator(), /build/csrc/ops/deform_conv2d_kernel.cpp:234, "
_SOURCE_PLACE = re.compile(r"^.*\.(cpp|cu|cuh|h):\d+, ")

# Warming up all rows may take this part of the time limit.
WARMUP_SHARE = 0.5
# A round in which a clock was too low is taken again so often.
REPEATS = 3
# After so many rounds that stayed low all the same, as under a power cap, none is taken again.
HOPELESS = 3


@dataclass
class Sampled:
    """Everything timed of one call; `rounds` keeps every sample, `states` the device in each.

    `repeated` rounds were taken again for some call's low clocks; in those of `flagged` (indices)
    this call's clocks stayed low.
    """

    first_call_s: float = 0.0
    warmup_calls: int = 0
    warmup_settled: bool = False
    rounds: list[list[Sample]] = field(default_factory=list)
    states: list[DeviceState] = field(default_factory=list)
    repeated: int = 0
    flagged: list[int] = field(default_factory=list)
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


@dataclass
class _Session:
    """What the steps of one sampling share."""

    calls: Mapping[str, Call]
    timer: Timer
    protocol: Protocol
    around: Around
    monitor: Monitor
    found: dict[str, Sampled]
    after_round: Callable[[Mapping[str, Sampled]], None]
    start: float
    stayed_low: int = 0

    @property
    def alive(self) -> list[str]:
        return [name for name, row in self.found.items() if row.failure is None]


def sample(
    calls: Mapping[str, Call],
    timer: Timer,
    protocol: Protocol,
    progress: Progress | None = None,
    *,
    around: Around | None = None,
    monitor: Monitor | None = None,
    after_round: Callable[[Mapping[str, Sampled]], None] | None = None,
) -> dict[str, Sampled]:
    """Time calls in interleaved rounds.

    A round in which the clock of some call was too low is taken again for all of them, up to
    `REPEATS` times; then it is kept and flagged. After `HOPELESS` such rounds a low clock is how
    this device is under load: rounds are only flagged from then on.

    Args:
        calls: row name to a call without arguments.
        timer: the clock.
        protocol: how much to sample and when to stop.
        progress: told of (rounds done, rounds, label).
        around: from a row's name to what is entered while that row runs, such as its flags.
        monitor: of the device; without one nothing is watched.
        after_round: told of all samples after every round, so that they can be kept.

    Returns:
        Row name to its samples, in the order of `calls`. A call that raises has `failure` set
        to one line and is left out from then on; the others go on.
    """
    session = _Session(
        calls,
        timer,
        protocol,
        around or (lambda name: nullcontext()),
        monitor or NoMonitor(),
        {name: Sampled() for name in calls},
        after_round or (lambda found: None),
        timer.now(),
    )
    for name in calls:
        if progress:
            progress(0, protocol.rounds, f"warm-up {name}")
        _attempt(session, name, lambda name=name: _warm_up(session, name))  # type: ignore[misc]
    _sample_rounds(session, progress)
    return session.found


def _attempt(session: _Session, name: str, action: Call) -> None:
    try:
        with session.around(name):
            action()
    except Exception as error:
        session.found[name].failure = reason(error)


def reason(error: Exception) -> str:
    """An exception as one line: its first line of text, without a source place, or its type."""
    text = _SOURCE_PLACE.sub("", str(error))
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _warm_up(session: _Session, name: str) -> None:
    """Call until count and time are enough and the running median settles, or time is up."""
    row, call = session.found[name], session.calls[name]
    timer, protocol = session.timer, session.protocol
    limit = min(
        protocol.warmup_max_seconds,
        WARMUP_SHARE * protocol.max_seconds / max(len(session.calls), 1),
    )
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
    """Whether the medians of the last two windows agree within `settle_spread`, if one is asked."""
    if protocol.settle_spread == 0:
        return True
    window = max(protocol.warmup_iterations // 2, 1)
    if len(times) < 2 * window:
        return not times and protocol.warmup_iterations == 0
    last, before = np.median(times[-window:]), np.median(times[-2 * window : -window])
    return bool(abs(last - before) <= protocol.settle_spread * before)


def _sample_rounds(session: _Session, progress: Progress | None) -> None:
    protocol, found = session.protocol, session.found
    order = random.Random(protocol.seed)
    for done in range(1, protocol.rounds + 1):
        begin = session.timer.now()
        try:
            _take_round(session, order, done, progress)
        except KeyboardInterrupt:
            _keep_rounds(found.values(), done - 1)
            return
        rows = [row for row in found.values() if row.failure is None]
        now = session.timer.now()
        stopped = _stopped(rows, done, now - session.start + now - begin, protocol)
        if progress:
            progress(done, protocol.rounds, stopped)
        if stopped:
            for row in rows:
                row.stopped = stopped
            return
        session.after_round(found)


def _take_round(
    session: _Session, order: random.Random, done: int, progress: Progress | None
) -> None:
    """One round of all rows in random order, again as long as a clock is too low."""
    for attempt in range(REPEATS + 1):
        begin = session.timer.now()
        alive = session.alive
        for name in order.sample(alive, len(alive)):
            if progress:
                progress(done - 1, session.protocol.rounds, name)
            _attempt(session, name, lambda name=name: _take(session, name))  # type: ignore[misc]
        rows = [session.found[name] for name in session.alive]
        low = [row for row in rows if session.monitor.low_clock(row.states[-1])]
        if not low:
            return
        now = session.timer.now()
        in_time = now - session.start + now - begin <= session.protocol.limit_s(done - 1)
        session.stayed_low += attempt == REPEATS
        if attempt == REPEATS or not in_time or session.stayed_low >= HOPELESS:
            for row in low:
                row.flagged.append(done - 1)
            return
        for row in rows:
            row.rounds.pop()
            row.states.pop()
            row.repeated += 1


def _keep_rounds(rows: Iterable[Sampled], done: int) -> None:
    """Drop the round that Ctrl-C broke off and keep the others; go on raising if there are none."""
    if done == 0:
        raise KeyboardInterrupt
    for row in rows:
        del row.rounds[done:], row.states[done:]
        row.stopped = "interrupted"


def _take(session: _Session, name: str) -> None:
    row, call, timer = session.found[name], session.calls[name], session.timer
    session.monitor.start()
    taken = [timer.time(call) for _ in range(session.protocol.samples_per_round)]
    row.states.append(session.monitor.stop())
    row.rounds.append(taken)


def _stopped(rows: Iterable[Sampled], done: int, next_end: float, protocol: Protocol) -> str:
    """Why to stop after `done` rounds, or ""; `next_end` is when one more round would end."""
    rows = list(rows)
    if not rows:
        return "failed"
    if done >= protocol.rounds:
        return "rounds"
    if protocol.stop_spread > 0 and done >= protocol.min_rounds and _steady(rows, protocol):
        return "settled"
    return "time limit" if next_end > protocol.limit_s(done) else ""


def _steady(rows: Iterable[Sampled], protocol: Protocol) -> bool:
    medians = ([np.median(taken) for taken in row.seconds] for row in rows)
    return all(spread(np.array(values)) < protocol.stop_spread for values in medians)
