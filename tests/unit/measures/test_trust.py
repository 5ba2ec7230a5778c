"""Trials of timers: what they find in a made-up clock, and in a real one."""

from __future__ import annotations

import random

import pytest
import torch

from sepcbench import codec
from sepcbench.measures import trust
from sepcbench.measures.timers import FakeTimer, timer_for
from sepcbench.measures.trust import Trial, Trust, agreement, in_turns, itself, known_durations
from sepcbench.specs import Protocol
from sepcbench.stats import compare

SHORT = Protocol(
    rounds=30, samples_per_round=3, warmup_seconds=0, warmup_iterations=2, max_seconds=1e9
)


@pytest.mark.parametrize(
    ("found", "expected", "passed"),
    [(1.0, 1.0, True), (1.0199, 1.0, True), (0.981, 1.0, True), (1.03, 1.0, False), (1, 0, False)],
)
def test_two_figures_agree_within_two_percent(found: float, expected: float, passed: bool) -> None:
    assert agreement("x", "", found, expected).passed == passed


def test_figures_taken_in_turns_share_the_moods_of_a_machine() -> None:
    """The second is 1.5 times the first in every round, whatever the round is like."""
    moods = [1.0, 3.0, 1.1, 2.0, 9.0]
    mood = iter([m for m in moods for _ in range(2)])
    found = in_turns({"a": lambda: next(mood), "b": lambda: 1.5 * next(mood)}, len(moods))
    assert found["a"] == 2.0
    assert found["b"] == pytest.approx(3.0)


def test_a_good_clock_finds_known_durations_exactly() -> None:
    timer = FakeTimer()
    busy = lambda seconds: lambda: timer.advance(seconds)  # noqa: E731
    trials = list(known_durations(timer, busy, (0.001, 0.25)))
    assert [trial.found for trial in trials] == pytest.approx([0.001, 0.25], rel=1e-9)
    assert all(trial.passed for trial in trials)


def test_a_clock_with_an_overhead_is_found_out_by_short_calls() -> None:
    timer = FakeTimer([1e-4] * 100)  # so much more than the call itself took
    busy = lambda seconds: lambda: timer.advance(seconds)  # noqa: E731
    short, long = known_durations(timer, busy, (0.001, 0.1))
    assert (short.passed, long.passed) == (False, True)
    assert short.found == pytest.approx(0.0011)


def test_a_variant_is_as_fast_as_itself() -> None:
    timer = FakeTimer()
    noise = random.Random(1)
    trial = itself(lambda: timer.advance(noise.gauss(1, 0.01)), timer, "noise of 1 %", SHORT)
    assert trial.passed
    assert trial.interval is not None
    assert trial.interval[0] <= 1 <= trial.interval[1]


def test_a_clock_that_cannot_repeat_is_found_out() -> None:
    timer = FakeTimer()
    noise = random.Random(1)
    trial = itself(lambda: timer.advance(noise.uniform(0.5, 1.5)), timer, "noise", SHORT)
    assert not trial.passed
    assert trial.tries == 2


def test_unequal_twins_are_found_out() -> None:
    """An interval that is narrow enough but leaves out 1."""
    rounds = [[1.0, 1.001, 0.999]] * 20
    slower = [[1.005 * value for value in taken] for taken in rounds]
    assert trust.repeatability(compare(rounds, rounds), "").passed
    assert not trust.repeatability(compare(slower, rounds), "").passed


def test_trust_is_in_all_trials_and_can_be_kept() -> None:
    good = agreement("x", "about", 1.0, 1.0)
    bad = agreement("y", "about", 2.0, 1.0)
    assert Trust("cpu", "a cpu", (good,)).passed
    found = Trust("cpu", "a cpu", (good, bad))
    assert not found.passed
    assert codec.decode(Trust, codec.encode(found)) == found


def test_every_trial_of_a_device_is_run(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    made = {
        name: lambda device, timer, name=name: iter([agreement(name, device, 1.0, 1.0)])
        for name in ("first", "second")
    }
    monkeypatch.setitem(trust.TRIALS, "cpu", made)
    found = trust.trust("cpu", lambda done, every, label: told.append(f"{done}/{every} {label}"))
    assert [trial.name for trial in found.trials] == ["first", "second"]
    assert told == ["0/2 first", "1/2 second"]
    assert (found.device, bool(found.device_name)) == ("cpu", True)


def test_a_busy_loop_keeps_busy_for_so_long() -> None:
    sample = timer_for("cpu").time(trust._spin(0.02))
    assert 0.0199 < sample.seconds < 1


def test_the_work_of_a_trial_computes() -> None:
    torch.manual_seed(0)
    trust._work("cpu", side=8, times=3)()


@pytest.mark.skipif(torch.cuda.is_available(), reason="they run on the device itself")
def test_the_trials_of_a_gpu_on_a_made_up_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU of 2 GHz, with 5 us between events and kernel: all agree; a slow wall is found out."""
    clock = FakeTimer()

    class Timer:
        def time(self, call):
            sample = clock.time(call)
            return type(sample)(sample.seconds + 5e-6, sample.seconds + 2e-5)

    monkeypatch.setattr(torch.cuda, "_sleep", lambda cycles: clock.advance(cycles / 2e9))
    trials = list(trust._cuda_known("cuda", Timer()))
    assert trials[0].name == "wall clock"
    assert len(trials) == 4
    assert all(trial.passed for trial in trials), trials
    monkeypatch.setattr(trust, "_work", lambda device, side, times: lambda: clock.advance(0.004))
    monkeypatch.setattr(trust, "kernel_seconds", lambda call, device: 0.004)
    monkeypatch.setattr(trust, "_do_bench", lambda: lambda call, return_mode: 4.2)
    profiler, do_bench = trust._cuda_others("cuda", Timer())
    assert (profiler.passed, do_bench.passed) == (True, False)


@pytest.mark.slow
def test_a_real_clock_repeats() -> None:
    """Short calls, so that other tests on the same core break off few of them."""
    timer = timer_for("cpu")
    protocol = Protocol(rounds=60, samples_per_round=20, warmup_seconds=0.2, max_seconds=30)
    trial = itself(trust._spin(0.0002), timer, "a busy loop", protocol)
    assert trial.interval is not None
    assert trial.found == pytest.approx(1, abs=0.02)
    assert trial.interval[0] <= 1.005
    assert trial.interval[1] >= 0.995


@pytest.mark.slow
def test_the_trials_of_this_machine_run() -> None:
    found = trust.trust("cpu")
    assert [trial.name for trial in found.trials][-2:] == ["timeit", "against itself"]
    assert all(isinstance(trial, Trial) and trial.found > 0 for trial in found.trials)
