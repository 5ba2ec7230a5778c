"""NVML: asking the driver about a GPU, without changing anything and without ever failing.

Through the optional package nvidia-ml-py. No package, no driver, a container that hides one, a
field that this card, this driver or a MIG slice does not have: the answer is None.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch

# As in nvml.h; the package's names for them moved between its versions.
_CLOCK_SM, _CLOCK_MEMORY, _TEMPERATURE_GPU = 1, 2, 0
_POLICY_POWER, _POLICY_THERMAL = 0, 1

# Bits of nvmlDeviceGetCurrentClocksEventReasons. Not here, since they lower nothing that was asked
# for: idle (0x1) and the clocks that the owner of the card has set (0x2).
THROTTLE_REASONS: dict[int, str] = {
    0x4: "power cap",
    0x8: "hardware slowdown",
    0x10: "sync boost",
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "hardware power brake",
    0x100: "display clock setting",
    0x200: "board limit",
    0x400: "reliability limit",
}


def library() -> Any | None:
    """The NVML module, started; None where the package or the driver is missing."""
    try:
        import pynvml

        pynvml.nvmlInit()
    except Exception:  # not installed, or no NVML in this container
        return None
    return pynvml


class Gpu:
    """One GPU as NVML sees it; every answer is None where there is none."""

    def __init__(self, nvml: Any, handle: Any) -> None:
        self._nvml = nvml
        self._handle = handle

    def ask(self, function: str, *arguments: Any) -> Any | None:
        """Call an NVML function with this GPU; None where it fails in whatever way."""
        return _ask(self._nvml, function, self._handle, *arguments)

    def name(self) -> str | None:
        """The name of the card."""
        return _text(self.ask("nvmlDeviceGetName"))

    def sm_mhz(self) -> float | None:
        """Clock of the multiprocessors now, MHz."""
        return _number(self.ask("nvmlDeviceGetClockInfo", _CLOCK_SM))

    def memory_mhz(self) -> float | None:
        """Clock of the memory now, MHz."""
        return _number(self.ask("nvmlDeviceGetClockInfo", _CLOCK_MEMORY))

    def default_sm_mhz(self) -> float | None:
        """The clock that the multiprocessors should have at work, MHz.

        The default applications clock, which data-centre cards have: what they are sold to hold
        under load. Other cards (and drivers without applications clocks) answer "not supported";
        for them it is the maximum, which they come near to at work unless they throttle.
        """
        default = _number(self.ask("nvmlDeviceGetDefaultApplicationsClock", _CLOCK_SM))
        return default or self.max_sm_mhz()

    def max_sm_mhz(self) -> float | None:
        """The highest clock of the multiprocessors, MHz."""
        return _number(self.ask("nvmlDeviceGetMaxClockInfo", _CLOCK_SM))

    def temperature_c(self) -> float | None:
        """Of the chip, degrees Celsius."""
        return _number(self.ask("nvmlDeviceGetTemperature", _TEMPERATURE_GPU))

    def power_w(self) -> float | None:
        """Drawn by the whole board, W; from Ampere on the mean of the last second."""
        return _scaled(self.ask("nvmlDeviceGetPowerUsage"), 1e-3)

    def power_limits_w(self) -> tuple[float | None, float | None]:
        """The limit in force and the card's default one, W."""
        enforced = self.ask("nvmlDeviceGetEnforcedPowerLimit")
        default = self.ask("nvmlDeviceGetPowerManagementDefaultLimit")
        return _scaled(enforced, 1e-3), _scaled(default, 1e-3)

    def energy_j(self) -> float | None:
        """Used by the whole board since the driver was loaded, J (Volta and newer)."""
        return _scaled(self.ask("nvmlDeviceGetTotalEnergyConsumption"), 1e-3)

    def throttle(self) -> tuple[str, ...]:
        """Why clocks are lowered now."""
        bits = self.ask("nvmlDeviceGetCurrentClocksEventReasons")
        if bits is None:  # the name before driver 535
            bits = self.ask("nvmlDeviceGetCurrentClocksThrottleReasons") or 0
        return tuple(name for bit, name in THROTTLE_REASONS.items() if int(bits) & bit)

    def throttled_s(self) -> dict[str, float]:
        """Seconds that clocks were lowered for a reason, since the driver was loaded."""
        policies = {"power cap": _POLICY_POWER, "thermal slowdown": _POLICY_THERMAL}
        found = {}
        for name, policy in policies.items():
            status = self.ask("nvmlDeviceGetViolationStatus", policy)
            seconds = _scaled(getattr(status, "violationTime", None), 1e-9)
            if seconds is not None:
                found[name] = seconds
        return found

    def other_processes(self) -> int | None:
        """Processes with memory on this card that are not this one.

        Inside a container NVML tells the host's process numbers, or hides them: a process that
        uses CUDA and is not in the list under its own number is one of the others' numbers, and
        where the list is empty even so, there is nothing to tell.
        """
        lists = [
            self.ask(f"nvmlDeviceGet{kind}RunningProcesses") for kind in ("Compute", "Graphics")
        ]
        if all(found is None for found in lists):
            return None
        running = {process.pid for found in lists for process in found or ()}
        if os.getpid() in running or not torch.cuda.is_initialized():
            return len(running - {os.getpid()})
        return len(running) - 1 if running else None

    def memory_bytes(self) -> tuple[int, int] | None:
        """Free and all memory of the card."""
        found = self.ask("nvmlDeviceGetMemoryInfo")
        with suppress(TypeError, ValueError, AttributeError):
            return (int(found.free), int(found.total)) if found is not None else None
        return None

    def persistent(self) -> bool | None:
        """Whether the driver stays loaded while nothing uses the card."""
        return _flag(self.ask("nvmlDeviceGetPersistenceMode"))

    def sliced(self) -> bool | None:
        """Whether the card is divided into MIG slices, or is one."""
        if _flag(self.ask("nvmlDeviceIsMigDeviceHandle")):
            return True
        mode = self.ask("nvmlDeviceGetMigMode")  # (now, after the next reset)
        return _flag(mode[0]) if isinstance(mode, (tuple, list)) and mode else None


def gpu_of(device: str, nvml: Any | None = None) -> Gpu | None:
    """Find the GPU of a torch device, by UUID, else by its place on the PCI bus.

    CUDA's numbers follow CUDA_VISIBLE_DEVICES and CUDA_DEVICE_ORDER, NVML's do not.

    Args:
        device: "cuda" or "cuda:INDEX".
        nvml: the NVML module; `library()` without one.
    """
    nvml = nvml or library()
    if nvml is None or not torch.cuda.is_available():
        return None
    try:
        properties = torch.cuda.get_device_properties(torch.device(device))
    except Exception:  # no such device, or a driver that gave up
        return None
    for find in (_by_uuid, _by_bus):
        handle = find(nvml, properties)
        if handle is not None:
            return Gpu(nvml, handle)
    return None


def driver_version(nvml: Any | None = None) -> str | None:
    """The version of the NVIDIA driver by NVML, else the newest CUDA version it supports."""
    nvml = nvml or library()
    version = _text(_ask(nvml, "nvmlSystemGetDriverVersion")) if nvml else None
    if version is not None:
        return version
    read = getattr(torch._C, "_cuda_getDriverVersion", None)
    number = int(read()) if read else 0
    return f"for CUDA {number // 1000}.{number % 1000 // 10}" if number else None


def _by_uuid(nvml: Any, properties: Any) -> Any | None:
    uuid = str(getattr(properties, "uuid", "")).removeprefix("GPU-").removeprefix("MIG-")
    if not uuid:
        return None
    found = (_ask(nvml, "nvmlDeviceGetHandleByUUID", kind + uuid) for kind in ("GPU-", "MIG-"))
    return next((handle for handle in found if handle is not None), None)


def _by_bus(nvml: Any, properties: Any) -> Any | None:
    place = [getattr(properties, f"pci_{part}_id", None) for part in ("domain", "bus", "device")]
    if not all(isinstance(number, int) for number in place):
        return None
    domain, bus, slot = place
    return _ask(nvml, "nvmlDeviceGetHandleByPciBusId", f"{domain:08X}:{bus:02X}:{slot:02X}.0")


def _ask(nvml: Any, function: str, *arguments: Any) -> Any | None:
    try:
        call: Callable[..., Any] = getattr(nvml, function)
        return call(*arguments)
    except Exception:  # NVMLError of any kind, or a package that lacks the function
        return None


def _number(value: Any) -> float | None:
    try:
        return None if value is None else float(value)
    except (TypeError, ValueError):
        return None


def _scaled(value: Any, unit: float) -> float | None:
    number = _number(value)
    return None if number is None else number * unit


def _flag(value: Any) -> bool | None:
    return None if value is None else bool(value)


def _text(value: Any) -> str | None:
    if value is None:
        return None
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
