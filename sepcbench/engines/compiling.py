"""torch.compile: kernels generated for a module and its shapes."""

from __future__ import annotations

import os
import shutil
from typing import Any

import torch
from torch import nn

from sepcbench.engines.engine import Call, Inputs
from sepcbench.errors import EngineError
from sepcbench.specs import Dtype

_COMPILERS = ("g++", "c++", "clang++", "cl")
_LIMITS = {"recompile_limit": 1000, "accumulated_recompile_limit": 10_000}


def check_compiler(device: str, dtype: Dtype) -> None:
    """Check that there is a C++ compiler, which code generated for a CPU needs.

    Raises:
        EngineError: there is none.
    """
    if device.partition(":")[0] != "cpu":
        return
    given = os.environ.get("CXX")
    if not any(shutil.which(name) for name in ((given,) if given else _COMPILERS)):
        raise EngineError(
            f"engine 'compiled' needs a C++ compiler, and there is no {given or _COMPILERS[0]}; "
            "install one or use --engine folded"
        )


def run_compiled(module: nn.Module, inputs: Inputs, **options: Any) -> Call:
    """Compile the module for the shapes of its inputs; the first call does the compiling.

    Args:
        module: to compile.
        inputs: of every call.
        options: of `torch.compile`.
    """

    def forward(*given: Any) -> Any:
        return module(*given)

    # Compiled code is kept per code object, and after a few modules with the same one torch would
    # silently run the next eagerly: every module gets its own.
    forward.__code__ = forward.__code__.replace(co_name=f"forward_of_{type(module).__name__}")
    compiled = torch.compile(forward, dynamic=False, **options)
    done = False

    def call() -> Any:
        nonlocal done
        if done:
            return compiled(*inputs)
        with torch._dynamo.config.patch(_LIMITS):  # type: ignore[no-untyped-call]
            outputs = compiled(*inputs)
        done = True
        return outputs

    return call
