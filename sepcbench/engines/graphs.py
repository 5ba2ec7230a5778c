"""CUDA graphs: a module's kernels recorded once per input shape, and launched together.

At batch 1 a pyramid tower issues hundreds of small kernels, and launching them one by one takes
longer than computing them. A replay reads and writes the addresses that were recorded.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from sepcbench.engines.engine import Call, Inputs, laid_out
from sepcbench.errors import EngineError
from sepcbench.ops.held import holding
from sepcbench.own_modules import tensors

WARM_UPS = 3  # cuDNN and cuBLAS choose kernels and allocate workspaces before the recording

Key = tuple[tuple[tuple[int, ...], tuple[int, ...], torch.dtype, str], ...]


class Recorder(Protocol):
    """What recording needs of a device."""

    def warm_up(self, call: Call, times: int) -> None:
        """Call several times beside the current stream, and wait."""

    def refuse_waits(self, call: Call) -> None:
        """Call once more; a `RuntimeError` where it waits for the device."""

    def new_pool(self) -> object:
        """Memory that several recordings can share."""

    def record(self, call: Call, pool: object) -> tuple[Callable[[], None], Any]:
        """Record a call.

        Returns:
            What replays it, and its outputs, which every replay overwrites.
        """


class CudaRecorder:
    """Records with `torch.cuda.CUDAGraph`."""

    def warm_up(self, call: Call, times: int) -> None:
        """Call several times on a side stream, as recording demands, and wait."""
        _beside(call, times)
        torch.cuda.synchronize()

    def refuse_waits(self, call: Call) -> None:
        """Call once with torch raising at what waits: a recording that breaks off is costly."""
        before = torch.cuda.get_sync_debug_mode()
        torch.cuda.set_sync_debug_mode("error")
        try:
            _beside(call, 1)
        finally:
            torch.cuda.set_sync_debug_mode(before)
        torch.cuda.synchronize()

    def new_pool(self) -> object:
        """A handle of memory that only recordings use."""
        return torch.cuda.graph_pool_handle()

    def record(self, call: Call, pool: object) -> tuple[Callable[[], None], Any]:
        """Record a call on a stream of its own."""
        graph, current = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
        try:
            # other threads, such as one that reads the card's clocks, do not end this recording
            with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):  # type: ignore[arg-type]
                outputs = call()
        except BaseException:
            _clean_up(current, pool)
            raise
        return graph.replay, outputs


def _beside(call: Call, times: int) -> None:
    """Call several times on a side stream."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(times):
            call()
    torch.cuda.current_stream().wait_stream(side)


def _clean_up(current: torch.cuda.Stream, pool: Any) -> None:
    """Undo what torch leaves as it is where a recording breaks off.

    That is: the recording's stream stays the current one, the allocator goes on giving the pool's
    memory to it, and the default generator refuses numbers outside a recording.
    """
    torch.cuda.set_stream(current)
    with suppress(Exception):  # not public, and an error where the recording had been ended
        torch._C._cuda_endAllocateToPool(current.device_index, pool)
    with suppress(Exception):
        generator = torch.cuda.default_generators[current.device_index]
        fresh = torch.Generator(device=current.device)
        fresh.manual_seed(generator.initial_seed())
        generator.graphsafe_set_state(fresh.graphsafe_get_state())


class Pool:
    """Memory shared by recordings: one runs at a time, and what it writes on the way is then free.

    Outputs are kept alive, so that no other recording gets their memory. A pool ends with its last
    recording; a new one is made after that.
    """

    def __init__(self, recorder: Recorder) -> None:
        self.handle = recorder.new_pool()


_POOLS: weakref.WeakValueDictionary[str, Pool] = weakref.WeakValueDictionary()


def shared_pool(recorder: Recorder, device: str) -> Pool:
    """The pool of a device for which there are recordings, or a new one."""
    key = f"{type(recorder).__name__} {device}"
    pool = _POOLS.get(key)
    if pool is None:
        pool = _POOLS[key] = Pool(recorder)
    return pool


def forget(pool: Pool) -> None:
    """Give this pool to no further recording: one that broke off may have spoilt it."""
    for key in [key for key, known in _POOLS.items() if known is pool]:
        del _POOLS[key]


@dataclass(frozen=True)
class Recording:
    """One recorded call.

    Attributes:
        replay: runs it again.
        inputs: the tensors it reads.
        outputs: what it gives, overwritten by every replay.
        module: whose weights it reads; kept alive, since it only knows their addresses.
        pool: its memory.
        held: what it reads that belongs to a cache.
    """

    replay: Callable[[], None]
    inputs: list[Tensor]
    outputs: Any
    module: nn.Module
    pool: Pool
    held: list[Tensor] = field(default_factory=list)


class Graphed:
    """A module that is recorded for each shape of its inputs, and replayed.

    Outputs hold until the next call with inputs of the same shape.

    Args:
        module: whose work depends on nothing but its inputs, and waits for nothing.
        recorder: of the device.
    """

    def __init__(self, module: nn.Module, recorder: Recorder | None = None) -> None:
        self.module = module
        self.recorder: Recorder = recorder or CudaRecorder()
        self.recordings: dict[Key, Recording] = {}

    def __call__(self, *inputs: Any) -> Any:
        """Copy the inputs to where the recording reads them, and replay."""
        key = shapes_of(inputs)
        if key not in self.recordings:
            copied = pytree.tree_map_only(Tensor, torch.clone, inputs)
            self.recordings[key] = self.record(copied)
        recording = self.recordings[key]
        for static, given in zip(recording.inputs, tensors(inputs), strict=True):
            static.copy_(given)
        recording.replay()
        return recording.outputs

    def record(self, inputs: Inputs) -> Recording:
        """Record the module on these very tensors, which replays read.

        Raises:
            EngineError: the module waits for the device, so that it cannot be recorded.
        """
        read = tensors(inputs)
        pool = shared_pool(self.recorder, str(read[0].device) if read else "")

        def call() -> Any:
            return self.module(*inputs)

        try:
            self.recorder.warm_up(call, WARM_UPS)
            self.recorder.refuse_waits(call)
            with holding() as held:
                replay, outputs = self._record(call, pool)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            raise EngineError(
                f"{type(self.module).__name__} cannot be captured in a CUDA graph, as what waits "
                f"for the device cannot ({' '.join(str(error).split())[:200]}); use --scope neck "
                "or an engine without graphs"
            ) from error
        return Recording(replay, read, outputs, self.module, pool, held)

    def _record(self, call: Call, pool: Pool) -> tuple[Callable[[], None], Any]:
        try:
            return self.recorder.record(call, pool.handle)
        except BaseException:
            forget(pool)
            raise


def shapes_of(inputs: Inputs) -> Key:
    """Shape, strides, dtype and device of every tensor: what a recording is made for."""
    return tuple((tuple(x.shape), x.stride(), x.dtype, str(x.device)) for x in tensors(inputs))


def run_graphed(module: nn.Module, inputs: Inputs, recorder: Recorder | None = None) -> Call:
    """Record the module on its example inputs; the call replays and copies nothing."""
    recording = Graphed(module, recorder).record(inputs)

    def call() -> Any:
        recording.replay()
        return recording.outputs

    return call


def run_graphed_laid_out(module: nn.Module, inputs: Inputs) -> Call:
    """`run_graphed` on inputs in torch.channels_last."""
    return run_graphed(module, laid_out(inputs))
