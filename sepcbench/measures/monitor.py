"""What a GPU was like while it was timed: clocks, temperature, power, throttling, other tenants.

Nothing is changed: a measurement that sets clocks measures another card than the reader's.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Protocol

from sepcbench.measures.nvml import Gpu, gpu_of
from sepcbench.records import DeviceState

# A round with a lower clock than this share of the default one is taken again.
LOW_CLOCK = 0.75
# Throttled for less than this share of a round: the driver's own flicker.
_THROTTLED_SHARE = 0.01


class Monitor(Protocol):
    """Watches a device around the samples of one row in one round."""

    def start(self) -> None:
        """Begin, before the first sample."""

    def stop(self) -> DeviceState:
        """End, right after the last sample, and say what the device was like."""

    def energy_j(self) -> float | None:
        """Energy that the device has used up to now, J; only differences mean something."""

    def low_clock(self, state: DeviceState) -> bool:
        """Whether the clock was too low for the samples to count."""


class NoMonitor:
    """Of a device that tells nothing, such as a CPU."""

    def start(self) -> None:
        pass

    def stop(self) -> DeviceState:
        return DeviceState()

    def energy_j(self) -> float | None:
        return None

    def low_clock(self, state: DeviceState) -> bool:
        return False


class NvmlMonitor:
    """Of an NVIDIA GPU.

    Clocks, temperature, power and tenants are those at the end of the round, when the GPU has just
    worked and has not yet clocked down. Reasons for throttling are those at the end, and those
    whose time counter went up by more than 1 % of the round.
    """

    def __init__(self, gpu: Gpu) -> None:
        self._gpu = gpu
        self._default_mhz = gpu.default_sm_mhz()
        self.start()

    def start(self) -> None:
        self._throttled_s = self._gpu.throttled_s()
        self._began = time.perf_counter()

    def stop(self) -> DeviceState:
        gpu = self._gpu
        return DeviceState(
            sm_mhz=gpu.sm_mhz(),  # first of all: it is what falls first
            memory_mhz=gpu.memory_mhz(),
            throttle=self._throttle(),
            temperature_c=gpu.temperature_c(),
            power_w=gpu.power_w(),
            other_processes=gpu.other_processes(),
        )

    def _throttle(self) -> tuple[str, ...]:
        some = _THROTTLED_SHARE * (time.perf_counter() - self._began)
        now = self._gpu.throttled_s()
        before = self._throttled_s
        grown = [name for name, s in now.items() if s - before.get(name, s) > some]
        return tuple(dict.fromkeys((*self._gpu.throttle(), *grown)))

    def energy_j(self) -> float | None:
        return self._gpu.energy_j()

    def low_clock(self, state: DeviceState) -> bool:
        if state.sm_mhz is None or self._default_mhz is None:
            return False
        return state.sm_mhz < LOW_CLOCK * self._default_mhz


class FakeMonitor:
    """A device that is what it is told to be: for tests.

    Args:
        states: what `stop` says, one after the other; then the last one on and on.
        default_mhz: the clock it should have.
        watts: with `clock`, the energy grows by so much per second of it.
        clock: the timer of the test, such as `FakeTimer`.
    """

    def __init__(
        self,
        states: Iterable[DeviceState] = (),
        default_mhz: float = 1000.0,
        watts: float | None = None,
        clock: _Clock | None = None,
    ) -> None:
        self._states: Iterator[DeviceState] = iter(states)
        self._last = DeviceState()
        self._default_mhz = default_mhz
        self._watts = watts
        self._clock = clock
        self.log: list[str] = []

    def start(self) -> None:
        self.log.append("start")

    def stop(self) -> DeviceState:
        self.log.append("stop")
        self._last = next(self._states, self._last)
        return self._last

    def energy_j(self) -> float | None:
        if self._watts is None or self._clock is None:
            return None
        return self._watts * self._clock.now()

    def low_clock(self, state: DeviceState) -> bool:
        return state.sm_mhz is not None and state.sm_mhz < LOW_CLOCK * self._default_mhz


class _Clock(Protocol):
    def now(self) -> float:
        """Seconds."""


def monitor_for(device: str) -> Monitor:
    """Choose the monitor of a device; one that tells nothing where NVML does not either.

    A MIG slice has none: what NVML tells of its card is of all tenants together.
    """
    gpu = gpu_of(device) if device.startswith("cuda") else None
    return NoMonitor() if gpu is None or gpu.sliced() else NvmlMonitor(gpu)
