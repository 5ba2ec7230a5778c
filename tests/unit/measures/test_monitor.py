"""Watching a GPU through a made-up NVML: numbers, names, and everything that can be missing."""

from __future__ import annotations

import os
import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from fake_nvml import FUNCTIONS, FakeGpu, FakeNvml

from sepcbench.measures import nvml
from sepcbench.measures.monitor import FakeMonitor, NoMonitor, NvmlMonitor, monitor_for
from sepcbench.measures.nvml import Gpu
from sepcbench.measures.timers import FakeTimer
from sepcbench.records import DeviceState


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """torch with one made-up CUDA device; what it says of itself can be changed."""
    properties = SimpleNamespace(uuid="11", pci_domain_id=0, pci_bus_id=0x1A, pci_device_id=0)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    return properties


def watch(gpu: FakeGpu, **kwargs: Any) -> NvmlMonitor:
    return NvmlMonitor(Gpu(FakeNvml(gpu, **kwargs), gpu))


def test_a_state_has_what_nvml_says_in_plain_units() -> None:
    gpu = FakeGpu(compute=[os.getpid(), 77, 78], graphics=[78], reasons=0x4)
    monitor = watch(gpu)
    monitor.start()
    assert monitor.stop() == DeviceState(
        sm_mhz=1900, memory_mhz=2600, temperature_c=45, power_w=pytest.approx(310.5),
        throttle=("power cap",), other_processes=2,
    )  # fmt: skip
    assert monitor.energy_j() == pytest.approx(5000)


@pytest.mark.parametrize(
    ("bits", "names"),
    [
        (0x0, ()),
        (0x1, ()),  # idle
        (0x2, ()),  # clocks that the owner has set
        (0x3, ()),
        (0x48, ("hardware slowdown", "hardware thermal slowdown")),
        (0x7FC, tuple(nvml.THROTTLE_REASONS.values())),
    ],
)
def test_names_of_throttle_reasons(bits: int, names: tuple[str, ...]) -> None:
    assert watch(FakeGpu(reasons=bits)).stop().throttle == names


def test_the_bits_are_those_of_the_nvml_package() -> None:
    pynvml = pytest.importorskip("pynvml")
    official = {
        "SwPowerCap": "power cap",
        "HwSlowdown": "hardware slowdown",
        "SyncBoost": "sync boost",
        "SwThermalSlowdown": "software thermal slowdown",
        "HwThermalSlowdown": "hardware thermal slowdown",
        "HwPowerBrakeSlowdown": "hardware power brake",
        "DisplayClockSetting": "display clock setting",
        "BoardLimit": "board limit",
        "Reliability": "reliability limit",
    }
    if not hasattr(pynvml, "nvmlClocksThrottleReasonBoardLimit"):
        pytest.skip("this version of the package knows fewer reasons")
    found = {getattr(pynvml, f"nvmlClocksThrottleReason{key}"): n for key, n in official.items()}
    assert found == nvml.THROTTLE_REASONS
    assert pynvml.nvmlClocksThrottleReasonAll == sum(found) | 0x3
    numbers = (nvml._CLOCK_SM, nvml._CLOCK_MEMORY, nvml._POLICY_POWER, nvml._POLICY_THERMAL)
    names = ("CLOCK_SM", "CLOCK_MEM", "PERF_POLICY_POWER", "PERF_POLICY_THERMAL")
    assert numbers == tuple(getattr(pynvml, f"NVML_{name}") for name in names)
    assert pynvml.NVML_TEMPERATURE_GPU == nvml._TEMPERATURE_GPU
    every = [*FUNCTIONS, "nvmlInit"]
    assert [name for name in every if not hasattr(pynvml, name)] == []


def test_throttling_within_a_round_is_told_by_its_time_counter() -> None:
    gpu = FakeGpu(violations={0: 5_000_000_000, 1: 7})
    monitor = watch(gpu)
    monitor.start()
    assert monitor.stop().throttle == ()  # all of it was before
    monitor.start()
    gpu.violations = {0: 5_000_000_000, 1: 3_000_000_000}
    assert monitor.stop().throttle == ("thermal slowdown",)
    assert monitor.start() is None
    assert monitor.stop().throttle == ()


def test_a_low_clock_is_one_below_three_quarters_of_the_default() -> None:
    monitor = watch(FakeGpu(default=1000, maximum=2000))
    assert not monitor.low_clock(DeviceState(sm_mhz=750))
    assert monitor.low_clock(DeviceState(sm_mhz=749))
    assert not monitor.low_clock(DeviceState())


def test_without_applications_clocks_the_maximum_is_the_default() -> None:
    monitor = watch(FakeGpu(default=None, maximum=2000))
    assert monitor.low_clock(DeviceState(sm_mhz=1499))
    assert not monitor.low_clock(DeviceState(sm_mhz=1500))


@pytest.mark.parametrize("how", ["broken", "lacking"])
def test_a_driver_that_answers_nothing_gives_nothing(how: str) -> None:
    monitor = watch(FakeGpu(), **{how: FUNCTIONS})
    monitor.start()
    assert monitor.stop() == DeviceState()
    assert monitor.energy_j() is None
    assert not monitor.low_clock(DeviceState(sm_mhz=1))


@pytest.mark.parametrize("function", FUNCTIONS)
def test_any_one_function_may_be_missing(function: str, cuda: SimpleNamespace) -> None:
    made = FakeNvml(FakeGpu(compute=[os.getpid(), 5]), broken=(function,))
    gpu = nvml.gpu_of("cuda", made)
    assert gpu is not None
    state = NvmlMonitor(gpu).stop()
    known = sum(value not in (None, ()) for value in vars(state).values())
    assert known >= 3


def test_an_older_driver_is_asked_by_the_older_name() -> None:
    made = FakeNvml(FakeGpu(reasons=0x20), lacking=("nvmlDeviceGetCurrentClocksEventReasons",))
    assert Gpu(made, made.gpus[0]).throttle() == ("software thermal slowdown",)


@pytest.mark.parametrize(
    ("running", "uses_cuda", "others"),
    [
        ([], False, 0),
        ([], True, None),  # the container hides even this process
        ([4242], False, 1),
        ([4242], True, 0),  # this process, by its number on the host
        ([4242, 5], True, 1),
        ([os.getpid()], True, 0),
        ([os.getpid(), 5], True, 1),
    ],
)
def test_other_processes(
    running: list[int], uses_cuda: bool, others: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: uses_cuda)
    gpu = FakeGpu(compute=running)
    assert Gpu(FakeNvml(gpu), gpu).other_processes() == others


def test_the_gpu_is_found_by_uuid_whatever_its_number(cuda: SimpleNamespace) -> None:
    made = FakeNvml(FakeGpu(uuid="GPU-22", bus="x", sm=1), FakeGpu(uuid="GPU-11", bus="y", sm=2))
    found = nvml.gpu_of("cuda:0", made)
    assert found is not None
    assert found.sm_mhz() == 2


def test_the_gpu_is_found_by_bus_where_uuids_are_hidden(cuda: SimpleNamespace) -> None:
    made = FakeNvml(
        FakeGpu(bus="00000000:1B:00.0", sm=1), FakeGpu(uuid="GPU-22", sm=2),
        broken=("nvmlDeviceGetHandleByUUID",),
    )  # fmt: skip
    found = nvml.gpu_of("cuda", made)
    assert found is not None
    assert found.sm_mhz() == 2
    del cuda.uuid, cuda.pci_bus_id
    assert nvml.gpu_of("cuda", made) is None


@pytest.mark.parametrize(
    "gpu", [FakeGpu(uuid="MIG-11", is_slice=True), FakeGpu(uuid="GPU-99", mig=1)]
)
def test_a_mig_slice_tells_nothing(
    gpu: FakeGpu, cuda: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", FakeNvml(gpu))
    found = nvml.gpu_of("cuda")
    assert found is not None  # by its own UUID, or the card's place on the bus
    assert found.sliced()
    assert isinstance(monitor_for("cuda"), NoMonitor)


def test_the_monitor_of_a_gpu(cuda: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", FakeNvml(FakeGpu()))
    assert isinstance(monitor_for("cuda:0"), NvmlMonitor)
    assert nvml.driver_version() == "580.65.06"


def test_no_library_no_driver_no_gpu(
    cuda: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", FakeNvml(broken=("nvmlInit",)))
    assert nvml.library() is None
    monkeypatch.setitem(sys.modules, "pynvml", None)  # an import of it fails
    assert nvml.library() is None
    assert nvml.driver_version() is None
    for device in ("cuda", "cpu"):
        monitor = monitor_for(device)
        monitor.start()
        assert (monitor.stop(), monitor.energy_j()) == (DeviceState(), None)
        assert not monitor.low_clock(DeviceState(sm_mhz=1))
    monkeypatch.undo()
    if not torch.cuda.is_available():
        assert nvml.gpu_of("cuda", FakeNvml(FakeGpu())) is None


def test_a_fake_monitor_plays_its_script() -> None:
    slow, fast = DeviceState(sm_mhz=500), DeviceState(sm_mhz=990)
    timer = FakeTimer()
    monitor = FakeMonitor([slow, fast], watts=200.0, clock=timer)
    found = []
    for _ in range(3):
        monitor.start()
        timer.advance(0.5)
        found.append(monitor.stop())
    assert found == [slow, fast, fast]
    assert [monitor.low_clock(state) for state in found] == [True, False, False]
    assert monitor.energy_j() == pytest.approx(300)
    assert monitor.log == ["start", "stop"] * 3
    assert FakeMonitor().energy_j() is None
    assert not FakeMonitor().low_clock(FakeMonitor().stop())


@pytest.mark.gpu
def test_a_real_gpu_tells_its_clocks() -> None:
    pytest.importorskip("pynvml")
    monitor = monitor_for("cuda")
    if isinstance(monitor, NoMonitor):
        pytest.skip("NVML tells nothing of this device")
    x = torch.randn(4096, 4096, device="cuda")
    before = monitor.energy_j()
    monitor.start()
    for _ in range(200):
        x @ x
    torch.cuda.synchronize()
    state = monitor.stop()
    after = monitor.energy_j()
    assert state.sm_mhz is not None
    assert state.sm_mhz > 100
    assert state.temperature_c is None or 0 < state.temperature_c < 110
    assert before is None or after is None or after >= before
