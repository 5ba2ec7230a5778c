"""What is called in each scope: the module that an engine runs, its inputs, and what follows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from sepcbench.heads.outputs import Scene
from sepcbench.measures.timers import Call
from sepcbench.specs import Scope


@dataclass(frozen=True)
class Frame:
    """The images of a batch: `size` (H, W) in pixels of each, and how many. No padding.

    `scale` (x, y) is what boxes are divided by, where the images were resized.
    """

    size: tuple[int, int]
    batch: int
    scale: tuple[float, float] | None = None

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """The size of each image."""
        return [self.size] * self.batch

    @property
    def factors(self) -> list[tuple[float, float]] | None:
        """The scale of each image."""
        return None if self.scale is None else [self.scale] * self.batch

    @property
    def scene(self) -> Scene:
        """What a second stage has to know."""
        return Scene(self.size, self.sizes)


class Neck(nn.Module):
    """C2..C5 to what the necks give."""

    def __init__(self, detector: nn.Module) -> None:
        super().__init__()
        self.detector: Any = detector

    def forward(self, features: Any) -> Any:
        return self.detector.fuse(features)


class NeckAndHead(Neck):
    """C2..C5 to raw predictions."""

    def forward(self, features: Any) -> Any:
        return self.detector.head(self.detector.fuse(features))


class Whole(Neck):
    """Images (N, 3, H, W) to raw predictions."""

    def forward(self, images: Tensor) -> Any:  # type: ignore[override]
        return self.detector(images)


class Framed(Neck):
    """Images (N, 3, H, W) of known sizes to raw predictions: what decoding starts from."""

    def __init__(self, detector: nn.Module, frame: Frame) -> None:
        super().__init__(detector)
        self.scene = frame.scene

    def forward(self, images: Tensor) -> Any:  # type: ignore[override]
        return self.detector(images, self.scene)


@dataclass(frozen=True)
class ScopeParts:
    """A scope.

    `module` of a detector and a frame is what an engine runs: on C2..C5 with `from_features`, else
    on images. `has_head`: the head is in it. `decodes`: its outputs become boxes, by NMS;
    `prepares`: its images come from uint8 ones, each time anew.
    """

    module: Callable[[nn.Module, Frame], nn.Module]
    from_features: bool = False
    has_head: bool = True
    decodes: bool = False
    prepares: bool = False


SCOPES: dict[Scope, ScopeParts] = {
    "neck": ScopeParts(lambda detector, frame: Neck(detector), True, has_head=False),
    "neck+head": ScopeParts(lambda detector, frame: NeckAndHead(detector), True),
    "forward": ScopeParts(lambda detector, frame: Whole(detector)),
    "end-to-end": ScopeParts(Framed, decodes=True),
    "pipeline": ScopeParts(Framed, decodes=True, prepares=True),
}


def decoded(detector: Any, run: Call, frame: Frame) -> Call:
    """`run`, and the decoding of what it gives: boxes of each image after NMS."""
    sizes, factors = frame.sizes, frame.factors
    return lambda: detector.decode(run(), sizes, factors, frame.size)


def prepared(prepare: Call, run: Call) -> Call:
    """`run` on inputs that are written anew before."""

    def call() -> Any:
        prepare()
        return run()

    return call
