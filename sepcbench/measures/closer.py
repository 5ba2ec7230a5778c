"""What is found out of a case in passes of its own, after it was timed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from typing import Any, TypeVar

from sepcbench.measures.lifelike import count_candidates
from sepcbench.measures.monitor import Monitor
from sepcbench.measures.parts import part_calls, split
from sepcbench.measures.preparation import Ready
from sepcbench.measures.profile import launches, peak_bytes, tensor_bytes
from sepcbench.measures.roofline import floor, rates
from sepcbench.measures.sampling import Around, reason
from sepcbench.measures.scopes import SCOPES
from sepcbench.measures.summaries import Extras
from sepcbench.measures.timers import Call, Timer
from sepcbench.records import Floor, Split
from sepcbench.specs import Protocol, Scope

ENERGY_S = 1.0  # of calls, since the driver's counter moves in steps of some 20 to 100 ms
_T = TypeVar("_T")


@dataclass(frozen=True)
class Closer:
    """Looks closer at cases of one group; what does not work stays None, with a note.

    Parts and energy take seconds: after `extra_until` (by the timer's clock) they are measured
    under the suite's own conditions only, those of kind "latency".
    """

    scope: Scope
    device: str
    protocol: Protocol
    timer: Timer
    monitor: Monitor
    split: bool
    around: Around
    extra_until: float = inf

    def look(self, ready: Ready) -> Extras:
        """All that is known of a case beside its samples."""
        tried = _Tried(list(ready.notes))
        costly = ready.case.kind == "latency" or self.timer.now() < self.extra_until
        parts = tried("parts", lambda: self._split(ready)) if self.split and costly else None
        with self.around(ready.case.name):
            own = tensor_bytes(ready.detector, ready.inputs)
            count = tried("launches", lambda: launches(ready.call, self.device)) or (None, None)
            return Extras(
                detections=tried("detections", lambda: self._detections(ready)),
                candidates=tried("candidates", lambda: self._candidates(ready)),
                engine_error=ready.error,
                split=parts,
                floor=tried("roofline", lambda: self._floor(ready)),
                launches=count[0],
                busy_share=count[1],
                peak_bytes=tried("memory", lambda: self._peak(ready, own)),
                energy_j=tried("energy", lambda: energy(ready.call, ready.case.batch, self))
                if costly
                else None,
                notes=tuple(tried.notes),
            )

    def _split(self, ready: Ready) -> Split | None:
        name = ready.case.name
        with self.around(name):
            parts, frame = SCOPES[self.scope], ready.frame
            calls = part_calls(
                ready.detector,
                ready.engine,
                parts,
                ready.inputs,
                frame,
                ready.prepare,
                batched=ready.boxed is not None,
            )
        return split(ready.call, calls, self.timer, self.protocol, lambda part: self.around(name))

    def _peak(self, ready: Ready, own: int) -> int | None:
        """None where torch's counters do not see what the engine's calls take."""
        if ready.engine.own_memory:
            return None
        return peak_bytes(ready.call, self.device, own)

    def _detections(self, ready: Ready) -> int | None:
        """Boxes found in one more call: NMS costs what it has to do."""
        if not SCOPES[self.scope].decodes:
            return None
        found: Any = ready.call()
        return sum(len(image.scores) for image in found)

    def _candidates(self, ready: Ready) -> int | None:
        if not SCOPES[self.scope].decodes:
            return None
        return count_candidates(ready.detector, ready.run(), ready.case.batch)

    def _floor(self, ready: Ready) -> Floor | None:
        if ready.traffic is None:
            return None
        return floor(*ready.traffic, rates(self.device, ready.case.dtype))


def energy(call: Call, batch: int, closer: Closer) -> float | None:
    """Energy per image, J, of calls back to back; None where the device does not tell."""
    if closer.monitor.energy_j() is None:
        return None
    timer = closer.timer
    once = max(timer.time(call).seconds, 1e-5)
    calls = max(1, round(ENERGY_S / once))

    def many() -> None:
        for _ in range(calls):
            call()

    before = closer.monitor.energy_j()
    timer.time(many)
    after = closer.monitor.energy_j()
    if before is None or after is None:
        return None
    return (after - before) / calls / batch


@dataclass
class _Tried:
    """What is found, or None and a note: the times are there, and are worth more than the rest."""

    notes: list[str]

    def __call__(self, what: str, find: Callable[[], _T]) -> _T | None:
        try:
            return find()
        except Exception as error:
            self.notes.append(f"no {what}: {reason(error)}")
            return None
