"""Where the deformable kernels of a neck or head read (SEPC, arXiv 2005.03101, section 3.3)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sepcbench.detectors import Detector
from sepcbench.errors import UsageError
from sepcbench.heads.dense import DenseHead
from sepcbench.measures.evaluating import evaluating
from sepcbench.necks.pconv import CombinedTower, PyramidConv
from sepcbench.ops.convs import LevelConv
from sepcbench.ops.pyramid import Pyramid

# kernel of a PConv: how many levels up from the one it works for it reads (equation 1)
_STEPS = {"up": 1, "same": 0, "down": -1}


@dataclass(frozen=True, eq=False)
class KernelOffsets:
    """Where one deformable kernel reads while it works for one level.

    Attributes:
        layer: the layer it belongs to, such as "PConv 1".
        kernel: which of the layer's it is: "up", "same", "down", "class branch", "box branch".
        level: the level it works for, 3 for P3.
        reads: the level whose map it reads.
        pitch: pixels from one cell of that map to the next.
        stride: of the conv, in cells of that map.
        plain: (h, w, 9, 2), the (x, y) in image pixels where the taps of a plain kernel are, by
            row, for each of its h x w output cells. Cell i of a map is at pixel i * pitch, as the
            stride-2 convs of the backbone have it.
        taps: (h, w, 9, 2), where this one's are.
    """

    layer: str
    kernel: str
    level: int
    reads: int
    pitch: int
    stride: int
    plain: np.ndarray
    taps: np.ndarray

    @property
    def length(self) -> float:
        """The mean length of an offset, in cells of the map that is read."""
        moved = np.linalg.norm(self.taps - self.plain, axis=-1)
        return float(moved.mean()) / self.pitch

    def at(self, point: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
        """The plain and the moved taps, (9, 2) each, of the output cell nearest to a point (x, y).

        The point is in pixels of the image, as the taps.
        """
        step, (height, width) = self.pitch * self.stride, self.taps.shape[:2]
        column, row = (round(value / step) for value in point)
        column, row = min(max(column, 0), width - 1), min(max(row, 0), height - 1)
        return self.plain[row, column], self.taps[row, column]


@torch.no_grad()
def kernel_offsets(
    detector: Detector, image: Tensor, *, device: str = "cpu"
) -> tuple[KernelOffsets, ...]:
    """Run a detector on an image and note where its deformable kernels read.

    Args:
        detector: moved to `device`; in eval mode while it runs.
        image: (1, 3, H, W), normalised and padded.
        device: where to run.

    Returns:
        One entry per kernel and level that it is deformed for, in the order of the network.

    Raises:
        UsageError: no kernel of its necks and head is deformable.
    """
    layers = list(_layers(detector))
    if not layers:
        raise UsageError(
            f"variant '{detector.spec.name}' has no deformable kernels in its necks and head; try "
            "one with a sepc neck"
        )
    detector.to(device)
    found: list[KernelOffsets] = []
    with ExitStack() as stack:
        stack.enter_context(evaluating(detector))
        for layer in layers:
            stack.enter_context(_watch(detector, *layer, found))
        detector(image.to(device))
    return tuple(found)


def _layers(detector: Detector) -> Iterator[tuple[str, str, Any]]:
    """Layer, branch and module of every layer with deformable kernels."""
    blocks = 0
    for module in detector.necks.modules():
        if isinstance(module, PyramidConv):
            blocks += 1
            if module.same.offset is not None:
                yield f"PConv {blocks}", "", module
        elif isinstance(module, CombinedTower):
            extra = [(module.cls.conv, "class branch"), (module.loc.conv, "box branch")]
            yield from ((("extra conv", name, conv)) for conv, name in extra if _deforms(conv))
    if isinstance(detector.head, DenseHead):
        for tower, name in (
            (detector.head.cls_tower, "class branch"),
            (detector.head.box_tower, "box branch"),
        ):
            for number, block in enumerate(tower, start=1):
                if _deforms(block.conv):
                    yield f"tower conv {number}", name, block.conv


def _deforms(conv: Any) -> bool:
    return isinstance(conv, LevelConv) and conv.offset is not None


def _watch(
    detector: Detector, layer: str, branch: str, module: Any, found: list[KernelOffsets]
) -> Any:
    """Note in `found` what a layer does with the pyramid it gets; ends with the handle."""
    kernels = {branch: (module, 0)}
    if isinstance(module, PyramidConv):
        kernels = {name: (getattr(module, name), step) for name, step in _STEPS.items()}

    def note(_: Any, arguments: tuple[Pyramid]) -> None:
        (pyramid,) = arguments
        for name, (conv, step) in kernels.items():
            for level in range(len(pyramid)) if conv is not None else ():
                if level >= conv.deform_from and 0 <= level + step < len(pyramid):
                    x = pyramid[level + step]
                    found.append(_offsets(detector, layer, name, conv, x, level, level + step))

    return module.register_forward_pre_hook(note)


def _offsets(
    detector: Detector, layer: str, kernel: str, conv: Any, x: Tensor, level: int, reads: int
) -> KernelOffsets:
    """Of the conv that works for the level with index `level` and reads x of index `reads`."""
    pitch, stride, padding = detector.spec.strides[reads], conv.stride[0], conv.padding[0]
    moved = conv.offset(x)[0].unflatten(0, (-1, 2)).permute(2, 3, 0, 1)  # (h, w, 9, (dy, dx))
    rows, columns = moved.shape[:2]
    taps = np.stack(np.meshgrid(range(3), range(3)), axis=-1).reshape(9, 2)  # (x, y), by row
    cells = np.stack(np.meshgrid(range(columns), range(rows)), axis=-1)  # (h, w, (x, y))
    places = cells[:, :, None] * stride - padding + taps
    offsets = moved.flip(-1).double().cpu().numpy()
    levels = detector.spec.levels
    return KernelOffsets(
        layer=layer,
        kernel=kernel,
        level=levels[level],
        reads=levels[reads],
        pitch=pitch,
        stride=stride,
        plain=places * float(pitch),
        taps=(places + offsets) * pitch,
    )
