"""ONNX Runtime: an exported module run by its CPU or CUDA provider, on torch's own memory."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from sepcbench.engines.engine import Call, Inputs
from sepcbench.engines.onnx_export import INPUT, export
from sepcbench.errors import EngineError
from sepcbench.specs import Dtype

Providers = list[tuple[str, dict[str, Any]]]

# onnx.TensorProto's numbers
_ELEMENT_TYPES = {
    torch.float32: 1,
    torch.int64: 7,
    torch.bool: 9,
    torch.float16: 10,
    torch.float64: 11,
    torch.bfloat16: 16,
}
_DTYPES: dict[str, tuple[Dtype, ...]] = {"cpu": ("fp32",), "cuda": ("fp32", "tf32", "fp16")}


def check_onnxruntime(device: str, dtype: Dtype) -> None:
    """Check that ONNX Runtime and the exporter are installed and work on a device and dtype.

    Raises:
        EngineError: they do not.
    """
    kind = device.split(":")[0]
    package = "onnxruntime-gpu" if kind == "cuda" else "onnxruntime"
    missing = missing_packages()
    if missing:
        raise EngineError(
            f"engine 'onnxruntime' needs {', '.join(missing)}, not installed here; "
            f"pip install {package} onnx onnxscript"
        )
    if kind == "cuda":
        check_provider("onnxruntime", "CUDAExecutionProvider")
    if dtype not in _DTYPES.get(kind, ()):
        allowed = ", ".join(_DTYPES.get(kind, ())) or "nothing"
        raise EngineError(
            f"engine 'onnxruntime' computes {allowed} on {kind}, not {dtype}; "
            "use another --dtype or --engine folded"
        )


def missing_packages() -> list[str]:
    """Which packages for exporting and running are not installed."""
    needed = ("onnxruntime", "onnx", "onnxscript")
    return [name for name in needed if importlib.util.find_spec(name) is None]


def check_provider(engine: str, provider: str) -> None:
    """Check that this build of ONNX Runtime has a provider.

    Raises:
        EngineError: it has not.
    """
    import onnxruntime

    if provider not in onnxruntime.get_available_providers():
        raise EngineError(
            f"engine '{engine}': this onnxruntime has no {provider}; "
            "pip uninstall onnxruntime && pip install onnxruntime-gpu"
        )


def run_onnx(module: nn.Module, inputs: Inputs) -> Call:
    """Export the module and run it with as many threads as torch has."""
    return run_by(module, inputs, _providers)


def run_by(module: nn.Module, inputs: Inputs, providers_for: Any) -> Call:
    """Export the module and run it by a provider.

    Inputs and outputs stay where they are, in torch's memory: every call overwrites the outputs.

    Args:
        module: with its weights on the device of its inputs.
        inputs: its example inputs.
        providers_for: from torch's device to what ONNX Runtime may use, best first.
    """
    exported = export(module, inputs)
    read = [x.contiguous() for x in exported.inputs]
    rows = torch.contiguous_format  # as ONNX lays maps out
    written = [torch.empty_like(x, memory_format=rows) for x in exported.outputs]
    device = written[0].device
    stream = torch.cuda.Stream(device) if device.type == "cuda" else None
    with torch.cuda.stream(stream) if stream else nullcontext():
        session = _session(exported.model, providers_for(device))
    binding = session.io_binding()
    for node in session.get_inputs():  # those that the outputs depend on
        tensor = read[int(node.name.removeprefix(INPUT))]
        binding.bind_input(node.name, *_place(tensor), tuple(tensor.shape), tensor.data_ptr())
    for node, tensor in zip(session.get_outputs(), written, strict=True):
        binding.bind_output(node.name, *_place(tensor), tuple(tensor.shape), tensor.data_ptr())
    outputs = exported.assemble(written)
    options = _run_options()

    def run() -> Any:
        session.run_with_iobinding(binding, options)
        return outputs

    return in_line(run, stream, lambda: torch.cuda.current_stream(device)) if stream else run


def in_line(run: Call, stream: Any, current: Callable[[], Any]) -> Call:
    """`run`, which works on a stream of its own, as a part of what is on torch's current stream.

    A stream of its own, since torch's default one has the number 0, which ONNX Runtime takes for
    none: it would work on another one then, which nothing waits for.
    """

    def call() -> Any:
        before = current()
        stream.wait_stream(before)
        outputs = run()
        before.wait_stream(stream)
        return outputs

    return call


def _session(model: Any, providers: Providers) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # threads that wait busily after a call would slow down what is timed next
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=providers)


def _run_options() -> Any:
    """ONNX Runtime does not wait for the device: torch's stream waits for its stream."""
    import onnxruntime

    options = onnxruntime.RunOptions()
    options.add_run_config_entry("disable_synchronize_execution_providers", "1")
    return options


def _providers(device: torch.device) -> Providers:
    if device.type != "cuda":
        return [("CPUExecutionProvider", {})]
    return [("CUDAExecutionProvider", cuda_options(device)), ("CPUExecutionProvider", {})]


def cuda_options(device: torch.device) -> dict[str, Any]:
    """Options of the CUDA provider: torch's stream, kernels by trial, TF32 as torch has it."""
    stream = torch.cuda.current_stream(device)
    return {
        "device_id": stream.device_index,
        "user_compute_stream": str(stream.cuda_stream),
        "cudnn_conv_algo_search": "EXHAUSTIVE",
        "use_tf32": int(torch.backends.cudnn.allow_tf32),
    }


def _place(tensor: Tensor) -> tuple[str, int, int]:
    """Device, its number and the element type, as ONNX Runtime names them."""
    return tensor.device.type, tensor.device.index or 0, _ELEMENT_TYPES[tensor.dtype]
