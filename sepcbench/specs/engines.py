"""What the engines are and where they run: told without loading torch."""

from __future__ import annotations

from dataclasses import dataclass

from sepcbench.errors import EngineError
from sepcbench.specs.names import EngineName


@dataclass(frozen=True)
class EngineNote:
    """One engine, for lists.

    Attributes:
        about: what it does, in one line.
        runs_on: the kinds of devices.
        needs: what has to be installed beside torch and torchvision; empty if nothing.
        instead: an engine that works on other devices too.
    """

    about: str
    runs_on: tuple[str, ...] = ("cpu", "cuda")
    needs: str = ""
    instead: EngineName = "eager"

    @property
    def line(self) -> str:
        """All of it in one line."""
        needs = f"; needs {self.needs}" if self.needs else ""
        return f"{self.about} ({', '.join(self.runs_on)}{needs})"


ENGINE_NOTES: dict[EngineName, EngineNote] = {
    "eager": EngineNote("the module as it is, op by op"),
    "folded": EngineNote("BN of backbone and pyramid in the convs before it, ReLU in place"),
    "channels_last": EngineNote("folded, with maps and weights in torch.channels_last"),
    "fused": EngineNote("channels_last, with fused pyramid convs and fast deformable convs"),
    "compiled": EngineNote("folded, through torch.compile", needs="a C++ compiler on cpu"),
    "graphed": EngineNote(
        "folded, captured in a CUDA graph of fixed shape", runs_on=("cuda",), instead="folded"
    ),
    "fused_graphed": EngineNote(
        "fused, captured in a CUDA graph", runs_on=("cuda",), instead="fused"
    ),
    "onnxruntime": EngineNote("exported to ONNX and run by ONNX Runtime", needs="sepcbench[onnx]"),
    "tensorrt": EngineNote(
        "compiled by TensorRT",
        runs_on=("cuda",),
        needs="torch-tensorrt or onnxruntime-gpu",
        instead="folded",
    ),
}


def check_runs_on(engine: EngineName, device: str) -> None:
    """Check that an engine runs on such a device, whatever it needs there.

    Raises:
        EngineError: it does not.
    """
    note = ENGINE_NOTES[engine]
    if device.partition(":")[0] not in note.runs_on:
        raise EngineError(
            f"engine '{engine}' needs a CUDA device, not '{device}'; use --device cuda or "
            f"--engine {note.instead}"
        )
