"""Warm-up, interleaving, stopping and failures, on a clock that only moves when told."""

import random
from contextlib import contextmanager
from dataclasses import replace

import pytest

from sepcbench.measures.monitor import FakeMonitor
from sepcbench.measures.sampling import reason, sample
from sepcbench.measures.timers import FakeTimer, Sample
from sepcbench.records import DeviceState
from sepcbench.specs import Protocol

QUICK = Protocol(
    rounds=6, min_rounds=3, samples_per_round=2, warmup_iterations=4, warmup_seconds=0.0
)


class Machine:
    """Calls that take a given time, drawn anew each time, and a log of who was called."""

    def __init__(self, **durations):
        self.timer = FakeTimer()
        self.log = []
        self.calls = {name: self._call(name, seconds) for name, seconds in durations.items()}

    def _call(self, name, seconds):
        def call():
            self.log.append(name)
            self.timer.advance(seconds() if callable(seconds) else seconds)

        return call

    def run(self, protocol=QUICK, progress=None):
        return sample(self.calls, self.timer, protocol, progress)


def noisy(median, spread, seed):
    rng = random.Random(seed)
    return lambda: median * (1 + spread * rng.uniform(-1, 1))


def falling(values, last):
    values = iter(values)
    return lambda: next(values, last)


def raising(after, error):
    left = iter(range(after))

    def call():
        if next(left, None) is None:
            raise error
        return 0.01

    return call


# --- warm-up -------------------------------------------------------------------------------


def test_a_steady_call_settles_at_once():
    found = Machine(a=0.01).run()["a"]
    assert found.warmup_settled
    assert found.warmup_calls == 1 + QUICK.warmup_iterations
    assert found.first_call_s == pytest.approx(0.01)


def test_the_first_call_is_kept_apart():
    found = Machine(a=falling([5.0], 0.01)).run()["a"]
    assert found.first_call_s == 5.0
    assert found.warmup_settled
    assert max(max(taken) for taken in found.seconds) == pytest.approx(0.01)


def test_warm_up_goes_on_until_times_settle():
    slow_start = [1.0 / (i + 1) for i in range(30)]
    found = Machine(a=falling(slow_start, 0.01)).run()["a"]
    assert found.warmup_settled
    assert found.warmup_calls > 30


def test_warm_up_lasts_at_least_its_seconds():
    found = Machine(a=0.01).run(replace(QUICK, warmup_seconds=1.0))["a"]
    assert found.warmup_calls == pytest.approx(100, abs=2)
    assert found.warmup_settled


def test_warm_up_gives_up_after_its_limit():
    doubling = iter(0.001 * 2**i for i in range(60))
    protocol = replace(QUICK, warmup_max_seconds=3.0, rounds=1)
    found = Machine(a=lambda: next(doubling)).run(protocol)["a"]
    assert not found.warmup_settled
    assert found.warmup_calls == 12  # 1 + 2 + ... + 2^11 ms is the first sum above 3 s


def test_warm_up_takes_at_most_half_of_the_time_limit():
    machine = Machine(a=1.0, b=1.0)
    found = machine.run(replace(QUICK, max_seconds=8.0, warmup_iterations=10))
    assert [row.warmup_calls for row in found.values()] == [2, 2]
    assert not found["a"].warmup_settled


def test_without_warm_up_there_is_only_the_first_call():
    found = Machine(a=0.01).run(replace(QUICK, warmup_iterations=0))["a"]
    assert (found.warmup_calls, found.warmup_settled) == (1, True)


# --- rounds --------------------------------------------------------------------------------


def rounds_of(machine, found, per_round):
    """The log without warm-up, cut into rounds of (name, name, ...)."""
    log = machine.log[sum(row.warmup_calls for row in found.values()) :]
    step = per_round * len(found)
    return [tuple(log[i : i + step]) for i in range(0, len(log), step)]


def test_every_round_has_every_row_in_random_order():
    machine = Machine(a=0.01, b=0.02, c=0.03)
    found = machine.run(replace(QUICK, rounds=30))
    rounds = rounds_of(machine, found, 2)
    assert len(rounds) == 30
    for turns in rounds:
        assert turns[0::2] == turns[1::2]  # the samples of one row are taken in one turn
        assert sorted(turns[0::2]) == ["a", "b", "c"]
    assert len(set(rounds)) == 6  # all orders of three came up


def test_the_order_follows_the_seed():
    def orders(seed):
        machine = Machine(a=0.01, b=0.02, c=0.03)
        return rounds_of(machine, machine.run(replace(QUICK, seed=seed)), 2)

    assert orders(1) == orders(1)
    assert orders(1) != orders(2)


def test_every_sample_is_kept_in_its_round():
    times = iter(range(1, 100))
    found = Machine(a=lambda: next(times)).run(replace(QUICK, warmup_iterations=0, rounds=3))["a"]
    assert found.seconds == ((2, 3), (4, 5), (6, 7))
    assert found.wall_seconds == ()


def test_wall_times_are_kept_beside():
    class TwoClocks(FakeTimer):
        def time(self, call):
            sample = super().time(call)
            return Sample(sample.seconds, 2 * sample.seconds)

    timer = TwoClocks()
    found = sample({"a": lambda: timer.advance(0.5)}, timer, replace(QUICK, rounds=1))["a"]
    assert found.seconds == ((0.5, 0.5),)
    assert found.wall_seconds == ((1.0, 1.0),)


# --- stopping ------------------------------------------------------------------------------


def test_stops_after_the_rounds():
    found = Machine(a=0.01, b=0.02).run()
    assert {row.stopped for row in found.values()} == {"rounds"}
    assert {len(row.rounds) for row in found.values()} == {6}


def test_stops_when_settled_but_not_before_min_rounds():
    found = Machine(a=0.01, b=0.02).run(replace(QUICK, rounds=50, stop_spread=0.005))
    assert {row.stopped for row in found.values()} == {"settled"}
    assert {len(row.rounds) for row in found.values()} == {3}


def test_one_unsteady_row_keeps_all_going():
    machine = Machine(a=0.01, b=noisy(0.02, 0.3, seed=0))
    found = machine.run(replace(QUICK, rounds=12, stop_spread=0.005))
    assert {row.stopped for row in found.values()} == {"rounds"}
    assert {len(row.rounds) for row in found.values()} == {12}


def test_stops_before_the_time_limit():
    machine = Machine(a=0.5, b=0.5)  # a round takes 2 s, warm-up 2 x 1.5 s at the least
    found = machine.run(replace(QUICK, rounds=50, max_seconds=10.0, warmup_iterations=2))
    assert {row.stopped for row in found.values()} == {"time limit"}
    assert machine.timer.now() <= 10.0
    assert {len(row.rounds) for row in found.values()} == {3}


@pytest.mark.parametrize(("name", "rounds"), [("standard", 8), ("thorough", 12)])
def test_the_least_rounds_of_thorough_may_take_twice_the_time(name, rounds):
    """Rounds of 1 s, after one second for the first call."""
    protocol = replace(QUICK, name=name, samples_per_round=1, warmup_iterations=0, rounds=50)
    found = Machine(a=1.0).run(replace(protocol, min_rounds=12, max_seconds=9.0))["a"]
    assert (len(found.rounds), found.stopped) == (rounds, "time limit")


def test_never_more_than_twice_the_time():
    protocol = replace(QUICK, name="thorough", samples_per_round=1, warmup_iterations=0, rounds=50)
    machine = Machine(a=1.0)
    found = machine.run(replace(protocol, min_rounds=40, max_seconds=9.0))["a"]
    assert (len(found.rounds), machine.timer.now()) == (17, 18.0)


def test_one_round_is_taken_whatever_the_limit():
    found = Machine(a=5.0).run(replace(QUICK, max_seconds=1.0))["a"]
    assert (len(found.rounds), found.stopped) == (1, "time limit")


# --- failures ------------------------------------------------------------------------------


def test_a_row_that_crashes_leaves_the_others():
    machine = Machine(a=0.01, b=raising(8, RuntimeError("no kernel\nmore text")), c=0.02)
    found = machine.run()
    assert found["b"].failure == "RuntimeError: no kernel"
    assert machine.log.count("b") == 9
    for name in "ac":
        assert found[name].failure is None
        assert len(found[name].rounds) == 6
    assert list(found) == ["a", "b", "c"]


def test_a_row_that_crashes_in_warm_up():
    found = Machine(a=raising(0, MemoryError()), b=0.01).run()
    assert found["a"].failure == "MemoryError"
    assert len(found["b"].rounds) == 6


def test_all_rows_crashing_ends_it():
    machine = Machine(a=raising(0, ValueError("bad")), b=raising(0, ValueError("bad")))
    found = machine.run()
    assert {row.failure for row in found.values()} == {"ValueError: bad"}
    assert machine.log == ["a", "b"]


def test_ctrl_c_before_the_first_round_is_over_passes_through():
    machine = Machine(a=0.01, b=raising(1, KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        machine.run()


def test_ctrl_c_keeps_the_complete_rounds():
    found = Machine(a=0.01, b=raising(9, KeyboardInterrupt())).run()
    assert {row.stopped for row in found.values()} == {"interrupted"}
    lengths = {len(row.rounds) for row in found.values()}
    assert len(lengths) == 1
    assert 1 <= lengths.pop() < 6


def test_reason_is_one_line():
    assert reason(RuntimeError("\n  first\nsecond")) == "RuntimeError: first"
    assert reason(ValueError()) == "ValueError"
    placed = RuntimeError("operator(), /build/ops/kernel.cpp:234, no kernel for 'BFloat16'")
    assert reason(placed) == "RuntimeError: no kernel for 'BFloat16'"


def test_progress_counts_rounds():
    seen = []
    Machine(a=0.01, b=0.02).run(progress=lambda done, total, label: seen.append((done, total)))
    assert seen == sorted(seen)
    assert seen[-1] == (6, 6)
    assert {total for _, total in seen} == {6}


# --- monitor, flags, keeping ---------------------------------------------------------------


def watched(states, protocol=QUICK, **durations):
    machine = Machine(**durations)
    monitor = FakeMonitor([DeviceState(sm_mhz=mhz) for mhz in states])
    return machine, sample(machine.calls, machine.timer, protocol, monitor=monitor), monitor


def test_the_monitor_is_around_the_samples_of_one_row():
    _, found, monitor = watched([1000.0], a=0.01, b=0.02)
    assert monitor.log == ["start", "stop"] * 12
    assert [len(row.states) for row in found.values()] == [6, 6]
    assert all(row.repeated == 0 and not row.flagged for row in found.values())


def test_a_round_with_low_clocks_is_taken_again_for_all_rows():
    _, found, _ = watched([1000.0, 700.0, 1000.0], a=0.01, b=0.02)
    for row in found.values():
        assert (row.repeated, row.flagged, len(row.rounds)) == (1, [], 6)
        assert [state.sm_mhz for state in row.states] == [1000.0] * 6


def test_after_three_repeats_a_round_is_kept_and_flagged():
    _, found, _ = watched([1000.0] * 2 + [700.0] * 8 + [1000.0], a=0.01, b=0.02)
    for row in found.values():
        assert (row.repeated, row.flagged, len(row.rounds)) == (3, [1], 6)
        assert [state.sm_mhz for state in row.states] == [1000.0, 700.0] + [1000.0] * 4


def test_under_a_power_cap_rounds_are_only_flagged_after_a_while() -> None:
    """Three rounds that stayed low through all repeats, and then one try each."""
    _, found, monitor = watched([700.0], a=0.01)
    assert found["a"].flagged == [0, 1, 2, 3, 4, 5]
    assert found["a"].repeated == 2 * 3 + 3
    assert monitor.log.count("stop") == 3 * 4 + 3


def test_only_the_row_whose_clock_stayed_low_is_flagged():
    low = iter([700.0] * 4)

    class OneLow(FakeMonitor):
        def __init__(self, machine):
            super().__init__()
            self.machine = machine

        def stop(self):
            lowered = self.machine.log[-1] == "b"
            return DeviceState(sm_mhz=next(low, 1000.0) if lowered else 1000.0)

    machine = Machine(a=0.01, b=0.02)
    found = sample(machine.calls, machine.timer, QUICK, monitor=OneLow(machine))
    assert (found["a"].flagged, found["b"].flagged) == ([], [0])
    assert {row.repeated for row in found.values()} == {3}


def test_rounds_are_not_repeated_beyond_the_time_limit():
    protocol = replace(QUICK, warmup_iterations=0, max_seconds=10.0, rounds=50)
    machine, found, _ = watched([700.0], protocol, a=1.0)
    assert machine.timer.now() <= 10.0
    assert found["a"].stopped == "time limit"
    assert found["a"].flagged


def test_what_is_around_a_row_is_entered_while_it_runs():
    machine, inside = Machine(a=0.01, b=0.02), []

    @contextmanager
    def around(name):
        inside.append(name)
        yield
        inside.pop()

    calls = {name: lambda name=name: inside.index(name) for name in "ab"}
    found = sample(calls, machine.timer, QUICK, around=around)
    assert all(row.failure is None for row in found.values())
    assert inside == []


def test_all_samples_are_shown_after_every_round_but_the_last():
    machine, seen = Machine(a=0.01, b=0.02), []
    sample(
        machine.calls, machine.timer, QUICK,
        after_round=lambda found: seen.append([len(row.rounds) for row in found.values()]),
    )  # fmt: skip
    assert seen == [[n, n] for n in range(1, 6)]


def test_without_a_spread_to_settle_the_count_is_enough():
    growing = iter(0.001 * 1.1**i for i in range(1000))
    protocol = replace(QUICK, settle_spread=0, warmup_iterations=9)
    found = Machine(a=lambda: next(growing)).run(protocol)["a"]
    assert (found.warmup_calls, found.warmup_settled) == (10, True)
