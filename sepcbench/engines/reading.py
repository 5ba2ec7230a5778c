"""Kernels over a pyramid, applied together: one conv for those that read the same level."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sepcbench.engines.canvas import Layout, PackedPyramid, cut, pack
from sepcbench.ops.convs import LevelConv
from sepcbench.ops.fast_deformable import fast_deform_levels
from sepcbench.ops.pyramid import Pyramid


@dataclass(frozen=True)
class Steps:
    """Which steps a device takes; what each is worth is in docs/performance.md.

    Attributes:
        join: one conv for kernels, or the convs of their offsets, that read the same level.
        pack: one conv for all levels but the finest, side by side on a canvas.
    """

    join: bool
    pack: bool


class Part(NamedTuple):
    """What a kernel wants of a level: its own conv, or first the one that gives its offsets."""

    kernel: int
    deformed: bool


class Maps(NamedTuple):
    """What a conv gives, level by level, and the canvas that they are views of, if any."""

    levels: Pyramid
    canvas: tuple[Tensor, Layout] | None = None


class Reading(nn.Module):
    """Kernels of equal stride and padding that read the levels of one pyramid.

    Args:
        kernels: 3x3 convs, deformable or not.
        coarser: how much coarser the level that a kernel reads is than the one it works for.
        steps: which to take.
    """

    def __init__(self, kernels: Sequence[LevelConv], coarser: Sequence[int], steps: Steps) -> None:
        super().__init__()
        self.kernels, self.coarser, self.steps = list(kernels), tuple(coarser), steps
        self.weights = nn.ModuleList(kernels)  # so that they move with this module
        self.stride, self.padding = kernels[0].stride, kernels[0].padding
        self.joined = nn.ModuleDict()
        levels = 3 + max(kernel.deform_from or 0 for kernel in kernels)
        for _, parts in {self._parts(level, levels + 1) for level in range(levels)}:
            if self._joins(parts):
                self.joined[_key(parts)] = joined([self._conv(part) for part in parts])

    def forward(self, pyramid: Pyramid) -> list[Pyramid]:
        """What each kernel gives, of the levels that it can read, finest first."""
        found: list[Pyramid] = [[] for _ in self.kernels]
        moved: list[Pyramid] = [[] for _ in self.kernels]  # what deformed kernels read
        offsets: list[Pyramid] = [[] for _ in self.kernels]
        for parts, levels in self._runs(len(pyramid)):
            for part, maps in zip(parts, self._read(parts, pyramid, levels)):
                here = part.kernel
                if part.deformed:
                    moved[here] += [pyramid[level] for level in levels]
                    offsets[here] += maps.levels
                elif maps.canvas and len(found[here]) == 1 and levels[-1] + 1 == len(pyramid):
                    found[here] = PackedPyramid(found[here][0], *maps.canvas, clean=False)
                else:
                    found[here] += maps.levels
        for kernel, into, xs, where in zip(self.kernels, found, moved, offsets):
            sides = (_pair(kernel.stride), _pair(kernel.padding))
            into += fast_deform_levels(xs, where, kernel.weight, kernel.bias, *sides)
        return found

    def _runs(self, levels: int) -> Iterator[tuple[tuple[Part, ...], list[int]]]:
        """Levels after each other of which the same is computed; the finest on its own."""
        kinds = ((self._parts(level, levels), level) for level in range(levels))
        for (_, parts), run in groupby(kinds, lambda kind: kind[0]):
            if parts:
                yield parts, [level for _, level in run]

    def _parts(self, level: int, levels: int) -> tuple[bool, tuple[Part, ...]]:
        """Whether a level is the finest, and what is computed of it, out of so many levels."""
        parts = tuple(
            Part(i, kernel.deform_from is not None and level - step >= kernel.deform_from)
            for i, (kernel, step) in enumerate(zip(self.kernels, self.coarser))
            if 0 <= level - step < levels
        )
        return level == 0, parts

    def _read(self, parts: tuple[Part, ...], pyramid: Pyramid, levels: list[int]) -> list[Maps]:
        """What the conv of each part gives of these levels."""
        canvas = self._canvas(pyramid, levels)
        inputs = [pyramid[level] for level in levels] if canvas is None else [canvas[0]]
        found = self._convolve(parts, inputs)
        if canvas is None:
            return [Maps(list(outputs)) for outputs in found]
        layout = canvas[1].after(self.stride[0], int(self.padding[0]))
        return [Maps(cut(x, layout)[: len(levels)], (x, layout)) for (x,) in found]

    def _canvas(self, pyramid: Pyramid, levels: list[int]) -> tuple[Tensor, Layout] | None:
        """A canvas that starts with these levels, of which there are several."""
        if not self.steps.pack or len(levels) < 2:
            return None
        if isinstance(pyramid, PackedPyramid) and pyramid.clean and levels[0] == 1:
            return pyramid.canvas, pyramid.layout
        return pack([pyramid[level] for level in levels])

    def _convolve(self, parts: tuple[Part, ...], inputs: list[Tensor]) -> list[list[Tensor]]:
        """Per part, what its conv gives of each input."""
        convs = [self._conv(part) for part in parts]
        if not self._joins(parts):
            return [[self._apply_conv(conv, x) for x in inputs] for conv in convs]
        together: nn.Conv2d = self.joined[_key(parts)]  # type: ignore[assignment]
        sizes = [conv.out_channels for conv in convs]
        split = [self._apply_conv(together, x)[:, : sum(sizes)].split(sizes, 1) for x in inputs]
        return [list(outputs) for outputs in zip(*split)]

    def _apply_conv(self, conv: nn.Conv2d, x: Tensor) -> Tensor:
        return F.conv2d(x, conv.weight, conv.bias, self.stride, self.padding)

    def _conv(self, part: Part) -> nn.Conv2d:
        kernel = self.kernels[part.kernel]
        return kernel.offset if part.deformed else kernel  # type: ignore[return-value]

    def _joins(self, parts: tuple[Part, ...]) -> bool:
        return self.steps.join and len(parts) > 1


def joined(convs: Sequence[nn.Conv2d]) -> nn.Conv2d:
    """One conv that gives the channels of several, one behind the other.

    Tensor cores want channels in eights: zeros fill up what offset convs leave.
    """
    weight = torch.cat([conv.weight for conv in convs]).detach()
    biases = [weight.new_zeros(len(c.weight)) if c.bias is None else c.bias for c in convs]
    bias = torch.cat(biases).detach()
    more = -len(weight) % 8
    one = nn.Conv2d(weight.shape[1], len(weight) + more, weight.shape[2], device="meta")
    one.weight = nn.Parameter(F.pad(weight, (0, 0, 0, 0, 0, 0, 0, more)), requires_grad=False)
    one.bias = nn.Parameter(F.pad(bias, (0, more)), requires_grad=False)
    return one


def _key(parts: tuple[Part, ...]) -> str:
    return "_".join(f"{part.kernel}{'offset' if part.deformed else ''}" for part in parts)


def _pair(sides: object) -> tuple[int, int]:
    return sides  # type: ignore[return-value]
