"""What an engine is, and the parts that several engines share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from sepcbench.errors import EngineError
from sepcbench.specs import Dtype, EngineName
from sepcbench.specs.engines import check_runs_on

Call = Callable[[], Any]
Inputs = tuple[Any, ...]


@dataclass(frozen=True)
class Engine:
    """How a module is made to run for a measurement.

    Attributes:
        about: one line.
        rewrite: from a detector in eval mode, on its device and in its dtype, to one that computes
            the same; it may be changed in place, so it has to be a copy of one's own.
        run: from a module, which is a part of a rewritten detector, and its example inputs
            (tensors in nested lists and tuples) to a call without arguments that gives its
            outputs. These may be overwritten by the next call.
        channels_last: inputs of four dimensions are given in torch.channels_last.
        check: from device and dtype to nothing, or an `EngineError` where it cannot work.
        preparing: what takes its time before the first call, for a progress bar.
        own_memory: calls use memory that torch's counters do not see, or a graph keeps.
        batched_decode: on a GPU it is given the decoding of boxes too, as a module of fixed sizes.
    """

    about: str
    rewrite: Callable[[nn.Module], nn.Module]
    run: Callable[[nn.Module, Inputs], Call]
    channels_last: bool = False
    check: Callable[[str, Dtype], None] = lambda device, dtype: None
    preparing: str = "preparing"
    batched_decode: bool = False
    own_memory: bool = False


def check_engines(engines: Iterable[Engine], device: str, dtypes: Sequence[Dtype]) -> None:
    """Check that every engine works on a device in one of some dtypes, before anything is built.

    An engine that computes some of the dtypes only is no error here.

    Raises:
        EngineError: what one of them says of the first dtype.
    """
    for engine in engines:
        errors = []
        for dtype in dtypes:
            try:
                engine.check(device, dtype)
            except EngineError as error:
                errors.append(error)
        if errors and len(errors) == len(dtypes):
            raise errors[0]


def unchanged(detector: nn.Module) -> nn.Module:
    """The detector as it is."""
    return detector


def run_eagerly(module: nn.Module, inputs: Inputs) -> Call:
    """Call the module op by op."""
    return lambda: module(*inputs)


def to_channels_last(detector: nn.Module) -> nn.Module:
    """The detector with the weights of its convs in torch.channels_last."""
    return detector.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def laid_out(inputs: Inputs) -> Inputs:
    """The same inputs, maps (N, C, H, W) in torch.channels_last."""

    def lay(x: Any) -> Any:
        maps = isinstance(x, Tensor) and x.dim() == 4
        return x.contiguous(memory_format=torch.channels_last) if maps else x

    return pytree.tree_map(lay, inputs)  # type: ignore[no-any-return]


def run_laid_out(module: nn.Module, inputs: Inputs) -> Call:
    """Call the module op by op on inputs in torch.channels_last."""
    return run_eagerly(module, laid_out(inputs))


def needs_cuda(name: EngineName) -> Callable[[str, Dtype], None]:
    """Build the check of an engine that works on CUDA devices only."""
    return lambda device, dtype: check_runs_on(name, device)
