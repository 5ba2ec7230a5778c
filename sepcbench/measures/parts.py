"""What the parts of a call take, each timed alone in turns with the whole, in a pass of its own."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from sepcbench.detectors import Detector
from sepcbench.engines import Engine
from sepcbench.heads.batched_decode import to_detections
from sepcbench.measures.decoding import Decoder
from sepcbench.measures.sampling import Around, sample
from sepcbench.measures.scopes import Frame, ScopeParts
from sepcbench.measures.timers import Call, Timer
from sepcbench.records import PartTime, Split
from sepcbench.specs import Protocol
from sepcbench.stats import summarise

WHOLE = "whole"
# A pass for shares, not for small differences.
_ROUNDS, _SECONDS, _WARM_UP_S = 20, 60.0, 0.2


class Headed(nn.Module):
    """A head with what it has to know of the images."""

    def __init__(self, head: nn.Module, scene: Any) -> None:
        super().__init__()
        self.head, self.scene = head, scene

    def forward(self, pyramid: Any) -> Any:
        return self.head(pyramid, self.scene)


@torch.no_grad()
def part_calls(
    detector: nn.Module,
    engine: Engine,
    parts: ScopeParts,
    inputs: tuple[Any, ...],
    frame: Frame,
    prepare: Call | None = None,
    *,
    batched: bool = False,
) -> dict[str, Call]:
    """The parts of a scope in the order they run, each on what the ones before it give.

    Args:
        detector: rewritten by `engine`.
        engine: runs every part.
        parts: the scope.
        inputs: of the scope.
        frame: the images.
        prepare: the pre-processing, of a scope that has it.
        batched: the engine runs the decoding too.

    Returns:
        Name to call; empty for a detector that is not one of sepcbench.
    """
    if not isinstance(detector, Detector):
        return {}
    calls: dict[str, Call] = {} if prepare is None else {"pre-processing": prepare}

    def add(name: str, module: nn.Module, given: Any) -> Any:
        calls[name] = engine.run(module, (given,))
        return pytree.tree_map_only(Tensor, torch.clone, module(given))

    value = inputs[0]
    if not parts.from_features:
        value = add("backbone", detector.backbone, value)
    for name, neck in zip(neck_names(detector), detector.necks):
        value = add(name, neck, value)
    if parts.has_head:
        outputs = add("head", Headed(detector.head, frame.scene), value)
    if batched:
        found = engine.run(Decoder(detector, frame), (outputs,))
        calls["decode+nms"] = lambda: to_detections(found())
    elif parts.decodes:
        factors = frame.factors
        calls["decode+nms"] = lambda: detector.decode(outputs, frame.sizes, factors, frame.size)
    return calls


def neck_names(detector: Detector) -> list[str]:
    """The type of each neck, numbered where one comes again: "fpn", "pconv", "pconv#2"."""
    names: list[str] = []
    for spec in detector.spec.necks:
        count = sum(name.partition("#")[0] == spec.TYPE for name in names)
        names.append(f"{spec.TYPE}#{count + 1}" if count else spec.TYPE)
    return names


def split(
    whole: Call,
    calls: dict[str, Call],
    timer: Timer,
    protocol: Protocol,
    around: Around,
) -> Split | None:
    """Time parts in turns with the whole.

    Args:
        whole: the call of the scope.
        calls: its parts, in the order they run.
        timer: the clock.
        protocol: of the whole measurement; this pass is shorter.
        around: entered while a part runs; see `sample`.

    Returns:
        None where there are fewer than two parts.

    Raises:
        RuntimeError: one of them failed; which, and why.
    """
    if len(calls) < 2:
        return None
    short = replace(
        protocol,
        rounds=min(protocol.rounds, _ROUNDS),
        min_rounds=min(protocol.min_rounds, _ROUNDS),
        warmup_iterations=min(protocol.warmup_iterations, 10),
        warmup_seconds=min(protocol.warmup_seconds, _WARM_UP_S),
    ).changed(max_seconds=min(protocol.max_seconds, _SECONDS))
    found = sample({WHOLE: whole, **calls}, timer, short, around=around)
    for name, row in found.items():
        if row.failure is not None:
            raise RuntimeError(f"{name}: {row.failure}")
    summaries = {name: summarise(row.seconds, protocol.seed) for name, row in found.items()}
    times = tuple(PartTime(name, summaries[name].median, summaries[name].ci95) for name in calls)
    return Split(times, summaries[WHOLE].median, sum(part.median_s for part in times))
