"""A stand-in for the NVML module: one or more made-up GPUs, functions that fail when told to."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any


class NVMLError(Exception):
    """As pynvml raises it for whatever is not supported."""


@dataclass
class FakeGpu:
    """One GPU, in NVML's units (MHz, mW, mJ, ns)."""

    uuid: str = "GPU-11"
    bus: str = "00000000:1A:00.0"
    name: str = "NVIDIA Made-up"
    sm: int = 1900
    memory: int = 2600
    default: int | None = 1980
    maximum: int = 1980
    temperature: int = 45
    power: int = 310_500
    energy: int = 5_000_000
    reasons: int = 0
    limits: tuple[int, int] = (700_000, 700_000)
    violations: dict[int, int] = field(default_factory=dict)
    compute: list[int] = field(default_factory=list)
    graphics: list[int] = field(default_factory=list)
    free: int = 100 * 2**30
    total: int = 140 * 2**30
    persistence: int = 1
    mig: int | None = 0
    is_slice: bool = False


class FakeNvml:
    """The functions that are used, over some `FakeGpu`; `broken` ones raise."""

    def __init__(self, *gpus: FakeGpu, broken: tuple[str, ...] = (), lacking: tuple[str, ...] = ()):
        self.gpus = gpus
        self.broken = set(broken)
        self.lacking = set(lacking)
        self.asked: list[str] = []

    def __getattribute__(self, name: str) -> Any:
        if not name.startswith("nvml"):
            return super().__getattribute__(name)
        self.asked.append(name)
        if name in self.lacking:
            raise AttributeError(name)
        if name in self.broken:
            return _fail
        return super().__getattribute__(name)

    def nvmlInit(self) -> None:
        pass

    def nvmlSystemGetDriverVersion(self) -> bytes:
        return b"580.65.06"

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> FakeGpu:
        return self._find("uuid", uuid)

    def nvmlDeviceGetHandleByPciBusId(self, bus: str) -> FakeGpu:
        return self._find("bus", bus)

    def _find(self, key: str, value: str) -> FakeGpu:
        found = [gpu for gpu in self.gpus if getattr(gpu, key) == value]
        if not found:
            raise NVMLError("Not Found")
        return found[0]

    def nvmlDeviceGetName(self, gpu: FakeGpu) -> bytes:
        return gpu.name.encode()

    def nvmlDeviceGetClockInfo(self, gpu: FakeGpu, kind: int) -> int:
        return {1: gpu.sm, 2: gpu.memory}[kind]

    def nvmlDeviceGetDefaultApplicationsClock(self, gpu: FakeGpu, kind: int) -> int:
        if gpu.default is None:
            raise NVMLError("Not Supported")
        return {1: gpu.default}[kind]

    def nvmlDeviceGetMaxClockInfo(self, gpu: FakeGpu, kind: int) -> int:
        return {1: gpu.maximum}[kind]

    def nvmlDeviceGetTemperature(self, gpu: FakeGpu, sensor: int) -> int:
        return {0: gpu.temperature}[sensor]

    def nvmlDeviceGetPowerUsage(self, gpu: FakeGpu) -> int:
        return gpu.power

    def nvmlDeviceGetEnforcedPowerLimit(self, gpu: FakeGpu) -> int:
        return gpu.limits[0]

    def nvmlDeviceGetPowerManagementDefaultLimit(self, gpu: FakeGpu) -> int:
        return gpu.limits[1]

    def nvmlDeviceGetTotalEnergyConsumption(self, gpu: FakeGpu) -> int:
        return gpu.energy

    def nvmlDeviceGetCurrentClocksEventReasons(self, gpu: FakeGpu) -> int:
        return gpu.reasons

    nvmlDeviceGetCurrentClocksThrottleReasons = nvmlDeviceGetCurrentClocksEventReasons

    def nvmlDeviceGetViolationStatus(self, gpu: FakeGpu, policy: int) -> Any:
        return SimpleNamespace(referenceTime=0, violationTime=gpu.violations.get(policy, 0))

    def nvmlDeviceGetComputeRunningProcesses(self, gpu: FakeGpu) -> list[Any]:
        return [SimpleNamespace(pid=pid) for pid in gpu.compute]

    def nvmlDeviceGetGraphicsRunningProcesses(self, gpu: FakeGpu) -> list[Any]:
        return [SimpleNamespace(pid=pid) for pid in gpu.graphics]

    def nvmlDeviceGetMemoryInfo(self, gpu: FakeGpu) -> Any:
        return SimpleNamespace(free=gpu.free, total=gpu.total, used=gpu.total - gpu.free)

    def nvmlDeviceGetPersistenceMode(self, gpu: FakeGpu) -> int:
        return gpu.persistence

    def nvmlDeviceIsMigDeviceHandle(self, gpu: FakeGpu) -> int:
        return int(gpu.is_slice)

    def nvmlDeviceGetMigMode(self, gpu: FakeGpu) -> list[int]:
        if gpu.mig is None:
            raise NVMLError("Not Supported")
        return [gpu.mig, gpu.mig]


def _fail(*arguments: Any) -> Any:
    raise NVMLError("Not Supported")


FUNCTIONS = tuple(name for name in vars(FakeNvml) if name.startswith("nvml") and name != "nvmlInit")
