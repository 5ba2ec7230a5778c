"""Engines: how a module is made to run for a measurement.

To add one: its name in `sepcbench.specs.names`, its note in `sepcbench.specs.engines`, an entry in
`ENGINES`.
"""

from __future__ import annotations

from torch import nn

from sepcbench.engines.compiling import check_compiler, run_compiled
from sepcbench.engines.engine import (
    Call,
    Engine,
    check_engines,
    needs_cuda,
    run_eagerly,
    run_laid_out,
    to_channels_last,
    unchanged,
)
from sepcbench.engines.folding import fold
from sepcbench.engines.graphs import run_graphed, run_graphed_laid_out
from sepcbench.engines.onnx_runtime import check_onnxruntime, run_onnx
from sepcbench.engines.outputs import TOLERANCES, allowed_error, output_error
from sepcbench.engines.tensorrt import check_tensorrt, run_tensorrt
from sepcbench.specs import EngineName
from sepcbench.specs.engines import ENGINE_NOTES


def _laid_out(detector: nn.Module) -> nn.Module:
    return to_channels_last(fold(detector))


def _fused(detector: nn.Module) -> nn.Module:
    from sepcbench.engines.fused import fuse

    return to_channels_last(fuse(fold(detector)))


ENGINES: dict[EngineName, Engine] = {
    "eager": Engine(ENGINE_NOTES["eager"].about, unchanged, run_eagerly),
    "folded": Engine(ENGINE_NOTES["folded"].about, fold, run_eagerly),
    "channels_last": Engine(
        ENGINE_NOTES["channels_last"].about, _laid_out, run_laid_out, channels_last=True
    ),
    "fused": Engine(
        ENGINE_NOTES["fused"].about,
        _fused,
        run_laid_out,
        channels_last=True,
        batched_decode=True,
    ),
    "compiled": Engine(
        ENGINE_NOTES["compiled"].about,
        fold,
        run_compiled,
        check=check_compiler,
        preparing="compiling",
    ),
    "graphed": Engine(
        ENGINE_NOTES["graphed"].about,
        fold,
        run_graphed,
        check=needs_cuda("graphed"),
        preparing="capturing",
        own_memory=True,
    ),
    "fused_graphed": Engine(
        ENGINE_NOTES["fused_graphed"].about,
        _fused,
        run_graphed_laid_out,
        channels_last=True,
        check=needs_cuda("fused_graphed"),
        preparing="capturing",
        batched_decode=True,
        own_memory=True,
    ),
    "onnxruntime": Engine(
        ENGINE_NOTES["onnxruntime"].about,
        fold,
        run_onnx,
        check=check_onnxruntime,
        preparing="exporting to ONNX",
        own_memory=True,
    ),
    "tensorrt": Engine(
        ENGINE_NOTES["tensorrt"].about,
        fold,
        run_tensorrt,
        check=check_tensorrt,
        preparing="building for TensorRT",
        own_memory=True,
    ),
}
"""From the name of an engine to it."""

__all__ = [
    "ENGINES",
    "TOLERANCES",
    "Call",
    "Engine",
    "allowed_error",
    "check_engines",
    "output_error",
]
