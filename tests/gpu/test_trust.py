"""The timers of this GPU against others' clocks, known durations and themselves."""

from __future__ import annotations

from statistics import median

import pytest
import torch

from sepcbench.measures.profile import kernel_seconds
from sepcbench.measures.sampling import sample
from sepcbench.measures.timers import timer_for
from sepcbench.measures.trust import AGREEMENT, HALF_WIDTH, Trial, Trust, in_turns, trust
from sepcbench.specs import Protocol
from sepcbench.stats import compare

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def trials() -> Trust:
    """The trials of `sepcbench doctor --trust`, once."""
    return trust("cuda")


def named(trials: Trust, *names: str) -> list[Trial]:
    return [trial for trial in trials.trials if trial.name.startswith(names)]


def test_against_kernels_of_known_length(trials: Trust) -> None:
    known = named(trials, "wall clock", "cycles")
    assert len(known) == 4
    assert [trial for trial in known if not trial.passed] == []


def test_against_the_profiler(trials: Trust) -> None:
    (trial,) = named(trials, "profiler")
    assert trial.passed, trial


def test_against_do_bench(trials: Trust) -> None:
    pytest.importorskip("triton")
    (trial,) = named(trials, "do_bench")
    assert trial.passed, trial


def test_a_detector_against_itself(trials: Trust) -> None:
    (trial,) = named(trials, "against itself")
    assert trial.passed, trial
    assert trial.interval is not None
    low, high = trial.interval
    assert low <= 1 <= high
    assert (high - low) / 2 < HALF_WIDTH


def test_time_is_linear_in_cycles() -> None:
    """A line through lengths from 1 to 32: no length is off it by 2 %, and it starts near zero."""
    timer = timer_for("cuda")
    unit = 2**22
    for _ in range(20):
        torch.cuda._sleep(8 * unit)  # until the clocks are up
    lengths = (1, 2, 4, 8, 16, 32)
    ways = {
        str(n): lambda n=n: timer.time(lambda: torch.cuda._sleep(n * unit)).seconds for n in lengths
    }
    found = in_turns(ways)
    slope = (found["32"] - found["1"]) / 31
    start = found["1"] - slope
    # what recording events and starting a kernel take, and what the clocks drifted meanwhile
    assert abs(start) < 50e-6 + AGREEMENT * found["1"]
    for n in lengths:
        assert found[str(n)] == pytest.approx(start + n * slope, rel=AGREEMENT)


def test_two_kernels_of_different_length_have_the_ratio_of_their_cycles() -> None:
    """What tables show are ratios: three times the cycles must be a ratio of 3."""
    unit = 2**22
    calls = {
        "one": lambda: torch.cuda._sleep(unit),
        "three": lambda: torch.cuda._sleep(3 * unit),
    }
    protocol = Protocol(rounds=30, samples_per_round=3, warmup_seconds=0.3)
    found = sample(calls, timer_for("cuda"), protocol)
    ratio = compare(found["three"].seconds, found["one"].seconds)
    assert ratio.median == pytest.approx(3, rel=AGREEMENT)


def test_a_conv_by_events_and_by_its_kernels() -> None:
    """A call of several kernels in half precision; the timer may only add the gaps."""
    convs = torch.nn.Sequential(*[torch.nn.Conv2d(256, 256, 3, padding=1) for _ in range(8)])
    convs = convs.cuda().half().eval()
    x = torch.randn(8, 256, 100, 160, device="cuda", dtype=torch.float16)
    timer = timer_for("cuda")
    with torch.inference_mode():
        for _ in range(10):
            convs(x)
        found = in_turns(
            {
                "timer": lambda: median(timer.time(lambda: convs(x)).seconds for _ in range(20)),
                "kernels": lambda: kernel_seconds(lambda: convs(x), "cuda") or 0.0,
            }
        )
    assert found["timer"] == pytest.approx(found["kernels"], rel=0.05)
    assert found["timer"] > 0.98 * found["kernels"]
