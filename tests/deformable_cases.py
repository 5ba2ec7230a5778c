"""Deformable convs to try a kernel on; run as a program, the Triton kernel in its interpreter.

As a program it prints JSON: for each case the largest error against torchvision in float32, over
the largest value there. Triton reads `TRITON_INTERPRET` when it is imported, so that the
interpreter needs a process of its own.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import deform_conv2d

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Case:
    """Sizes (height, width) of the levels, and all that can differ between deformable convs."""

    levels: tuple[tuple[int, int], ...] = ((6, 7),)
    batch: int = 2
    channels: int = 20
    outputs: int = 24
    kernel: tuple[int, int] = (3, 3)
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (1, 1)
    spread: float = 2.0
    masked: bool = False
    bias: bool = True
    relu: bool = False
    dtype: str = "fp32"
    channels_last: bool = False
    parts: bool = False  # of larger maps in channels_last, of one channel more


CASES = {
    "v1": Case(),
    "v2": Case(masked=True),
    "stride 2": Case(((9, 7),), stride=(2, 2)),
    "stride 2x1, padding 0x2": Case(((9, 7),), stride=(2, 1), padding=(0, 2)),
    "kernel 1x1": Case(kernel=(1, 1), padding=(0, 0)),
    "kernel 5x3": Case(kernel=(5, 3), padding=(2, 1), channels=4),
    "no offsets": Case(spread=0.0),
    "offsets far outside": Case(spread=50.0),
    "offsets beyond integers": Case(spread=1e12),
    "one cell": Case(((1, 1),), batch=1),
    "more than a tile": Case(((9, 9),), batch=1, channels=4, outputs=4),
    "more than a block of channels": Case(((3, 3),), channels=40, outputs=72),
    "levels": Case(((9, 7), (5, 4), (3, 2), (1, 1)), batch=1),
    "levels, v2, stride 2": Case(((9, 7), (5, 4)), stride=(2, 2), masked=True),
    "without bias": Case(bias=False),
    "relu": Case(relu=True),
    "channels last": Case(channels_last=True, masked=True),
    "parts of other maps": Case(((6, 7), (3, 2)), masked=True, parts=True),
    "fp16": Case(((5, 4), (3, 2)), dtype="fp16", masked=True),
    "bf16": Case(((5, 4), (3, 2)), dtype="bf16"),
    "no image": Case(batch=0),
}


@dataclass(frozen=True)
class Tensors:
    """What a case is made of."""

    xs: list[Tensor]
    offsets: list[Tensor]
    masks: list[Tensor] | None
    weight: Tensor
    bias: Tensor | None


def make(case: Case, device: str = "cpu", seed: int = 0) -> Tensors:
    """Draw the tensors of a case."""
    drawn = torch.Generator().manual_seed(seed)
    taps = case.kernel[0] * case.kernel[1]

    def draw(*size: int, scale: float = 1.0) -> Tensor:
        values = torch.randn(*size, generator=drawn) * scale
        values = values.to(device, DTYPES[case.dtype])
        if values.dim() != 4 or not (case.channels_last or case.parts):
            return values
        if case.parts:
            whole = F.pad(values, (1, 2, 3, 1, 0, 1), value=torch.nan)
            whole = whole.contiguous(memory_format=torch.channels_last)
            return whole[:, :-1, 3:-1, 1:-2]
        return values.contiguous(memory_format=torch.channels_last)

    sides = zip(*case.levels)
    numbers = zip(case.kernel, case.stride, case.padding)
    outs = [
        [(side + 2 * pad - taps_of) // step + 1 for side in of_levels]
        for of_levels, (taps_of, step, pad) in zip(sides, numbers)
    ]
    cells = list(zip(*outs))
    return Tensors(
        [draw(case.batch, case.channels, *size) for size in case.levels],
        [draw(case.batch, 2 * taps, *size, scale=case.spread) for size in cells],
        [draw(case.batch, taps, *size) for size in cells] if case.masked else None,
        draw(
            case.outputs, case.channels, *case.kernel, scale=(taps * case.channels) ** -0.5
        ).contiguous(),
        draw(case.outputs) if case.bias else None,
    )


def wanted(case: Case, of: Tensors) -> list[Tensor]:
    """What torchvision computes in float32 from the same, maybe rounded, values."""
    found = []
    for level, (x, offset) in enumerate(zip(of.xs, of.offsets)):
        mask = None if of.masks is None else of.masks[level].float()
        bias = None if of.bias is None else of.bias.float()
        out = deform_conv2d(
            x.float(), offset.float(), of.weight.float(), bias, case.stride, case.padding, mask=mask
        )
        found.append(F.relu(out) if case.relu else out)
    return found


def error(found: list[Tensor], expected: list[Tensor]) -> float:
    """The largest error over the largest value."""
    assert [a.shape for a in found] == [b.shape for b in expected]
    if not sum(b.numel() for b in expected):
        return 0.0
    worst = max(float((a.float() - b).abs().max()) for a, b in zip(found, expected))
    return worst / max(float(b.abs().max()) for b in expected)


def main() -> None:
    from sepcbench.ops.triton_deformable import triton_deform_levels

    errors = {}
    for name, case in CASES.items():
        of = make(case)
        found = triton_deform_levels(
            of.xs,
            of.offsets,
            of.weight,
            of.bias,
            case.stride,
            case.padding,
            of.masks,
            relu=case.relu,
        )
        assert all(out.dtype == DTYPES[case.dtype] for out in found)
        assert all(out.is_contiguous(memory_format=torch.channels_last) for out in found)
        errors[name] = error(found, wanted(case, of))
    print(json.dumps(errors))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
