"""The engines: the table, and that all compute the same."""

from __future__ import annotations

import copy
import importlib.util
import shutil
from typing import get_args

import pytest
import torch
from randomised import randomised
from torch import nn

from sepcbench.engines import ENGINES, TOLERANCES, onnx_runtime, output_error, tensorrt
from sepcbench.engines.compiling import check_compiler, run_compiled
from sepcbench.engines.onnx_runtime import run_onnx
from sepcbench.errors import EngineError
from sepcbench.specs import EngineName
from sepcbench.specs.engines import ENGINE_NOTES

PLAIN = ["eager", "folded", "channels_last", "fused"]
NECKS = ["fpn", "bifpn", "nas_fpn", "pconv_ibn", "pconv_independent", "pconv_gn", "sepc"]
HEADS = ["fcos_tiny_pconv", "atss_tiny_fpn", "reppoints_tiny_sepc", "fsaf_tiny_sepc_lite"]
NAMES = [*(f"retinanet_tiny_{neck}" for neck in NECKS), *HEADS]

onnx = pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in ("onnx", "onnxruntime", "onnxscript")),
    reason="sepcbench[onnx] is not installed",
)


class Whole(nn.Module):
    """What a measurement makes of a detector: a part of it as a module."""

    def __init__(self, detector: nn.Module) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, images: torch.Tensor) -> object:
        return self.detector(images)


class Neck(Whole):
    def forward(self, features: list[torch.Tensor]) -> object:  # type: ignore[override]
        return self.detector.fuse(features)  # type: ignore[operator]


def images(device: str = "cpu") -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, 3, 128, 128, generator=generator).to(device)


def errors(engine: EngineName, name: str, device: str = "cpu") -> list[float]:
    """Of the neck alone and of the whole detector."""
    plain = randomised(name).to(device)
    features = plain.features(images(device))
    rewritten = ENGINES[engine].rewrite(copy.deepcopy(plain))
    found = []
    for part, inputs in ((Neck, (features,)), (Whole, (images(device),))):
        expected = part(plain)(*inputs)
        call = ENGINES[engine].run(part(rewritten).eval(), inputs)
        call()
        found.append(output_error(call(), expected))
    return found


def test_table_notes_and_names_agree() -> None:
    assert list(ENGINES) == list(ENGINE_NOTES) == list(get_args(EngineName))
    assert all(ENGINES[name].about == note.about for name, note in ENGINE_NOTES.items())


@pytest.mark.parametrize("engine", PLAIN)
@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_every_engine_computes_the_same(engine: EngineName, name: str) -> None:
    ENGINES[engine].check("cpu", "fp32")
    assert max(errors(engine, name)) < TOLERANCES["fp32"]


@pytest.mark.parametrize("engine", ["channels_last", "fused"])
@torch.no_grad()
def test_maps_are_in_channels_last(engine: EngineName) -> None:
    detector = ENGINES[engine].rewrite(randomised("retinanet_tiny_fpn"))
    seen = []
    detector.head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    ENGINES[engine].run(Whole(detector), (images(),))()
    assert ENGINES[engine].channels_last
    assert all(x.is_contiguous(memory_format=torch.channels_last) for x in seen[0])


@pytest.mark.parametrize("engine", ["graphed", "fused_graphed", "tensorrt"])
def test_engines_of_a_gpu_say_so(engine: EngineName) -> None:
    assert ENGINE_NOTES[engine].runs_on == ("cuda",)
    with pytest.raises(EngineError, match=f"'{engine}' needs a CUDA device.*--engine f"):
        ENGINES[engine].check("cpu", "fp32")


# --- torch.compile ----------------------------------------------------------------------------


def test_without_a_compiler_compiled_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(EngineError, match="needs a C\\+\\+ compiler"):
        check_compiler("cpu", "fp32")
    check_compiler("cuda:0", "fp32")  # triton brings its own


def test_every_module_is_compiled_however_many_there_are() -> None:
    """torch keeps few compiled versions of one function, and runs the next ones eagerly."""
    compiled = []

    def backend(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> object:
        compiled.append(graph)
        return graph.forward

    x = torch.ones(1, 2, 4, 4)
    for width in range(1, 13):
        module = Whole(nn.Conv2d(2, width, 1))
        call = run_compiled(module, (x,), backend=backend)
        assert torch.equal(call(), module(x))
        call()
    assert len(compiled) == 12


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="no C++ compiler")
@torch.no_grad()
def test_compiled_computes_the_same() -> None:
    """The neck alone: generating code for a whole detector takes minutes."""
    plain = randomised("retinanet_tiny_sepc_lite")
    features = plain.features(images())
    rewritten = ENGINES["compiled"].rewrite(copy.deepcopy(plain))
    call = ENGINES["compiled"].run(Neck(rewritten).eval(), (features,))
    assert output_error(call(), plain.fuse(features)) < TOLERANCES["fp32"]


# --- ONNX Runtime and TensorRT ----------------------------------------------------------------


@onnx
@torch.no_grad()
def test_onnxruntime_deforms_as_torchvision_does() -> None:
    plain = randomised("retinanet_tiny_sepc")
    extra = plain.necks[1].cls  # type: ignore[index,union-attr]
    pyramid = [level[:, :32] for level in plain.fuse(plain.features(images())).cls]
    call = ENGINES["onnxruntime"].run(extra, (pyramid,))
    assert output_error(call(), extra(pyramid)) < TOLERANCES["fp32"]


@onnx
@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    ["retinanet_tiny_sepc", "fcos_tiny_pconv_gn", "reppoints_tiny_bifpn", "atss_tiny_nas_fpn"],
)
@torch.no_grad()
def test_onnxruntime_computes_the_same(name: str) -> None:
    assert max(errors("onnxruntime", name)) < TOLERANCES["fp32"]


@onnx
@torch.inference_mode()
def test_onnxruntime_keeps_the_nesting_and_reads_what_is_there() -> None:
    class Nested(nn.Module):
        def forward(self, maps: list[torch.Tensor], ignored: torch.Tensor) -> dict[str, object]:
            return {"sum": (maps[0] + maps[1], None), "name": "kept"}

    maps = [torch.ones(1, 2, 3, 3), torch.ones(1, 2, 3, 3)]
    call = run_onnx(Nested(), (maps, torch.zeros(2)))
    found = call()
    assert (found["name"], found["sum"][1]) == ("kept", None)
    maps[1].fill_(5.0)
    assert call()["sum"][0].unique() == 6.0


@onnx
def test_what_has_no_place_in_a_graph_is_one_line() -> None:
    class Branches(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + 1 if x.sum() > 0 else x

    with pytest.raises(EngineError, match="Branches cannot be exported to ONNX") as error:
        run_onnx(Branches(), (torch.ones(2),))
    assert "\n" not in str(error.value)


def test_without_onnxruntime_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(EngineError, match="pip install onnxruntime-gpu onnx onnxscript"):
        onnx_runtime.check_onnxruntime("cuda", "fp32")
    with pytest.raises(EngineError, match="pip install torch-tensorrt"):
        tensorrt.check_tensorrt("cuda", "fp32")


@onnx
def test_tensorrt_by_onnxruntime_needs_what_exports_too(monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxruntime

    find = importlib.util.find_spec
    absent = {"torch_tensorrt"}
    monkeypatch.setattr(importlib.util, "find_spec", lambda n: None if n in absent else find(n))
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [tensorrt.PROVIDER])
    tensorrt.check_tensorrt("cuda", "fp16")
    absent.add("onnxscript")
    with pytest.raises(EngineError, match="needs torch-tensorrt, or onnx, onnxscript and"):
        tensorrt.check_tensorrt("cuda", "fp16")


@onnx
def test_onnxruntime_refuses_what_it_cannot_compute() -> None:
    onnx_runtime.check_onnxruntime("cpu", "fp32")
    with pytest.raises(EngineError, match="computes fp32 on cpu, not bf16"):
        onnx_runtime.check_onnxruntime("cpu", "bf16")
    with pytest.raises(EngineError, match="no NoSuchProvider"):
        onnx_runtime.check_provider("onnxruntime", "NoSuchProvider")


def test_onnxruntime_works_on_a_stream_of_its_own_between_torchs_work() -> None:
    class Stream:
        def __init__(self, name: str) -> None:
            self.name = name

        def wait_stream(self, other: Stream) -> None:
            events.append(f"{self.name} waits for {other.name}")

    events: list[str] = []
    call = onnx_runtime.in_line(
        lambda: events.append("run") or "outputs", Stream("its own"), lambda: Stream("torch's")
    )
    assert call() == "outputs"
    assert events == ["its own waits for torch's", "run", "torch's waits for its own"]


def test_tensorrt_by_onnxruntime_uses_float16_only_where_it_is_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[dict[str, object]] = []

    def run_by(module: nn.Module, inputs: object, providers_for: object) -> None:
        seen.append(providers_for(torch.device("cuda"))[0][1])  # type: ignore[operator]

    monkeypatch.setattr(tensorrt, "_has_torch_tensorrt", lambda: False)
    monkeypatch.setattr(tensorrt, "_has_provider", lambda: True)
    monkeypatch.setattr(tensorrt, "run_by", run_by)
    options = {"device_id": 0, "user_compute_stream": "1"}
    monkeypatch.setattr(tensorrt, "cuda_options", lambda device: options)
    for dtype in (torch.float32, torch.float16):
        tensorrt.run_tensorrt(nn.Identity(), ([torch.zeros(1, dtype=dtype)],))
    assert [one["trt_fp16_enable"] for one in seen] == [False, True]
    tensorrt.check_tensorrt("cuda", "tf32")
    with pytest.raises(EngineError, match="cannot switch TF32 off"):
        tensorrt.check_tensorrt("cuda", "fp32")


# --- on a GPU -----------------------------------------------------------------------------------


@pytest.mark.gpu
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", ["retinanet_tiny_fpn", "retinanet_tiny_sepc", "fcos_tiny_pconv"])
@torch.no_grad()
def test_every_engine_computes_the_same_on_a_gpu(engine: EngineName, name: str) -> None:
    try:
        ENGINES[engine].check("cuda", "tf32")
    except EngineError as error:
        pytest.skip(str(error))
    assert max(errors(engine, name, "cuda")) < TOLERANCES["tf32"]
