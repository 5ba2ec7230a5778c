"""Measuring detectors: scopes, dtypes, failures, ratios and statistics, mostly without timing."""

import math
from dataclasses import replace
from types import SimpleNamespace
from typing import NamedTuple, get_args

import pytest
import torch
from torch import Tensor, nn

from sepcbench import codec, detectors
from sepcbench.engines.engine import Engine, run_eagerly, unchanged
from sepcbench.errors import EngineError, UsageError
from sepcbench.measures import latency as latency_module
from sepcbench.measures.cases import DTYPES, Case, cases_of
from sepcbench.measures.closer import Closer
from sepcbench.measures.latency import Setting, measure, measure_group
from sepcbench.measures.monitor import FakeMonitor
from sepcbench.measures.scopes import SCOPES
from sepcbench.measures.timers import FakeTimer
from sepcbench.records import DeviceState, Failure, Latency, cut_short
from sepcbench.specs import NATIVE, PROTOCOLS, Dtype, Protocol, Scope
from sepcbench.variants import VARIANTS

QUICK = Protocol(
    rounds=20, samples_per_round=3, warmup_iterations=2, warmup_seconds=0.0, max_seconds=1e6
)


SHORT = Protocol(
    rounds=2, samples_per_round=1, warmup_iterations=1, warmup_seconds=0.0, settle_spread=0.0
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

    def __init__(self, timer, name="stub", neck=0.02, mood=lambda: 1.0, error=None, gain=1.0):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.timer, self.neck, self.mood, self.error = timer, neck, mood, error
        self.gain = gain
        self.spec = SimpleNamespace(name=name, conventions=NATIVE)
        self.seen = []

    def __deepcopy__(self, memo):
        """A copy that spends time by the same clock, and is seen by the same watcher."""
        twin = Stub(self.timer, self.spec.name, self.neck, self.mood, self.error, self.gain)
        twin.spec, twin.seen = self.spec, self.seen
        return twin

    def spend(self, seconds):
        self.timer.advance(seconds * self.mood())

    def features(self, images):
        if self.error:
            raise self.error
        flags = (torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32)
        self.seen.append((images.clone(), self.weight.dtype, self.training, flags))
        self.spend(0.1)
        return images

    def fuse(self, features):
        self.spend(self.neck)
        return features * self.gain

    def head(self, pyramid):
        self.spend(0.003)
        return pyramid

    def forward(self, images, scene=None):
        assert scene is None or scene.sizes == [(images.shape[2], images.shape[3])] * len(images)
        return self.head(self.fuse(self.features(images)))

    def decode(self, outputs, image_sizes, scale_factors, padded):
        assert torch.is_inference_mode_enabled()
        self.spend(0.0004)
        assert image_sizes == [padded] * len(outputs)
        assert padded == (outputs.shape[2], outputs.shape[3])
        return [Found(torch.zeros(7)) for _ in outputs]


def run(stubs, timer, **changes):
    settings = {"scope": "forward", "shape": (8, 16), "protocol": QUICK, **changes}
    return measure(stubs, timer=timer, **settings)


@pytest.mark.parametrize(
    ("scope", "seconds"),
    [
        ("neck", 0.02),
        ("neck+head", 0.023),
        ("forward", 0.123),
        ("end-to-end", 0.1234),
        ("pipeline", 0.1234),
    ],
)
def test_each_scope_times_its_stages(scope, seconds):
    timer = FakeTimer()
    found = run({"a": Stub(timer)}, timer, scope=scope, batch=2)["a"]
    assert found.median_s == pytest.approx(seconds)
    assert found.scope == scope
    assert found.detections == (14 if scope in ("end-to-end", "pipeline") else None)


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
    images, dtype, training, _ = a.seen[0]
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


# --- engines, dtypes and batches in one set ------------------------------------------------


def faster(gain=1.0):
    """An engine whose necks take half the time, and give `gain` times what they gave."""

    def rewrite(stub):
        stub.neck, stub.gain = stub.neck / 2, gain
        return stub

    return Engine("faster", rewrite, run_eagerly, preparing="rewriting")


def nowhere(device, dtype):
    raise EngineError(f"engine 'graphed' needs a CUDA device, not '{device}'")


ENGINES_HERE = {
    "eager": Engine("eager", unchanged, run_eagerly),
    "folded": faster(),
    "fused": faster(gain=1.01),
    "graphed": Engine("graphed", unchanged, run_eagerly, check=nowhere),
}


def test_all_conditions_are_cases_of_one_set_per_batch():
    timer = FakeTimer()
    rows = {"a": Stub(timer, "v"), "b": Stub(timer, "w", neck=0.04)}
    found = run(
        rows, timer, scope="neck", engine=["eager", "folded"], dtype=["fp32", "bf16"],
        batch=[1, 2], engines=ENGINES_HERE,
    )  # fmt: skip
    assert len(found) == 16
    assert list(found)[:3] == ["a@eager-fp32-1", "b@eager-fp32-1", "a@folded-fp32-1"]
    one = found["b@folded-bf16-2"]
    assert (one.variant, one.engine, one.dtype, one.batch) == ("w", "folded", "bf16", 2)
    assert len(one.interleaved_with) == 7
    assert one.ratio.to == one.reference == "a@eager-fp32-2"
    assert one.ratio.median == pytest.approx(1.0)
    assert (one.eager_ratio.to, one.eager_ratio.median) == ("b@eager-bf16-2", pytest.approx(0.5))
    assert found["a@eager-fp32-1"].ratio is None
    assert found["a@eager-bf16-1"].eager_ratio is None


def test_without_eager_there_is_no_ratio_to_it():
    timer = FakeTimer()
    found = run({"a": Stub(timer)}, timer, scope="neck", engine="folded", engines=ENGINES_HERE)
    assert found["a"].eager_ratio is None
    assert found["a"].engine_error == 0.0


def test_a_wrong_engine_is_a_failure_and_never_timed():
    timer = FakeTimer()
    found = run(
        {"a": Stub(timer)}, timer, engine=["eager", "fused"], engines=ENGINES_HERE
    )  # fmt: skip
    wrong = found["a@fused-fp32-1"]
    assert isinstance(wrong, Failure)
    assert wrong.measure == "latency@fused-fp32-1"
    assert "other outputs than eager code: relative error 0.01 " in wrong.reason
    assert "above 0.0001" in wrong.reason
    assert found["a@eager-fp32-1"].interleaved_with == ()
    assert found["a@eager-fp32-1"].engine_error is None


def test_an_error_within_the_tolerance_is_recorded():
    timer = FakeTimer()
    found = run({"a": Stub(timer)}, timer, dtype="bf16", engine="fused", engines=ENGINES_HERE)
    assert 0.005 < found["a"].engine_error < 0.02


@pytest.mark.parametrize("engine", ["graphed", ["eager", "graphed"]])
def test_an_engine_that_is_not_for_this_device_is_told_at_once(engine):
    stub = Stub(FakeTimer())
    with pytest.raises(EngineError, match="engine 'graphed' needs a CUDA device, not 'cpu'"):
        run({"a": stub}, stub.timer, engine=engine, dtype=["fp32", "bf16"], engines=ENGINES_HERE)
    assert stub.seen == []


def test_an_engine_that_is_not_for_one_of_the_dtypes_is_a_failure_with_its_line():
    def no_halves(device, dtype):
        if dtype != "fp32":
            raise EngineError(f"engine 'single' computes fp32, not {dtype}")

    timer = FakeTimer()
    engines = {**ENGINES_HERE, "single": Engine("", unchanged, run_eagerly, check=no_halves)}
    rows = {"a": Stub(timer)}
    found = run(rows, timer, engine=["eager", "single"], dtype=["fp32", "bf16"], engines=engines)
    line = "engine 'single' computes fp32, not bf16"
    assert found.pop("a@single-bf16-1") == Failure("stub", "latency@single-bf16-1", line)
    assert all(isinstance(record, Latency) for record in found.values())
    with pytest.raises(EngineError, match=line):
        run(rows, timer, engine="single", dtype="bf16", engines=engines)


def test_what_is_at_work_is_told_before_and_after_the_rounds_too():
    timer, told = FakeTimer(), []
    run(
        {"a": Stub(timer)}, timer, engine=["eager", "folded"], engines=ENGINES_HERE,
        protocol=SHORT, progress=lambda *words: told.append(words),
    )  # fmt: skip
    assert told[:2] == [(0, 2, "preparing a@eager-fp32-1"), (1, 2, "rewriting a@folded-fp32-1")]
    assert told[2] == (0, SHORT.rounds, "warm-up a@eager-fp32-1")
    assert told[-1] == (1, 2, "a closer look at a@folded-fp32-1")


def test_an_engine_that_spoils_its_inputs_is_found_out():
    def spoiling(module, inputs):
        def call():
            outputs = module(*inputs)
            inputs[0].add_(1)
            return outputs

        return call

    engines = {"folded": Engine("spoiling", unchanged, spoiling)}
    timer = FakeTimer()
    found = run({"a": Stub(timer)}, timer, scope="neck", engine="folded", engines=engines)
    assert "other outputs" in found["a"].reason


def test_an_engine_that_is_no_number_is_wrong():
    engines = {"folded": faster(gain=math.nan)}
    timer = FakeTimer()
    found = run({"a": Stub(timer)}, timer, engine="folded", engines=engines)
    assert isinstance(found["a"], Failure)


def test_the_given_modules_stay_as_they_are():
    timer = FakeTimer()
    stub = Stub(timer)
    run({"a": stub}, timer, dtype="bf16", engine="folded", engines=ENGINES_HERE)
    assert (stub.neck, stub.weight.dtype, stub.training) == (0.02, torch.float32, True)


def test_tf32_is_set_for_convs_and_matmuls_while_a_row_runs():
    timer = FakeTimer()
    stub = Stub(timer)
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    found = run({"a": stub}, timer, dtype=["fp32", "tf32"])
    assert {flags for *_, flags in stub.seen} == {(False, False), (True, True)}
    assert (torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32) == before
    assert [row.tf32 for row in found.values()] == [False, True]
    assert {dtype for _, dtype, *_ in stub.seen} == {torch.float32}


def test_several_shapes_are_several_sets():
    timer = FakeTimer()
    found = run({"a": Stub(timer)}, timer, shape=[(8, 16), (16, 16)])
    assert list(found) == ["a@eager-fp32-1-8x16", "a@eager-fp32-1-16x16"]
    assert [row.shape for row in found.values()] == [(8, 16), (16, 16)]
    assert all(row.ratio is None for row in found.values())


def test_every_set_is_kept_as_soon_as_it_is_there():
    timer = FakeTimer()
    kept = []
    run({"a": Stub(timer)}, timer, batch=[1, 2], keep=lambda records: kept.append(list(records)))
    assert kept == [["a@eager-fp32-1"], ["a@eager-fp32-2"]]


def test_complete_rounds_are_given_away_on_the_way(monkeypatch):
    monkeypatch.setattr(latency_module, "KEEP_EVERY_S", 1.0)
    timer, kept = FakeTimer(), []
    cases = cases_of(["a"], ["eager"], ["fp32"], [1], [(8, 16)])
    setting = Setting("forward", "cpu", QUICK, timer=timer)
    measure_group({"a": Stub(timer)}, cases, setting, keep_partly=kept.append)
    rounds = [part["a"].rounds for part in kept]
    assert rounds == sorted(set(rounds))
    assert 3 < len(rounds) < 20
    assert {part["a"].stopped for part in kept} == {"interrupted"}


def test_ctrl_c_in_the_passes_after_the_timing_keeps_the_times(monkeypatch):
    def interrupted(self, ready):
        raise KeyboardInterrupt

    monkeypatch.setattr("sepcbench.measures.closer.Closer.look", interrupted)
    timer = FakeTimer()
    found = run({"a": Stub(timer)}, timer)["a"]
    assert (found.stopped, found.rounds) == ("rounds", 20)
    assert found.notes == ("not looked at: interrupted",)
    assert cut_short([found])


def test_ctrl_c_in_the_passes_after_the_timing_keeps_those_that_were_made(monkeypatch):
    """And no further set of turns is begun."""
    look, seen = Closer.look, []

    def second(self, ready):
        seen.append(ready.case.name)
        if len(seen) == 2:
            raise KeyboardInterrupt
        return look(self, ready)

    monkeypatch.setattr("sepcbench.measures.closer.Closer.look", second)
    timer = FakeTimer()
    rows = {"a": Stub(timer), "b": Stub(timer), "c": Stub(timer)}
    found = run(rows, timer, scope="end-to-end", shape=[(8, 16), (16, 16)])
    assert [record.shape for record in found.values()] == [(8, 16)] * 3
    assert [record.detections for record in found.values()] == [7, None, None]
    untold = ["not looked at: interrupted" in record.notes for record in found.values()]
    assert untold == [False, True, True]


@pytest.mark.parametrize(("extra_s", "measured"), [(math.inf, 2), (0.0, 1)])
def test_parts_and_energy_beyond_the_suites_own_conditions_have_a_budget(extra_s, measured):
    timer = FakeTimer()
    cases = [
        Case("more", "a", "folded", "fp32", 1, (8, 16), "latency@folded-fp32-1"),
        Case("own", "a", "eager", "fp32", 1, (8, 16)),
    ]
    monitor = FakeMonitor([DeviceState(sm_mhz=1000.0)], watts=3.0, clock=timer)
    setting = Setting(
        "forward", "cpu", QUICK, ENGINES_HERE, timer, monitor, extra_s=extra_s
    )  # fmt: skip
    found = measure_group({"a": Stub(timer)}, cases, setting)
    assert found["own"].energy_j == pytest.approx(3 * 0.123)
    assert sum(record.energy_j is not None for record in found.values()) == measured


def test_protocol_mean_and_device_are_recorded():
    timer = FakeTimer()
    good, low = DeviceState(sm_mhz=1000.0), DeviceState(sm_mhz=700.0)
    monitor = FakeMonitor([good, low, good, low, low, low, low, good], watts=3.0, clock=timer)
    protocol = replace(QUICK, rounds=4, name="thorough")
    found = run({"a": Stub(timer)}, timer, protocol=protocol, monitor=monitor, batch=2)["a"]
    assert (found.protocol, found.rounds, found.repeated_rounds) == ("thorough", 4, 4)
    assert found.flagged_rounds == (2,)
    assert [state.sm_mhz for state in found.states] == [1000.0, 1000.0, 700.0, 1000.0]
    assert found.mean_s == pytest.approx(0.123)
    assert found.energy_j == pytest.approx(3.0 * 0.123 / 2)


def test_the_papers_protocol_times_iterations_101_to_300():
    timer = FakeTimer()
    stub = Stub(timer)
    found = run({"a": stub}, timer, scope="pipeline", protocol=PROTOCOLS["paper"])["a"]
    assert (found.warmup_calls, found.rounds, found.samples_per_round) == (100, 20, 10)
    assert sum(map(len, found.samples_s)) == 200
    assert found.mean_s == pytest.approx(0.1234)


def test_the_floor_is_measured_where_it_is_asked_for(one_thread):
    rows = {"a": detectors.build(VARIANTS["retinanet_tiny_fpn"], seed=0)}
    protocol = SHORT
    shape = (64, 64)
    found = measure(rows, scope="forward", shape=shape, floor=True, protocol=protocol)["a"]
    assert found.floor.seconds > 0
    assert found.floor.macs > 1e6


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"engine": "eagre"}, "did you mean 'eager'"),
        ({"flush_l2": True, "scope": "forward"}, "for necks only"),
        ({"flush_l2": True, "scope": "neck"}, "device is 'cpu'"),
        ({"batch": []}, "no batch given"),
    ],
)
def test_what_cannot_be_timed_is_told_at_once(changes, line):
    with pytest.raises(UsageError, match=line):
        run({"a": Stub(FakeTimer())}, FakeTimer(), **changes)


# --- real detectors ------------------------------------------------------------------------

ON_CPU = ("eager", "folded")


@pytest.mark.parametrize("scope", SCOPES)
def test_real_detectors_on_the_cpu(scope, one_thread):
    names = ("retinanet_tiny_fpn", "retinanet_tiny_sepc")
    rows = {name: detectors.build(VARIANTS[name], seed=0) for name in names}
    found = measure(
        rows,
        scope=scope,
        shape=(64, 96),
        engine=ON_CPU,
        split=True,
        protocol=SHORT,
    )
    assert len(found) == 4
    for name, record in found.items():
        assert isinstance(record, Latency), record
        assert record.variant == name.partition("@")[0]
        assert 0 < record.p10_s <= record.median_s <= record.p90_s <= record.p99_s
        assert (record.detections is None) == (scope not in ("end-to-end", "pipeline"))
        assert (record.candidates is None) == (record.detections is None)
        assert (record.engine_error is None) == (record.engine == "eager")
        parts = [part.name for part in record.split.parts] if record.split else []
        assert parts == parts_of(scope, "sepc" in name)
    assert all(detector.training for detector in rows.values())


def parts_of(scope, sepc):
    necks = ["fpn", "sepc"] if sepc else ["fpn"]
    names = {
        "neck": necks,
        "neck+head": [*necks, "head"],
        "forward": ["backbone", *necks, "head"],
        "end-to-end": ["backbone", *necks, "head", "decode+nms"],
        "pipeline": ["pre-processing", "backbone", *necks, "head", "decode+nms"],
    }[scope]
    return names if len(names) > 1 else []


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


@pytest.mark.gpu
def test_engines_on_a_gpu_with_boxes_and_a_network_that_cannot_be_recorded():
    """A two-stage row waits for the device: its graphs fail, all that comes after works."""
    names = ("faster_rcnn_tiny_fpn", "retinanet_tiny_sepc")
    rows = {name: detectors.build(VARIANTS[name], seed=0) for name in names}
    engines = ["eager", "graphed", "fused_graphed"]
    found = measure(
        rows, scope="end-to-end", shape=(256, 256), device="cuda", dtype=["fp32", "fp16"],
        engine=engines, protocol=Protocol(rounds=3, samples_per_round=2, warmup_seconds=0.1),
    )  # fmt: skip
    for name, record in found.items():
        if name.startswith("faster") and "graphed" in name:
            assert isinstance(record, Failure)
            assert "cannot be captured" in record.reason
            continue
        assert isinstance(record, Latency), record
        assert record.detections > 0
        assert (record.peak_bytes is None) == ("graphed" in name)
        assert record.launches > 0
