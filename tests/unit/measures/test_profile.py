"""Reading a profiler's trace: made-up events, and what a CPU answers."""

from __future__ import annotations

import pytest
import torch

from sepcbench.measures import profile
from sepcbench.measures.profile import (
    Event,
    busy_s,
    count_launches,
    kernel_seconds,
    launches,
    peak_bytes,
    tensor_bytes,
    union_s,
)
from sepcbench.measures.timers import FakeTimer


@pytest.mark.parametrize(
    ("intervals", "length"),
    [
        ([], 0),
        ([(1, 2)], 1),
        ([(1, 2), (3, 5)], 3),
        ([(3, 5), (1, 4)], 4),  # they overlap
        ([(1, 10), (2, 3), (4, 5), (9, 12)], 11),  # some inside another
        ([(1, 2), (2, 3)], 2),
        ([(2, 2)], 0),
    ],
)
def test_union_of_intervals(intervals: list[tuple[float, float]], length: float) -> None:
    assert union_s(intervals) == length


def kernel(start: float, end: float, name: str = "sm90_gemm") -> Event:
    return Event(name, True, start, end)


def host(name: str) -> Event:
    return Event(name, False, 0.0, 1.0)


def test_launches_are_calls_of_the_host() -> None:
    events = [host("aten::conv2d"), host("cudaLaunchKernel"), host("cudaLaunchKernelExC")]
    events += [host("cuLaunchKernel"), host("cudaMemcpyAsync"), host("cudaDeviceSynchronize")]
    assert count_launches([*events, kernel(0, 1)]) == 3


def test_a_graph_is_one_launch_of_many_kernels() -> None:
    assert count_launches([host("cudaGraphLaunch"), *[kernel(i, i + 1) for i in range(9)]]) == 1


def test_kernels_are_counted_where_the_host_is_not_seen() -> None:
    events = [kernel(0, 1), kernel(1, 2), kernel(2, 3, "Memcpy DtoD (Device -> Device)")]
    assert count_launches([*events, kernel(3, 4, "Memset (Device)")]) == 2


def test_busy_time_is_of_the_gpu_alone_and_counts_overlaps_once() -> None:
    events = [host("aten::conv2d"), kernel(2, 4), kernel(3, 5), kernel(7, 8, "Memcpy DtoH")]
    assert busy_s(events) == 4


def test_a_cpu_launches_nothing() -> None:
    called: list[int] = []
    assert launches(lambda: called.append(1), "cpu") == (None, None)
    assert kernel_seconds(lambda: called.append(1), "cpu") is None
    assert peak_bytes(lambda: called.append(1), "cpu") is None
    assert called == []


@pytest.mark.parametrize(("seconds", "share"), [(0.008, 0.5), (0.004, 1.0), (0.001, 1.0)])
def test_share_is_of_a_call_without_the_profiler(
    seconds: float, share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five traced calls of three launches and 4 ms of kernels each."""
    calls = profile._CALLS
    events = [host("cudaLaunchKernel")] * 3 * calls
    events += [kernel(i, i + 0.004) for i in range(calls)]
    monkeypatch.setattr(profile, "trace", lambda call, device: events)
    monkeypatch.setattr(profile, "timer_for", lambda device: FakeTimer([seconds] * calls))
    assert launches(lambda: None, "cuda") == (3, pytest.approx(share))
    assert kernel_seconds(lambda: None, "cuda") == pytest.approx(0.004)


def test_a_profiler_that_sees_no_gpu_tells_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profile, "trace", lambda call, device: [host("cudaLaunchKernel")])
    assert launches(lambda: None, "cuda") == (None, None)


def test_a_trace_has_names_and_times_in_seconds() -> None:
    x = torch.randn(64, 64)
    events = profile.trace(lambda: x @ x, "cpu")
    products = [event for event in events if event.name == "aten::mm"]
    assert len(products) == profile._CALLS
    assert not any(event.on_gpu for event in events)
    assert all(0 <= event.end_s - event.start_s < 1 for event in events)


def test_memory_is_what_the_call_adds_and_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    allocated = [100]  # of other rows, and then of this call
    peak = [999]  # of an earlier one
    monkeypatch.setattr(torch.cuda, "synchronize", lambda where: None)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda where: allocated[0])
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda where: peak[0])
    monkeypatch.setattr(
        torch.cuda, "reset_peak_memory_stats", lambda where: peak.__setitem__(0, allocated[0])
    )
    assert peak_bytes(lambda: peak.__setitem__(0, 160), "cuda") == 60
    assert peak_bytes(lambda: peak.__setitem__(0, 160), "cuda", own=40) == 100
    assert peak_bytes(lambda: None, "cuda", own=40) == 40


def test_bytes_of_modules_and_nested_inputs() -> None:
    norm = torch.nn.BatchNorm2d(3)  # weight, bias, mean, variance, and a count of 8 bytes
    x = torch.zeros(2, 5, dtype=torch.float16)
    assert tensor_bytes(norm) == 4 * 3 * 4 + 8
    assert tensor_bytes(norm, ([x, {"a": x[:1]}], "text", 3)) == 4 * 3 * 4 + 8 + 2 * 5 * 2
    assert tensor_bytes() == 0


@pytest.mark.gpu
def test_launches_of_a_known_number_of_kernels() -> None:
    x = torch.zeros(2**26, device="cuda")

    def call() -> None:
        for _ in range(7):
            x.add_(1)

    found, share = launches(call, "cuda")
    assert found == 7
    assert share is not None
    assert 0.8 < share <= 1


@pytest.mark.gpu
def test_peak_memory_of_a_call() -> None:
    x = torch.zeros(2**20, device="cuda")
    other = torch.zeros(2**24, device="cuda")
    assert peak_bytes(lambda: (x + 1) + 1, "cuda") == 2 * 2**22
    assert peak_bytes(lambda: (x + 1) + 1, "cuda", tensor_bytes(x)) == 3 * 2**22
    del other
