"""The clocks."""

import time

import pytest
import torch

from sepcbench.errors import UsageError
from sepcbench.measures.timers import (
    CpuTimer,
    CudaTimer,
    FakeTimer,
    FlushingTimer,
    Sample,
    l2_flush,
    timer_for,
)


def test_cpu_timer_times_the_call():
    sample = CpuTimer().time(lambda: time.sleep(0.02))
    assert 0.02 <= sample.seconds < 1
    assert sample.wall_seconds is None


def test_cpu_timer_goes_forward():
    timer = CpuTimer()
    assert timer.now() < (time.sleep(0.001), timer.now())[1]


def test_fake_timer_plays_its_script():
    timer = FakeTimer([1.0, 2.5])
    called = []
    samples = [timer.time(lambda: called.append(1)) for _ in range(3)]
    assert [sample.seconds for sample in samples] == [1.0, 2.5, 0.0]
    assert timer.now() == 3.5
    assert len(called) == 3


def test_fake_timer_counts_what_the_call_adds():
    timer = FakeTimer()
    assert timer.time(lambda: timer.advance(0.25)) == Sample(0.25)
    timer.advance(1)
    assert timer.now() == 1.25


def test_timer_of_the_cpu():
    assert isinstance(timer_for("cpu"), CpuTimer)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_no_timer_for_a_device_that_is_not_there():
    with pytest.raises(UsageError, match="no CUDA device; use --device cpu"):
        timer_for("cuda:0")


@pytest.mark.gpu
def test_cuda_timer_agrees_with_a_long_kernel():
    """Work of many milliseconds: events and wall clock see the same time, more work more time."""
    timer = timer_for("cuda")
    assert isinstance(timer, CudaTimer)
    x = torch.randn(8192, 8192, device="cuda")
    timer.time(lambda: x @ x)
    one = timer.time(lambda: x @ x)
    four = timer.time(lambda: [x @ x for _ in range(4)])
    assert one.wall_seconds == pytest.approx(one.seconds, rel=0.2)
    assert 3 < four.seconds / one.seconds < 5


@pytest.mark.gpu
def test_cuda_timer_waits_for_earlier_work():
    timer = timer_for("cuda")
    x = torch.randn(8192, 8192, device="cuda")
    small = torch.zeros(8, device="cuda")
    timer.time(lambda: small + 1)
    for _ in range(20):
        x @ x
    sample = timer.time(lambda: small + 1)
    assert sample.seconds < 1e-3
    assert sample.wall_seconds < 5e-3


def test_the_cache_is_emptied_before_every_call_and_not_timed():
    clock, log = FakeTimer(), []

    def flush():
        log.append("flush")
        clock.advance(5.0)

    def call():
        log.append("call")
        clock.advance(0.25)

    timer = FlushingTimer(clock, flush)
    assert [timer.time(call).seconds for _ in range(2)] == [0.25, 0.25]
    assert log == ["flush", "call"] * 2
    assert timer.now() == 10.5


@pytest.mark.gpu
def test_the_l2_cache_is_written_over():
    flush = l2_flush("cuda")
    size = torch.cuda.get_device_properties("cuda").L2_cache_size
    assert flush.__self__.numel() == 2 * size > 0
    flush()
