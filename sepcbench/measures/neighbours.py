"""How busy other programs keep the processors while something is timed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

STAT = Path("/proc/stat")  # of Linux: ticks of all processors since the machine started
BUSY = 0.1  # of all processors; more is said
_LEAST_S = 0.5  # shorter spans have too few ticks


class _Ticks(NamedTuple):
    """Ticks of all processors together: that passed, at work for anyone, at work for this one."""

    passed: float
    busy: float
    own: float


class Neighbours:
    """What others did since this was made, another guest of the same host included."""

    def __init__(self) -> None:
        self._start = _ticks()

    def share(self) -> float | None:
        """The share of all processors' time; None where it is not known, or of too short a time."""
        now, start = _ticks(), self._start
        if now is None or start is None:
            return None
        passed = now.passed - start.passed
        if passed < _LEAST_S * _per_second() * (os.cpu_count() or 1):
            return None
        return max(0.0, now.busy - start.busy - (now.own - start.own)) / passed

    def notes(self) -> tuple[str, ...]:
        """A line, if others were busy enough to spoil a measurement."""
        share = self.share()
        if share is None or share <= BUSY:
            return ()
        return (
            f"other programs kept {100 * share:.0f} % of the processors busy meanwhile, which "
            "makes intervals wide and ratios doubtful",
        )


def _ticks() -> _Ticks | None:
    try:
        words = STAT.read_text().split("\n", 1)[0].split()
        # user, nice, system, idle, iowait, irq, softirq, steal; guests are part of user
        counts = [int(word) for word in words[1:9]]
        idle = counts[3] + counts[4]
    except (OSError, ValueError, IndexError):
        return None
    own = sum(os.times()[:4]) * _per_second()
    return _Ticks(sum(counts), sum(counts) - idle, own)


def _per_second() -> int:
    return os.sysconf("SC_CLK_TCK")
