"""Effective receptive fields of a detector's pyramids (Luo et al., arXiv 1701.04128)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from sepcbench.detectors import Detector
from sepcbench.heads.dense import DenseHead
from sepcbench.measures.evaluating import evaluating
from sepcbench.ops.convs import LevelConv
from sepcbench.ops.deformable import DeformableConv
from sepcbench.ops.pyramid import Pyramid, PyramidPair, as_pair

# a pixel counts where its share is within two standard deviations of a Gaussian (section 4 there)
SHARE = 1 - 0.9545
Progress = Callable[[int, int, str], None]


@dataclass(frozen=True, eq=False)
class ReceptiveField:
    """How strongly a cell of one map depends on each pixel.

    Attributes:
        stage: after which part the map is, such as "fpn" or "sepc, class branch".
        level: of the map, 3 for P3.
        cell: (row, column).
        centre: (x, y), the pixel that the cell lies at.
        weights: (H, W), the root mean square of the gradient of the cell's value with respect to
            the pixel, over channels and images; the largest is 1.
    """

    stage: str
    level: int
    cell: tuple[int, int]
    centre: tuple[float, float]
    weights: np.ndarray

    @property
    def size(self) -> float:
        """The square root of the number of pixels with at least 4.55 % of the largest weight."""
        return float((self.weights >= SHARE).sum()) ** 0.5

    @property
    def cut_off(self) -> bool:
        """Whether it reaches the border of the image, so that it may be larger than that."""
        rows, columns = self.weights[[0, -1]], self.weights[:, [0, -1]]
        return bool(max(rows.max(), columns.max()) >= SHARE)


def receptive_fields(
    detector: Detector,
    images: Sequence[Tensor],
    point: tuple[float, float],
    *,
    seed: int = 0,
    device: str = "cpu",
    progress: Progress | None = None,
) -> tuple[ReceptiveField, ...]:
    """Measure what the cells at one point depend on, on every level and after every neck.

    The gradient is that of a random direction in the cell's channels, drawn anew for every image:
    its mean square over directions is the sum of squares over the channels.

    Args:
        detector: moved to `device`; in eval mode while it runs.
        images: each (1, 3, H, W), all of one size, normalised and padded; noise as published.
        point: (x, y) in pixels; the cells nearest to it are taken.
        seed: of the directions.
        device: where to run.
        progress: called with (done, total, label).

    Returns:
        Stage by stage in the order of the network, levels fine to coarse.
    """
    detector.to(device)
    directions = torch.Generator().manual_seed(seed)
    squares: dict[tuple[str, int], Tensor] = {}
    cells: dict[int, tuple[int, int]] = {}
    with torch.enable_grad(), evaluating(detector), _sampled(detector):
        for done, image in enumerate(images):
            pixels = image.to(device).requires_grad_()
            for stage, pyramid in _stages(detector, pixels):
                for level, stride, x in zip(detector.spec.levels, detector.spec.strides, pyramid):
                    cells[level] = _cell(point, stride, x)
                    value = _project(x, cells[level], directions)
                    (gradient,) = torch.autograd.grad(value, pixels, retain_graph=True)
                    square = gradient[0].double().square().sum(dim=0)
                    squares[stage, level] = squares.get((stage, level), 0) + square
            if progress:
                progress(done + 1, len(images), "")
    strides = dict(zip(detector.spec.levels, detector.spec.strides))
    return tuple(
        _field(stage, level, cells[level], strides[level], square)
        for (stage, level), square in squares.items()
    )


def _stages(detector: Detector, images: Tensor) -> Iterator[tuple[str, Pyramid]]:
    """The pyramids after each neck, and after the head's own towers."""
    x: Pyramid | PyramidPair = detector.features(images)
    for spec, neck in zip(detector.spec.necks, detector.necks):
        x = neck(x)
        if isinstance(x, PyramidPair):
            yield f"{spec.TYPE}, class branch", x.cls
            yield f"{spec.TYPE}, box branch", x.loc
        else:
            yield spec.TYPE, x
    head, pair = detector.head, as_pair(x)
    if isinstance(head, DenseHead) and len(head.cls_tower):
        yield "head's tower, class branch", head.cls_tower(pair.cls)
        yield "head's tower, box branch", head.box_tower(pair.loc)


@contextmanager
def _sampled(detector: Detector) -> Iterator[None]:
    """Have deformable convs run as in training, whose backward on a CPU is the fast one."""
    convs: list[nn.Module] = [
        module for module in detector.modules() if isinstance(module, LevelConv | DeformableConv)
    ]
    for conv in convs:
        conv.training = True
    try:
        yield
    finally:
        for conv in convs:
            conv.training = False


def _cell(point: tuple[float, float], stride: int, x: Tensor) -> tuple[int, int]:
    """The (row, column) of the cell nearest to a point (x, y); cell i is at pixel i * stride."""
    column, row = (round(value / stride) for value in point)
    return min(max(row, 0), x.shape[2] - 1), min(max(column, 0), x.shape[3] - 1)


def _project(x: Tensor, cell: tuple[int, int], directions: torch.Generator) -> Tensor:
    """The value of a cell of (1, C, H, W) along a random direction of its channels."""
    direction = torch.randn(x.shape[1], generator=directions).to(x)
    return (x[0, :, cell[0], cell[1]] * direction).sum()


def _field(
    stage: str, level: int, cell: tuple[int, int], stride: int, square: Tensor
) -> ReceptiveField:
    weights = square.sqrt().cpu().numpy()
    largest = weights.max()
    centre = (float(cell[1] * stride), float(cell[0] * stride))
    return ReceptiveField(stage, level, cell, centre, weights / largest if largest > 0 else weights)
