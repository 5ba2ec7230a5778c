"""The parts of a call: which there are, what they give, and their sum against the whole."""

from dataclasses import replace

import pytest
import torch

from sepcbench import detectors
from sepcbench.engines import ENGINES
from sepcbench.measures.parts import neck_names, part_calls, split
from sepcbench.measures.scopes import SCOPES, Frame
from sepcbench.measures.timers import FakeTimer
from sepcbench.specs import Protocol
from sepcbench.variants import variant

PROTOCOL = Protocol(rounds=4, samples_per_round=2, warmup_iterations=2, warmup_seconds=0.0)
FRAME = Frame((64, 64), 1)


def nothing(name):
    from contextlib import nullcontext

    return nullcontext()


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("engine", ["eager", "channels_last"])
def test_the_last_part_gives_what_the_whole_gives(scope, engine):
    detector = detectors.build(variant("retinanet_tiny_sepc"), seed=0).eval()
    parts, images = SCOPES[scope], torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        inputs = (detector.features(images),) if parts.from_features else (images,)
        whole = parts.module(detector, FRAME)(*inputs)
        calls = part_calls(detector, ENGINES[engine], parts, inputs, FRAME)
        last = list(calls.values())[-2 if parts.decodes else -1]()
        boxes = calls["decode+nms"]() if parts.decodes else []
    pairs = zip(torch.utils._pytree.tree_leaves(last), torch.utils._pytree.tree_leaves(whole))
    for found, expected in pairs:
        assert found is expected is None or torch.allclose(found, expected, atol=1e-5)
    assert len(boxes) == (1 if parts.decodes else 0)


def test_necks_of_one_type_are_numbered():
    spec = variant("retinanet_tiny_pconv")
    detector = detectors.build(spec, seed=0)
    fpn, pconv = spec.necks
    detector.spec = replace(spec, necks=(fpn, pconv, pconv))
    assert neck_names(detector) == [fpn.TYPE, pconv.TYPE, f"{pconv.TYPE}#2"]


def test_parts_are_timed_in_turns_and_add_up():
    timer = FakeTimer()
    calls = {name: lambda s=s: timer.advance(s) for name, s in {"fpn": 0.2, "head": 0.5}.items()}
    found = split(lambda: timer.advance(0.8), calls, timer, PROTOCOL, nothing)
    assert [part.name for part in found.parts] == ["fpn", "head"]
    assert [part.median_s for part in found.parts] == pytest.approx([0.2, 0.5])
    assert (found.sum_s, found.whole_s) == (pytest.approx(0.7), pytest.approx(0.8))


def test_one_part_is_no_split_and_a_broken_one_says_why():
    timer = FakeTimer()

    def broken():
        raise RuntimeError("no")

    fine = {"fpn": lambda: timer.advance(1)}
    assert split(fine["fpn"], fine, timer, PROTOCOL, nothing) is None
    with pytest.raises(RuntimeError, match="head: RuntimeError: no"):
        split(fine["fpn"], {**fine, "head": broken}, timer, PROTOCOL, nothing)


def test_a_module_of_others_has_no_parts():
    conv = torch.nn.Conv2d(3, 3, 1)
    assert part_calls(conv, ENGINES["eager"], SCOPES["forward"], (None,), FRAME) == {}
