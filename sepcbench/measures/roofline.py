"""The roofline: how fast a call could be at best on this device.

Arithmetic over the rate of a large matmul, memory traffic over the rate of a large copy; both
rates are measured here, on the same device and in the same dtype, and are the best of several
tries: a floor is to be one. Traffic is that of the network as it is written. An engine that reads
a map once for several convs, or that keeps maps in a cache, can have less.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache
from math import prod
from typing import Any, NamedTuple

import torch
import torchvision  # noqa: F401  (registers torch.ops.torchvision)
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from sepcbench.measures.cases import DTYPES
from sepcbench.measures.environment import float32
from sepcbench.measures.timers import Call, timer_for
from sepcbench.records import Floor
from sepcbench.specs import Dtype

Progress = Callable[[int, int, str], None]

# Sides of square matmuls, from small to large: on a CPU as far as the time goes.
_SIDES = {"cpu": (256, 512, 1024, 2048), "cuda": (2048, 4096, 8192)}
# What is copied is larger than any cache, and leaves room for what else is on the device.
_COPY_BYTES = {"cpu": 2**27, "cuda": 2**30}
_SECONDS = 0.5  # for the matmuls of one side, and for the copies; first calls load kernels
_TRIES = 5


class Rates(NamedTuple):
    """What a device does at best: multiply-adds, and bytes read plus bytes written, per second."""

    macs_per_s: float
    bytes_per_s: float


# --- the device ----------------------------------------------------------------------------


def rates(device: str, dtype: Dtype, *, progress: Progress | None = None) -> Rates:
    """Measure the rates of a device; once per process, device, dtype and number of threads.

    Takes about a second. Matmuls of "tf32" may use TF32, those of "fp32" may not.

    Args:
        device: "cpu", "cuda" or "cuda:INDEX".
        dtype: of the matmul.
        progress: told of (done, steps, label).
    """
    threads = torch.get_num_threads()
    if progress:
        progress(0, 2, f"matmul rate of {dtype}")
    macs = _macs_per_s(device, dtype, threads)
    if progress:
        progress(1, 2, "copy rate")
    return Rates(macs, _bytes_per_s(device, threads))


@cache
def _macs_per_s(device: str, dtype: Dtype, threads: int) -> float:
    best, kind = 0.0, device.partition(":")[0]
    with torch.inference_mode(), float32(dtype == "tf32"):
        for side in _SIDES[kind]:
            taken = _fastest(device, _matmul(side, device, DTYPES[dtype]))
            best = max(best, side**3 / taken)
            # the next side takes 8 times as long; it is tried once to warm up, then again
            if kind == "cpu" and 2 * 8 * taken > _SECONDS:
                break
    return best


def _matmul(side: int, device: str, dtype: torch.dtype) -> Call:
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    out = torch.empty_like(a)
    return lambda: torch.mm(a, b, out=out)


@cache
def _bytes_per_s(device: str, threads: int) -> float:
    size = _COPY_BYTES[device.partition(":")[0]]
    if device.startswith("cuda"):
        size = min(size, torch.cuda.mem_get_info(torch.device(device))[0] // 4)
    source = torch.zeros(size, dtype=torch.uint8, device=device)
    target = torch.zeros_like(source)
    return 2 * size / _fastest(device, lambda: target.copy_(source))


def _fastest(device: str, call: Call) -> float:
    """Seconds of the fastest of several calls, after one to warm up; fewer where they are slow."""
    timer = timer_for(device)
    timer.time(call)
    begin = timer.now()
    times = [timer.time(call).seconds]
    while len(times) < _TRIES and timer.now() - begin < _SECONDS / 2:
        times.append(timer.time(call).seconds)
    return max(min(times), 1e-9)


# --- the network ---------------------------------------------------------------------------


def floor(macs: int, bytes: int, rates: Rates) -> Floor:
    """The least time for so much arithmetic and traffic at these rates."""
    seconds = max(macs / rates.macs_per_s, bytes / rates.bytes_per_s)
    return Floor(macs, bytes, rates.macs_per_s, rates.bytes_per_s, seconds)


def traffic(module: nn.Module | Callable[..., Any], args: tuple[Any, ...]) -> tuple[int, int]:
    """Run a module once; count what its convs, deformable convs and linear layers do.

    Args:
        module: eager, on the device and in the dtype of its arguments.
        args: its arguments, with the batch.

    Returns:
        Multiply-adds; and bytes: every weight and bias once, and what each of those layers reads
        (its input, and the offsets and mask of a deformable conv) and writes.
    """
    with torch.no_grad(), _Traffic() as counted:
        module(*args)
    return counted.macs, counted.bytes


class _Traffic(TorchDispatchMode):
    """Sees every operation that is run, whichever module or function it comes from."""

    def __init__(self) -> None:
        super().__init__()
        self.macs = self.bytes = 0
        self._weights: dict[tuple[int, int, int], Any] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        operation = OPERATIONS.get(func.overloadpacket)
        if operation is None and torch.is_inference_mode_enabled():
            with suppress(NotImplementedError), self:  # what other modes get split into parts
                parts = func.decompose(*args, **(kwargs or {}))
                if parts is not NotImplemented:
                    return parts
        out = func(*args, **(kwargs or {}))
        if operation is not None:
            macs, reads, weights = operation(args, out)
            self.macs += macs
            self.bytes += sum(_bytes(one) for one in (*reads, out) if one is not None)
            self._read_weights(weights)
        return out

    def _read_weights(self, weights: tuple[Tensor | None, ...]) -> None:
        for one in weights:
            if one is None:
                continue
            storage = one.untyped_storage()  # kept: the place of one that is freed is used again
            key = (storage._cdata, int(one.storage_offset()), one.numel())
            if key not in self._weights:
                self._weights[key] = storage
                self.bytes += _bytes(one)


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


Operation = tuple[int, tuple[Tensor | None, ...], tuple[Tensor | None, ...]]


def _conv(args: Any, out: Tensor) -> Operation:
    """(x, weight (out, in / groups, kh, kw), bias, stride, padding, dilation, transposed, ...)."""
    x, weight, bias, *_ = args
    cells = x if len(args) > 6 and args[6] else out
    return cells.numel() * prod(weight.shape[1:]), (x,), (weight, bias)


def _deformable(args: Any, out: Tensor) -> Operation:
    """(x, weight (out, in / groups, kh, kw), offset, mask, bias, ..., whether there is a mask)."""
    x, weight, offset, mask, bias, *_ = args
    return out.numel() * prod(weight.shape[1:]), (x, offset, mask), (weight, bias)


def _product(first: int) -> Callable[[Any, Tensor], Operation]:
    """(..., n, k) times (..., k, m), a weight; what is added to it may come before."""

    def operation(args: Any, out: Tensor) -> Operation:
        a, b = args[first : first + 2]
        return out.numel() * a.shape[-1], (a,), (b, *args[:first])

    return operation


def _linear(args: Any, out: Tensor) -> Operation:
    """(x, weight (out, in), bias)."""
    x, weight, *bias = args
    return out.numel() * weight.shape[-1], (x,), (weight, *bias)


OPERATIONS: dict[Any, Callable[[Any, Tensor], Operation]] = {
    torch.ops.aten.convolution: _conv,
    torch.ops.torchvision.deform_conv2d: _deformable,
    torch.ops.aten.mm: _product(0),
    torch.ops.aten.bmm: _product(0),
    torch.ops.aten.addmm: _product(1),
    torch.ops.aten.baddbmm: _product(1),
    torch.ops.aten.linear: _linear,
}
