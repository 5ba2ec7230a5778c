"""A deformable conv on a GPU that never writes its columns, of several levels in one launch.

The plain definition is `torchvision.ops.deform_conv2d`, level by level; `sepcbench.ops.
deformable_kernel` holds the kernel. Forward alone. Importing this needs no triton, calling it does.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from functools import cache
from itertools import accumulate
from types import ModuleType
from typing import NamedTuple

import torch
from torch import Tensor

from sepcbench.errors import UsageError, require
from sepcbench.ops.held import hand_out

Pair = tuple[int, int]
DTYPES = (torch.float32, torch.float16, torch.bfloat16)


class Blocks(NamedTuple):
    """How a launch is cut up: a program computes `cells` x `outputs`, `inputs` channels at a time.

    `warps` work on it together, with loads up to `stages` steps ahead.
    """

    cells: int
    outputs: int
    inputs: int
    warps: int
    stages: int


# By the precision of the product. Wide in outputs, because every block of outputs gathers anew. A
# fixed table and not a search, so that the first call may be inside a graph capture.
BLOCKS: dict[str, Blocks] = {
    "half": Blocks(cells=64, outputs=256, inputs=64, warps=8, stages=2),
    "tf32": Blocks(cells=64, outputs=128, inputs=32, warps=8, stages=2),
    "tf32x3": Blocks(cells=64, outputs=64, inputs=32, warps=8, stages=2),
}


def triton_deform_conv2d(
    x: Tensor,
    offset: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Pair,
    padding: Pair,
    mask: Tensor | None = None,
    *,
    relu: bool = False,
    blocks: Blocks | None = None,
) -> Tensor:
    """Compute what `torchvision.ops.deform_conv2d` computes; `triton_deform_levels` of one level.

    Positions and sums are in float32 in every dtype, where torchvision has positions in half
    precision too. Maps in `torch.channels_last`, and parts of such, are read as they are, others
    are copied first.

    Args:
        x: (N, C, H, W) in float32, float16 or bfloat16.
        offset: (N, 2 * kh * kw, h, w), (dy, dx) of each tap in cells, taps by row.
        weight: (O, C, kh, kw).
        bias: (O,) or None.
        stride: (y, x).
        padding: (y, x).
        mask: (N, kh * kw, h, w), what each sampled value is multiplied by; None for 1.
        relu: whether the output is cut off at 0.
        blocks: how the launch is cut up; by default as `BLOCKS` says.

    Returns:
        (N, O, h, w) in `torch.channels_last`.
    """
    masks = None if mask is None else [mask]
    return triton_deform_levels(
        [x], [offset], weight, bias, stride, padding, masks, relu=relu, blocks=blocks
    )[0]


def triton_deform_levels(
    xs: Sequence[Tensor],
    offsets: Sequence[Tensor],
    weight: Tensor,
    bias: Tensor | None,
    stride: Pair,
    padding: Pair,
    masks: Sequence[Tensor] | None = None,
    *,
    relu: bool = False,
    blocks: Blocks | None = None,
) -> list[Tensor]:
    """Convolve several levels with the same weights, in one launch.

    Can be captured in a CUDA graph: nothing is searched or copied from the host. The repacked
    weights are kept with `weight` (see `packed`), so call it once before the capture.

    Args:
        xs: (N, C, H, W) of each level.
        offsets: of each level, as are the `masks`; all else as in `triton_deform_conv2d`.

    Returns:
        (N, O, h, w) of each level in `torch.channels_last`.

    Raises:
        UsageError: without triton or CUDA tensors, in another dtype, or with grouped weights.
    """
    kernel = _kernel()
    _check(xs, offsets, weight, masks)
    precision = _precision(weight.dtype)
    cut = blocks or _fitting(BLOCKS["half" if precision == "ieee" else precision], weight)
    xs = [_side_by_side(x) for x in xs]
    outs = [_empty(x, offset, weight) for x, offset in zip(xs, offsets, strict=True)]
    cells = (out.shape[0] * out.shape[2] * out.shape[3] for out in outs)
    tiles = [0, *accumulate(-(-count // cut.cells) for count in cells)]
    if tiles[-1] == 0:
        return outs
    sizes = (xs[0].shape[0], weight.shape[1], weight.shape[0], len(xs))
    widened = weight.dtype == torch.bfloat16 and _interpreted()
    flags = (masks is not None, bias is not None, relu, precision, widened)
    grid = (tiles[-1] * -(-weight.shape[0] // cut.outputs),)
    with torch.cuda.device_of(weight):
        kernel.deform_levels[grid](
            *_maps(xs, offsets, masks, outs, tiles),
            packed(weight),
            weight if bias is None else bias,
            *sizes,
            *stride,
            *padding,
            *weight.shape[2:],
            *flags,
            *cut[:3],
            num_warps=cut.warps,
            num_stages=cut.stages,
        )
    return outs


def _maps(
    xs: Sequence[Tensor],
    offsets: Sequence[Tensor],
    masks: Sequence[Tensor] | None,
    outs: Sequence[Tensor],
    tiles: Sequence[int],
) -> tuple[tuple[object, ...], ...]:
    """The arguments of the kernel that have a value per level, in its order."""
    given = offsets if masks is None else masks  # a pointer is needed, also where none is read
    return (
        tuple(xs),
        tuple(offsets),
        tuple(given),
        tuple(outs),
        tuple(tiles),
        tuple((*x.shape[2:], *out.shape[2:]) for x, out in zip(xs, outs)),
        tuple((x.stride(0), x.stride(2), x.stride(3)) for x in xs),
        tuple(offset.stride() for offset in offsets),
        tuple(mask.stride() for mask in given),
    )


class _Packed(NamedTuple):
    of: weakref.ref[Tensor]
    state: tuple[object, ...]
    weight: Tensor


_PACKED: dict[int, _Packed] = {}


def packed(weight: Tensor) -> Tensor:
    """A weight (O, C, kh, kw) as (kh * kw, C, O), made once and kept as long as the weight.

    Made anew where the weight has changed in place, moved or been cast; a change through `.data`
    is not seen. During a graph capture a new one belongs to the graph and is not kept.
    """
    state = (_version(weight), weight.data_ptr(), weight.dtype, weight.device)
    kept = _PACKED.get(id(weight))
    if kept is not None and kept.of() is weight and kept.state == state:
        hand_out(kept.weight)
        return kept.weight
    made = weight.detach().permute(2, 3, 1, 0).flatten(0, 1).contiguous()
    if not (weight.is_cuda and torch.cuda.is_current_stream_capturing()):
        key = id(weight)
        gone = weakref.ref(weight, lambda ref: _forget(key, ref))
        _PACKED[key] = _Packed(gone, state, made)
    return made


def _forget(key: int, ref: weakref.ref[Tensor]) -> None:
    """Drop what was kept for a weight that is gone, unless its number has a new owner."""
    if key in _PACKED and _PACKED[key].of is ref:
        del _PACKED[key]


def _version(weight: Tensor) -> int:
    """How often the weight was changed in place; tensors of inference mode do not count that."""
    return 0 if weight.is_inference() else weight._version


def available() -> bool:
    """Whether triton can be imported."""
    try:
        import triton  # noqa: F401
    except ImportError:
        return False
    return True


@cache
def _kernel() -> ModuleType:
    if not available():
        raise UsageError(
            "triton_deform_conv2d needs triton, which is not installed; install a CUDA build of "
            "torch, or use torchvision.ops.deform_conv2d"
        )
    from sepcbench.ops import deformable_kernel

    return deformable_kernel


def _interpreted() -> bool:
    """Whether triton runs kernels in its interpreter, on CPU tensors."""
    from triton import knobs

    return bool(knobs.runtime.interpret)


def _check(
    xs: Sequence[Tensor],
    offsets: Sequence[Tensor],
    weight: Tensor,
    masks: Sequence[Tensor] | None,
) -> None:
    who = "triton_deform_conv2d"
    taps = weight.shape[2] * weight.shape[3]
    channels = xs[0].shape[1]
    require(
        weight.is_cuda or _interpreted(),
        f"{who} needs CUDA tensors, not {weight.device.type}; use fast_deform_conv2d instead",
    )
    require(weight.dtype in DTYPES, f"{who} computes in float32, float16 or bfloat16")
    require(weight.shape[1] == channels, f"{who} has no groups: use torchvision.ops.deform_conv2d")
    for x, offset in zip(xs, offsets, strict=True):
        require(x.dtype == weight.dtype, f"{who} needs maps and weights of one dtype")
        require(offset.shape[1] == 2 * taps, f"{who} needs {2 * taps} offsets per cell")
    for mask in masks or ():
        require(mask.shape[1] == taps, f"{who} needs {taps} mask values per cell")


def _precision(dtype: torch.dtype) -> str:
    """How `tl.dot` multiplies: float32 in TF32 where torch may, else in three TF32 products."""
    if dtype != torch.float32:
        return "ieee"
    return "tf32" if torch.backends.cuda.matmul.allow_tf32 else "tf32x3"


def _fitting(cut: Blocks, weight: Tensor) -> Blocks:
    """No wider than the weights: blocks are powers of 2, of at least 16."""
    outputs, inputs = (max(16, 1 << (size - 1).bit_length()) for size in weight.shape[:2])
    return cut._replace(outputs=min(cut.outputs, outputs), inputs=min(cut.inputs, inputs))


def _side_by_side(x: Tensor) -> Tensor:
    """The map itself where the channels of a cell lie side by side, else a copy that is so."""
    whole = x.stride(1) == 1 or x.shape[1] == 1
    return x if whole else x.contiguous(memory_format=torch.channels_last)


def _empty(x: Tensor, offset: Tensor, weight: Tensor) -> Tensor:
    size = (x.shape[0], weight.shape[0], *offset.shape[2:])
    whole = torch.channels_last
    return torch.empty(size, dtype=x.dtype, device=x.device, memory_format=whole)
