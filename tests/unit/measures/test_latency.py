"""Measuring detectors: scopes, dtypes, failures, ratios and statistics, mostly without timing."""

from types import SimpleNamespace
from typing import NamedTuple, get_args

import pytest
import torch
from torch import Tensor, nn

from sepcbench import codec, detectors
from sepcbench.engines import ENGINES
from sepcbench.errors import UsageError
from sepcbench.measures.latency import DTYPES, SCOPES, measure
from sepcbench.measures.timers import FakeTimer
from sepcbench.records import Failure, Latency
from sepcbench.specs import Dtype, Protocol, Scope
from sepcbench.variants import VARIANTS

QUICK = Protocol(
    rounds=20, samples_per_round=3, warmup_iterations=2, warmup_seconds=0.0, max_seconds=1e6
)


@pytest.fixture
def one_thread():
    """Small maps: several threads would only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Found(NamedTuple):
    scores: Tensor


class Stub(nn.Module):
    """A detector that only spends virtual time: each stage its own, times the machine's mood."""

    def __init__(self, timer, name="stub", neck=0.02, mood=lambda: 1.0, error=None):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.timer, self.neck, self.mood, self.error = timer, neck, mood, error
        self.spec = SimpleNamespace(name=name)
        self.seen = []

    def spend(self, seconds):
        self.timer.advance(seconds * self.mood())

    def features(self, images):
        if self.error:
            raise self.error
        self.seen.append((images.clone(), self.weight.dtype, self.training))
        assert torch.is_inference_mode_enabled()
        self.spend(0.1)
        return images

    def fuse(self, features):
        self.spend(self.neck)
        return features

    def head(self, pyramid):
        self.spend(0.003)
        return pyramid

    def forward(self, images):
        return self.head(self.fuse(self.features(images)))

    def detect(self, images, image_sizes):
        self.forward(images)
        self.spend(0.0004)
        assert image_sizes == [(images.shape[2], images.shape[3])] * len(images)
        return [Found(torch.zeros(7)) for _ in images]


def run(stubs, timer, **changes):
    settings = {"scope": "forward", "shape": (8, 16), "protocol": QUICK, **changes}
    return measure(stubs, timer=timer, **settings)


@pytest.mark.parametrize(
    ("scope", "seconds"),
    [("neck", 0.02), ("neck+head", 0.023), ("forward", 0.123), ("end-to-end", 0.1234)],
)
def test_each_scope_times_its_stages(scope, seconds):
    timer = FakeTimer()
    found = run({"a": Stub(timer)}, timer, scope=scope, batch=2)["a"]
    assert found.median_s == pytest.approx(seconds)
    assert found.scope == scope
    assert found.detections == (14 if scope == "end-to-end" else None)


def test_tables_and_specs_agree():
    assert set(SCOPES) == set(get_args(Scope))
    assert set(DTYPES) == set(get_args(Dtype))


def test_record_has_every_condition_and_sample():
    timer = FakeTimer()
    rows = {"first": Stub(timer, "v"), "second": Stub(timer, "w", neck=0.04)}
    found = run(rows, timer, dtype="bf16", batch=3)["second"]
    assert (found.variant, found.shape, found.batch) == ("w", (8, 16), 3)
    assert (found.device, found.dtype, found.engine) == ("cpu", "bf16", "eager")
    assert (found.rounds, found.samples_per_round, found.stopped) == (20, 3, "rounds")
    assert [len(taken) for taken in found.samples_s] == [3] * 20
    assert found.interleaved_with == ("first",)
    assert found.warmup_settled
    assert found.warmup_calls == 3
    assert (found.wall_samples_s, found.wall_median_s) == ((), None)
    assert found.device_name
    assert codec.decode(Latency, codec.encode(found)) == found


def test_inputs_are_the_same_for_every_row_and_run():
    timer = FakeTimer()
    a, b, again, other = (Stub(timer) for _ in range(4))
    run({"a": a, "b": b}, timer, dtype="fp16", batch=2)
    run({"a": again}, timer, dtype="fp16", batch=2)
    run({"a": other}, timer, dtype="fp16", batch=2, protocol=Protocol(seed=1, rounds=1))
    images, dtype, training = a.seen[0]
    assert images.shape == (2, 3, 8, 16)
    assert images.dtype == dtype == torch.float16
    assert not training
    assert torch.equal(images, b.seen[0][0])
    assert torch.equal(images, again.seen[-1][0])
    assert not torch.equal(images, other.seen[0][0])


def drifting(seed):
    generator = torch.Generator().manual_seed(seed)
    level = 1.0

    def mood():
        nonlocal level
        level *= 1 + 0.01 * torch.randn(1, generator=generator).item()
        return level * (1 + 0.02 * torch.rand(1, generator=generator).item())

    return mood


def test_a_real_difference_is_resolved_on_a_drifting_machine():
    timer, mood = FakeTimer(), drifting(0)
    rows = {
        "a": Stub(timer, mood=mood),
        "b": Stub(timer, neck=0.0466, mood=mood),
    }
    ratio = run(rows, timer, scope="neck+head")["b"].ratio  # 49.6 ms to 23 ms
    assert ratio.to == "a"
    assert ratio.median == pytest.approx(0.0496 / 0.023, rel=0.05)
    assert ratio.ci95[0] < ratio.median < ratio.ci95[1]
    assert ratio.p20 == pytest.approx(ratio.median, rel=0.1)
    assert ratio.resolved


def test_the_same_thing_twice_is_unresolved():
    timer, mood = FakeTimer(), drifting(1)
    rows = {"a": Stub(timer, mood=mood), "b": Stub(timer, mood=mood)}
    found = run(rows, timer)
    assert found["a"].ratio is None
    assert not found["b"].ratio.resolved
    assert found["b"].ratio.ci95[0] <= 1 <= found["b"].ratio.ci95[1]


def test_a_failing_row_is_a_failure_with_its_reason():
    timer = FakeTimer()
    rows = {
        "a": Stub(timer),
        "b": Stub(timer, "broken", error=RuntimeError("no such op\ntraceback")),
        "c": Stub(timer, neck=0.04),
    }
    found = run(rows, timer)
    assert found["b"] == Failure("broken", "latency", "RuntimeError: no such op")
    assert found["c"].ratio.to == "a"
    assert found["c"].interleaved_with == ("a",)
    assert list(found) == ["a", "b", "c"]


@pytest.mark.parametrize("scope", ["neck", "forward"])  # fails while preparing, while sampling
def test_without_its_reference_a_row_has_no_ratio(scope):
    timer = FakeTimer()
    rows = {"a": Stub(timer, error=RuntimeError("no")), "b": Stub(timer)}
    found = run(rows, timer, scope=scope)
    assert isinstance(found["a"], Failure)
    assert found["b"].ratio is None
    assert found["b"].rounds == 20


def test_all_rows_failing():
    timer = FakeTimer()
    found = run({"a": Stub(timer, error=RuntimeError("no"))}, timer)
    assert found == {"a": Failure("stub", "latency", "RuntimeError: no")}


def test_ctrl_c_passes_through():
    timer = FakeTimer()
    with pytest.raises(KeyboardInterrupt):
        run({"a": Stub(timer, error=KeyboardInterrupt())}, timer)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"scope": "necks"}, "did you mean 'neck'"),
        ({"dtype": "fp61"}, "did you mean 'fp16'"),
        ({"batch": 0}, "at least 1 image"),
        ({"batch": 10**12}, "do not fit on 'cpu'.*smaller --batch"),
    ],
)
def test_bad_conditions(changes, match):
    with pytest.raises(UsageError, match=match):
        run({"a": Stub(FakeTimer())}, FakeTimer(), **changes)


def test_the_engine_is_applied():
    timer = FakeTimer()
    slow = Stub(timer, neck=1.0)
    found = run({"a": Stub(timer)}, timer, scope="neck", run_as=lambda module: slow)["a"]
    assert found.median_s == 1.0


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("scope", SCOPES)
def test_real_detectors_on_the_cpu(scope, engine, one_thread):
    names = ("retinanet_tiny_fpn", "retinanet_tiny_sepc")
    rows = {name: detectors.build(VARIANTS[name]) for name in names}
    found = measure(
        rows,
        scope=scope,
        shape=(64, 96),
        engine=engine,
        run_as=ENGINES[engine],
        protocol=Protocol(rounds=2, samples_per_round=2, warmup_iterations=1, warmup_seconds=0.0),
    )
    for name, record in found.items():
        assert isinstance(record, Latency), record
        assert record.variant == name
        assert 0 < record.p10_s <= record.median_s <= record.p90_s <= record.p99_s
        assert record.ci95_s[0] <= record.ci95_s[1]
        assert (record.detections is None) == (scope != "end-to-end")
    assert found["retinanet_tiny_sepc"].ratio.median > 0
    assert all(detector.training is False for detector in rows.values())


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scope", SCOPES)
def test_real_detectors_on_a_gpu(scope, dtype):
    names = ("retinanet_tiny_fpn", "retinanet_tiny_sepc")
    rows = {name: detectors.build(VARIANTS[name]) for name in names}
    protocol = Protocol(rounds=3, samples_per_round=5, warmup_iterations=3, warmup_seconds=0.1)
    found = measure(
        rows, scope=scope, shape=(256, 256), dtype=dtype, device="cuda", protocol=protocol
    )
    for record in found.values():
        assert isinstance(record, Latency), record
        assert record.wall_median_s > record.median_s > 0
        assert [len(taken) for taken in record.wall_samples_s] == [5] * 3
        assert record.device_name == torch.cuda.get_device_name()
