"""A pass with the profiler: what was launched on a GPU, and how much of the time it worked.

Never while timing: tracing slows launches down.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import median
from typing import Any, NamedTuple

import torch
from torch.utils._pytree import tree_leaves

from sepcbench.measures.timers import Call, timer_for

_CALLS = 5
_WARMUP = 3
# What a host calls to start kernels; of a CUDA graph one call starts them all.
_LAUNCHES = tuple(
    api + what
    for api in ("cuda", "cu")
    for what in ("LaunchKernel", "LaunchCooperativeKernel", "GraphLaunch")
)
_COPIES = ("Memcpy", "Memset")


class Event(NamedTuple):
    """One thing of a trace: on the GPU a kernel or copy, on the host a call of CUDA; in seconds."""

    name: str
    on_gpu: bool
    start_s: float
    end_s: float


def launches(call: Call, device: str) -> tuple[int | None, float | None]:
    """Trace a few calls.

    The share is the time that kernels and copies ran, overlaps once, over the time of the same
    call without the profiler.

    Args:
        call: what to run.
        device: "cpu", "cuda" or "cuda:INDEX".

    Returns:
        Launches from the host per call (a CUDA graph is one), and the share of the time that the
        GPU was busy, at most 1; (None, None) on a CPU, or where the profiler sees no GPU.
    """
    if not device.startswith("cuda"):
        return None, None
    events = trace(call, device)
    if not any(event.on_gpu for event in events):
        return None, None
    timer = timer_for(device)
    seconds = median(timer.time(call).seconds for _ in range(_CALLS))
    return round(count_launches(events) / _CALLS), min(1.0, busy_s(events) / _CALLS / seconds)


def kernel_seconds(call: Call, device: str) -> float | None:
    """Time that kernels take in one call, added up; None on a CPU."""
    if not device.startswith("cuda"):
        return None
    return sum(e.end_s - e.start_s for e in trace(call, device) if e.on_gpu) / _CALLS


def trace(call: Call, device: str) -> list[Event]:
    """What the profiler sees of `_CALLS` calls, after some to warm up."""
    from torch.profiler import ProfilerActivity, profile

    def synchronise() -> None:
        if device.startswith("cuda"):
            torch.cuda.synchronize(torch.device(device))

    for _ in range(_WARMUP):
        call()
    synchronise()
    activities = [ProfilerActivity.CPU]
    activities += [ProfilerActivity.CUDA] if device.startswith("cuda") else []
    with profile(activities=activities) as traced:
        for _ in range(_CALLS):
            call()
            synchronise()
    return [Event(e.name, _on_gpu(e), *_range(e)) for e in traced.events() or ()]


def count_launches(events: Iterable[Event]) -> int:
    """Calls of the host that start kernels; the kernels themselves where no such call is seen."""
    events = list(events)
    calls = sum(not e.on_gpu and e.name.startswith(_LAUNCHES) for e in events)
    return calls or sum(e.on_gpu and not e.name.startswith(_COPIES) for e in events)


def busy_s(events: Iterable[Event]) -> float:
    """Seconds in which at least one thing ran on the GPU."""
    return union_s([(e.start_s, e.end_s) for e in events if e.on_gpu])


def union_s(intervals: Sequence[tuple[float, float]]) -> float:
    """Length of the union of intervals (start, end), in any order."""
    total, reached = 0.0, float("-inf")
    for start, end in sorted(intervals):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total


def peak_bytes(call: Call, device: str, own: int = 0) -> int | None:
    """The most memory that a call needs at once; None on a CPU.

    It is what the call adds to what lies on the card anyway (the other rows' weights among it), so
    what a CUDA graph has kept for itself since its capture is not in it: an engine with
    `own_memory` has no such number.

    Args:
        call: what to run.
        device: "cpu", "cuda" or "cuda:INDEX".
        own: bytes that the call needs all the time, by `tensor_bytes`; they are added.
    """
    if not device.startswith("cuda"):
        return None
    where = torch.device(device)
    torch.cuda.synchronize(where)
    before = torch.cuda.memory_allocated(where)
    torch.cuda.reset_peak_memory_stats(where)
    call()
    torch.cuda.synchronize(where)
    return own + max(0, int(torch.cuda.max_memory_allocated(where)) - int(before))


def tensor_bytes(*things: Any) -> int:
    """Bytes of all tensors in modules (weights, buffers) and nested inputs, each storage once."""
    storages = {}
    for thing in things:
        module = isinstance(thing, torch.nn.Module)
        for leaf in (*thing.parameters(), *thing.buffers()) if module else tree_leaves(thing):
            if isinstance(leaf, torch.Tensor):
                storage = leaf.untyped_storage()
                storages[storage._cdata] = storage.nbytes()
    return sum(storages.values())


def _on_gpu(event: object) -> bool:
    """Kernels and copies; an annotation of code spans the gaps between its kernels too."""
    from torch.autograd import DeviceType

    annotation = getattr(event, "is_user_annotation", False)
    return getattr(event, "device_type", None) == DeviceType.CUDA and not annotation


def _range(event: object) -> tuple[float, float]:
    span = event.time_range  # type: ignore[attr-defined]  # in microseconds
    return span.start * 1e-6, span.end * 1e-6
