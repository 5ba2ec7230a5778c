"""TensorRT: by torch-tensorrt where it is installed, else by ONNX Runtime's provider."""

from __future__ import annotations

import importlib.util
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from sepcbench.engines.compiling import run_compiled
from sepcbench.engines.engine import Call, Inputs
from sepcbench.engines.onnx_runtime import cuda_options, missing_packages, run_by
from sepcbench.errors import EngineError
from sepcbench.specs import Dtype
from sepcbench.specs.engines import check_runs_on

PROVIDER = "TensorrtExecutionProvider"
_DTYPES: tuple[Dtype, ...] = ("fp32", "tf32", "fp16")


def check_tensorrt(device: str, dtype: Dtype) -> None:
    """Check that one of the two ways to TensorRT is installed and works on a device and dtype.

    Raises:
        EngineError: there is none.
    """
    check_runs_on("tensorrt", device)
    if not _has_torch_tensorrt() and not _has_provider():
        raise EngineError(
            "engine 'tensorrt' needs torch-tensorrt, or onnx, onnxscript and onnxruntime-gpu with "
            "TensorRT, not installed here; pip install torch-tensorrt"
        )
    if dtype not in _DTYPES:
        raise EngineError(
            f"engine 'tensorrt' computes {', '.join(_DTYPES)}, not {dtype}; use another --dtype"
        )
    if dtype == "fp32" and not _has_torch_tensorrt():
        raise EngineError(
            "engine 'tensorrt' by ONNX Runtime cannot switch TF32 off, so it has no fp32; use "
            "--dtype tf32, or pip install torch-tensorrt"
        )


def run_tensorrt(module: nn.Module, inputs: Inputs) -> Call:
    """Compile the module by TensorRT; what TensorRT has not, torch or ONNX Runtime computes."""
    if not _has_torch_tensorrt():
        half = any(getattr(x, "dtype", None) == torch.float16 for x in tree_leaves(inputs))
        return run_by(module, inputs, lambda device: _providers(device, half))
    importlib.import_module("torch_tensorrt")  # registers its backend
    options = {
        "use_explicit_typing": True,  # the dtypes of the module, not whatever is fastest
        "truncate_double": True,
        "disable_tf32": not torch.backends.cudnn.allow_tf32,
        "device": torch.device(torch.cuda.current_device()),
    }
    return run_compiled(module, inputs, backend="torch_tensorrt", options=options)


def _has_torch_tensorrt() -> bool:
    return importlib.util.find_spec("torch_tensorrt") is not None


def _has_provider() -> bool:
    if missing_packages():
        return False
    import onnxruntime

    return PROVIDER in onnxruntime.get_available_providers()


def _providers(device: torch.device, half: bool) -> list[tuple[str, dict[str, Any]]]:
    """TensorRT first, then CUDA for what it has not; `half`: kernels in float16 are allowed."""
    cuda = cuda_options(device)
    shared = {name: cuda[name] for name in ("device_id", "user_compute_stream")}
    return [
        (PROVIDER, {**shared, "trt_fp16_enable": half}),
        ("CUDAExecutionProvider", cuda),
        ("CPUExecutionProvider", {}),
    ]
