"""Making a case ready: is it what eager code computes, and are boxes those of the plain decode."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from sepcbench import detectors
from sepcbench.engines import ENGINES
from sepcbench.engines.engine import Engine, run_eagerly, unchanged
from sepcbench.errors import EngineError
from sepcbench.heads.batched_decode import Padded
from sepcbench.measures import closer as closer_module
from sepcbench.measures import decoding
from sepcbench.measures.cases import Case
from sepcbench.measures.correctness import check_outputs
from sepcbench.measures.latency import measure
from sepcbench.measures.parts import part_calls
from sepcbench.measures.preparation import Bench
from sepcbench.measures.scopes import SCOPES
from sepcbench.specs import NATIVE, Protocol
from sepcbench.variants import VARIANTS

SHAPE = (64, 96)
ONCE = Protocol(
    rounds=1, samples_per_round=1, warmup_iterations=1, warmup_seconds=0.0, settle_spread=0.0
)


@pytest.fixture(autouse=True)
def one_thread():
    """Small maps: several threads would only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def case_of(engine="fused", dtype="fp32", batch=1, row="a"):
    return Case(row, row, engine, dtype, batch, SHAPE)


# --- correctness ---------------------------------------------------------------------------


class Coarse(nn.Module):
    """A network that loses `lost` of its values in half precision, as deep ones do."""

    def __init__(self, lost):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.lost, self.seen = lost, []
        self.spec = SimpleNamespace(name="coarse", conventions=NATIVE)

    def forward(self, images, scene=None):
        self.seen.append(images.dtype)
        kept = 1.0 if images.dtype == torch.float32 else 1 - self.lost
        return images * self.weight * kept


def giving(gain):
    """An engine whose outputs are `gain` times the inputs."""
    return Engine("", unchanged, lambda module, inputs: lambda: inputs[0] * gain)


def made_ready(lost, gain, dtype):
    bench = Bench("forward", "cpu", 0, {"fused": giving(gain)})
    detector = Coarse(lost)
    return bench, detector, bench.ready(detector, case_of(dtype=dtype))


@pytest.mark.parametrize("dtype", ["fp16", "bf16"])
@pytest.mark.parametrize(
    ("lost", "gain"),
    [
        (0.0, 0.99),  # within the tolerance of eager
        (0.04, 0.90),  # 0.06 off eager, which is 0.04 off float32
        (0.05, 1.0),  # 0.05 off eager, but right
        (0.9, 1.0),  # far off eager, which is wrong itself
    ],
)
def test_half_precision_is_held_to_what_eager_code_rounds(lost, gain, dtype):
    made = made_ready(lost, gain, dtype)[2]
    assert made.error == pytest.approx(abs(gain - (1 - lost)) / (1 - lost), abs=0.01)


@pytest.mark.parametrize("dtype", ["fp16", "bf16", "tf32", "fp32"])
@pytest.mark.parametrize(("lost", "gain"), [(0.0, 0.95), (0.04, 0.8), (0.9, 0.3), (0.0, 1.2)])
def test_what_is_neither_near_eager_nor_near_float32_is_wrong(lost, gain, dtype):
    with pytest.raises(EngineError, match="gives other outputs than eager code: relative error"):
        made_ready(lost, gain, dtype)


def test_float32_is_computed_once_per_row_and_dtype():
    bench, detector, _ = made_ready(0.04, 0.90, "bf16")
    bench.ready(detector, case_of(dtype="bf16"))
    assert list(bench._exact) == [("a", "bf16")]
    bench.ready(detector, case_of(dtype="fp16"))
    assert list(bench._exact) == [("a", "bf16"), ("a", "fp16")]


def test_float32_is_not_computed_where_eager_code_is_near():
    assert made_ready(0.0, 0.99, "bf16")[0]._exact == {}


def test_weights_and_inputs_of_float32_are_those_rounded():
    """0.1 is 0.0999 in float16: what rounding did to weights is no error of the engine."""
    bench, detector = Bench("forward", "cpu", 0, {"fused": giving(1.0)}), Coarse(0.0)
    nn.init.constant_(detector.weight, 0.1)
    with torch.no_grad():
        inputs = (torch.ones(1, 3, *SHAPE, dtype=torch.float16),)
        found = bench.exact(detector, case_of(dtype="fp16"), inputs)
    assert found.unique().item() == float(torch.tensor(0.1, dtype=torch.float16))


def test_an_eager_network_without_numbers_is_no_measure():
    wrong, right = torch.full((2,), torch.nan), torch.ones(2)
    with pytest.raises(EngineError):
        check_outputs(right * 2, wrong, case_of(dtype="fp16"), lambda: right)
    check_outputs(right, wrong, case_of(dtype="fp16"), lambda: right)


def test_spoilt_inputs_are_not_left_to_the_next_case():
    def spoiling(module, inputs):
        return lambda: inputs[0].add_(1)

    engines = {"fused": Engine("", unchanged, spoiling), "eager": ENGINES["eager"]}
    bench, detector = Bench("forward", "cpu", 0, engines), Coarse(0.0)
    clean = bench.ready(detector, case_of("eager")).inputs[0].clone()
    with pytest.raises(EngineError):
        bench.ready(detector, case_of())
    assert torch.equal(bench.ready(detector, case_of("eager")).inputs[0], clean)


# --- a rewrite that loses the norms --------------------------------------------------------


def without_norms(detector):
    for parent in list(detector.modules()):
        for name, child in list(parent.named_children()):
            if hasattr(child, "running_mean"):
                setattr(parent, name, nn.Identity())
    return detector


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("name", ["retinanet_tiny_fpn", "retinanet_tiny_sepc"])
def test_an_engine_that_loses_untrained_norms_fails(name, dtype):
    engines = {**ENGINES, "fused": Engine("", without_norms, run_eagerly)}
    bench, detector = Bench("forward", "cpu", 0, engines), detectors.build(VARIANTS[name], seed=0)
    with torch.inference_mode():
        bench.ready(detector.eval(), case_of("folded", dtype))
        with pytest.raises(EngineError):
            bench.ready(detector, case_of("fused", dtype))


# --- decoding within the engine ------------------------------------------------------------

IN_ONE = ("retinanet_tiny_fpn", "fcos_tiny_sepc_lite", "reppoints_tiny_fpn")


def decoded_both_ways(name, scope, batch=2, engine="fused"):
    detector = detectors.build(VARIANTS[name], seed=0)
    case = case_of(engine, batch=batch)
    ways = [Bench(scope, "cpu", 0, ENGINES, batched=on) for on in (False, True)]
    with torch.inference_mode():
        return [bench.ready(detector, case) for bench in ways]


@pytest.mark.parametrize("scope", ["end-to-end", "pipeline"])
@pytest.mark.parametrize("name", IN_ONE)
def test_boxes_of_one_module_are_those_of_the_plain_decode(name, scope):
    plain, one = decoded_both_ways(name, scope)
    assert (plain.boxed, one.notes) == (None, ())
    assert one.boxed is not None
    with torch.inference_mode():
        wanted, found = plain.call(), one.call()
        assert len(wanted) == 2
        for a, b in zip(found, wanted, strict=True):
            assert len(b.scores) > 10
            assert torch.equal(a.labels, b.labels)
            torch.testing.assert_close(a.boxes, b.boxes, atol=1e-3, rtol=1e-4)
            torch.testing.assert_close(a.scores, b.scores)
        torch.testing.assert_close(one.run(), plain.run())
        assert one.boxed.found().exact.all()


@pytest.mark.parametrize("scope", ["forward", "neck"])
def test_without_boxes_nothing_is_decoded(scope):
    assert [made.boxed for made in decoded_both_ways(IN_ONE[0], scope, 1)] == [None, None]


def test_by_default_it_is_done_on_a_gpu_by_the_fused_engines_alone():
    module = detectors.build(VARIANTS[IN_ONE[0]], init=False)
    on = {
        (device, name)
        for device in ("cpu", "cuda", "cuda:1")
        for name, engine in ENGINES.items()
        if Bench("end-to-end", device, 0, ENGINES).decodes_batched(module, engine)[0]
    }
    assert on == {(d, e) for d in ("cuda", "cuda:1") for e in ("fused", "fused_graphed")}


def test_a_head_that_cannot_is_decoded_plainly_with_a_note():
    module = detectors.build(VARIANTS["faster_rcnn_tiny_fpn"], init=False)
    bench = Bench("end-to-end", "cuda", 0, ENGINES)
    on, notes = bench.decodes_batched(module, ENGINES["fused"])
    assert not on
    assert "decoded plainly: RcnnHead is no dense head" in notes[0]


def decoding_that_changes(monkeypatch, change):
    forward = decoding.Decoder.forward
    monkeypatch.setattr(
        decoding.Decoder, "forward", lambda self, outputs: change(forward(self, outputs))
    )


def test_what_is_not_known_to_be_exact_is_told(monkeypatch):
    decoding_that_changes(
        monkeypatch, lambda found: found._replace(exact=torch.zeros_like(found.exact))
    )
    assert "decoded approximately" in decoded_both_ways(IN_ONE[0], "end-to-end")[1].notes[0]


@pytest.mark.parametrize(
    "change",
    [
        lambda found: found._replace(counts=found.counts // 2),
        lambda found: found._replace(scores=found.scores * 0.5),
    ],
)
def test_other_boxes_are_an_error(monkeypatch, change):
    decoding_that_changes(monkeypatch, change)
    with pytest.raises(EngineError, match="finds other boxes than the plain decode"):
        decoded_both_ways(IN_ONE[0], "end-to-end")


def test_an_engine_gets_network_and_decoding_as_one_module():
    """What a CUDA graph is recorded of: its outputs are raw predictions and boxes."""
    seen = []

    def run(module, inputs):
        seen.append(module(*inputs))
        return run_eagerly(module, inputs)

    engines = {"fused": replace(ENGINES["fused"], run=run)}
    bench = Bench("end-to-end", "cpu", 0, engines, batched=True)
    made = bench.ready(detectors.build(VARIANTS[IN_ONE[0]], seed=0), case_of())
    ((outputs, found),) = seen
    assert isinstance(found, Padded)
    assert len(outputs) == 5
    calls = part_calls(
        made.detector, made.engine, SCOPES["end-to-end"], made.inputs, made.frame, batched=True
    )
    assert list(calls) == ["backbone", "fpn", "head", "decode+nms"]
    assert isinstance(seen[-1], Padded)
    a, b = calls["decode+nms"]()[0], made.call()[0]
    assert torch.equal(a.scores, b.scores)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["fp32", "fp16"])
@pytest.mark.parametrize("scope", ["end-to-end", "pipeline"])
def test_one_graph_holds_network_decoding_and_nms(scope, dtype):
    """As many boxes as eager code finds, from a handful of launches, with nothing to note."""
    rows = {name: detectors.build(VARIANTS[name], seed=0) for name in IN_ONE}
    found = measure(
        rows,
        scope=scope,
        shape=(256, 256),
        batch=2,
        dtype=dtype,
        device="cuda",
        engine=["eager", "fused_graphed"],
        protocol=replace(ONCE, rounds=3),
        split=True,
    )
    for name in IN_ONE:
        eager, one = (found[f"{name}@{e}-{dtype}-2"] for e in ("eager", "fused_graphed"))
        assert one.notes == eager.notes == ()
        assert abs(one.detections - eager.detections) <= 2 + 0.05 * eager.detections
        assert scope == "pipeline" or one.launches <= 3
        assert one.launches < eager.launches / 10
        assert one.split.parts[-1].name == "decode+nms"


# --- passes of their own -------------------------------------------------------------------


def test_a_pass_that_fails_leaves_its_reason(monkeypatch):
    def broken(*args):
        raise RuntimeError("profiler is off\nmore")

    monkeypatch.setattr(closer_module, "launches", broken)
    detector = detectors.build(VARIANTS[IN_ONE[0]], seed=0)
    found = measure({"a": detector}, scope="neck", shape=SHAPE, protocol=ONCE)["a"]
    assert found.notes == ("no launches: RuntimeError: profiler is off",)
    assert found.launches is None


def test_a_part_that_fails_leaves_its_name_and_reason(monkeypatch):
    def broken(*args, **kwargs):
        def call():
            raise RuntimeError("no kernel for this")

        return {"backbone": lambda: None, "head": call}

    monkeypatch.setattr(closer_module, "part_calls", broken)
    detector = detectors.build(VARIANTS[IN_ONE[0]], seed=0)
    found = measure({"a": detector}, scope="forward", shape=SHAPE, split=True, protocol=ONCE)["a"]
    assert found.split is None
    assert found.notes == ("no parts: RuntimeError: head: RuntimeError: no kernel for this",)


def test_memory_is_what_a_call_adds_and_what_it_owns(monkeypatch):
    owned = []
    monkeypatch.setattr(closer_module, "peak_bytes", lambda call, device, own: owned.append(own))
    detector = detectors.build(VARIANTS[IN_ONE[0]], seed=0)
    measure({"a": detector}, scope="forward", shape=SHAPE, protocol=ONCE)
    weights = sum(x.numel() * x.element_size() for x in detector.state_dict().values())
    assert owned == [weights + 3 * SHAPE[0] * SHAPE[1] * 4]
