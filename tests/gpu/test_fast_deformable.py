"""The Triton deformable conv on a real GPU: parity, graphs, and its speed beside torchvision's."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

import pytest
import torch
from deformable_cases import CASES, DTYPES, Case, Tensors, error, make, wanted
from torch import Tensor

from sepcbench.ops.fast_deformable import fast_deform_levels, way
from sepcbench.ops.triton_deformable import BLOCKS, Blocks, triton_deform_levels

pytestmark = pytest.mark.gpu
LIMITS = {"fp32": 1e-4, "tf32": 5e-3, "fp16": 5e-3, "bf16": 2e-2}
SEPC = ((50, 84), (25, 42), (13, 21), (7, 11))  # P4..P7 of 800x1344


@pytest.fixture(autouse=True)
def strict_float32() -> object:
    """No TF32, neither here nor in what torchvision computes; put back afterwards."""
    matmul = torch.backends.cuda.matmul
    before, matmul.allow_tf32 = matmul.allow_tf32, False
    yield
    matmul.allow_tf32 = before


def compute(case: Case, of: Tensors, blocks: Blocks | None = None) -> list[Tensor]:
    return triton_deform_levels(
        of.xs,
        of.offsets,
        of.weight,
        of.bias,
        case.stride,
        case.padding,
        of.masks,
        relu=case.relu,
        blocks=blocks,
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", CASES)
def test_small_and_odd_shapes(name: str, dtype: str) -> None:
    case = replace(CASES[name], dtype=dtype)
    if dtype == "fp16":
        case = replace(case, spread=min(case.spread, 1e4))  # beyond them half precision is infinite
    of = make(case, "cuda")
    assert error(compute(case, of), wanted(case, of)) <= LIMITS[dtype]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("batch", [1, 3])
def test_the_levels_of_sepc(dtype: str, masked: bool, stride: int, batch: int) -> None:
    case = Case(SEPC, batch, 256, 256, stride=(stride,) * 2, masked=masked, dtype=dtype)
    for layout in (case, replace(case, channels_last=True)):
        of = make(layout, "cuda")
        assert error(compute(layout, of), wanted(layout, of)) <= LIMITS[dtype]


def test_tf32_where_torch_may_use_it() -> None:
    case = Case(SEPC, 1, 256, 256)
    of = make(case, "cuda")
    expected = wanted(case, of)
    strict = error(compute(case, of), expected)
    torch.backends.cuda.matmul.allow_tf32 = True
    fast = error(compute(case, of), expected)
    assert strict <= LIMITS["fp32"]
    assert strict < fast <= LIMITS["tf32"]


def test_it_is_chosen_on_this_device() -> None:
    of = make(Case(), "cuda")
    with torch.no_grad():
        assert way(of.xs[0], of.offsets[0], of.weight) == "triton"
        found = fast_deform_levels(of.xs, of.offsets, of.weight, of.bias, (1, 1), (1, 1))
    assert error(found, wanted(Case(), of)) <= LIMITS["fp32"]


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_graph_of_it_reads_its_inputs_anew(dtype: str) -> None:
    case = Case(SEPC, 1, 256, 256, dtype=dtype, channels_last=True)
    of, other = make(case, "cuda"), make(case, "cuda", seed=1)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        compute(case, of)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = compute(case, of)
    for kept, given in zip((*of.xs, *of.offsets), (*other.xs, *other.offsets)):
        kept.copy_(given)
    graph.replay()
    torch.cuda.synchronize()
    assert error(found, wanted(case, of)) <= LIMITS[dtype]


def median_ms(call: Callable[[], object]) -> float:
    """Milliseconds of a call replayed from a graph, so that launching does not count."""
    for _ in range(3):
        call()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(10):
            call()
    times = []
    for _ in range(30):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) / 10)
    return sorted(times)[len(times) // 2]


@pytest.mark.parametrize("dtype", ["fp32", "tf32", "fp16", "bf16"])
@pytest.mark.parametrize("batch", [1, 8])
def test_speed_beside_torchvision(dtype: str, batch: int, capsys: pytest.CaptureFixture) -> None:
    """Printed for docs/performance.md: all levels in one launch against one call per level."""
    from sepcbench.ops.fast_deformable import _torchvision

    torch.backends.cuda.matmul.allow_tf32 = dtype == "tf32"
    case = Case(SEPC, batch, 256, 256, spread=1.0, dtype=dtype.replace("tf32", "fp32"))
    of, last = make(case, "cuda"), make(replace(case, channels_last=True), "cuda")

    def plain() -> None:
        for x, offset in zip(of.xs, of.offsets):
            _torchvision(x, offset, of.weight, of.bias, (1, 1), (1, 1), None)

    with torch.no_grad():
        theirs, ours = median_ms(plain), median_ms(lambda: compute(case, last))
    with capsys.disabled():
        print(
            f"\ndeformable 3x3, 256 channels, P4..P7, batch {batch}, {dtype}: torchvision "
            f"{theirs:.3f} ms, triton {ours:.3f} ms, {theirs / ours:.2f} times as fast"
        )


def some_blocks(precision: str) -> list[Blocks]:
    """The one that is used, and what is one step away from it and fits the registers."""
    used = BLOCKS[precision]
    near = [used]
    near += [used._replace(cells=cells) for cells in (32, 128)]
    near += [used._replace(outputs=outputs) for outputs in (64, 128, 256)]
    near += [used._replace(inputs=inputs) for inputs in (32, 64, 128)]
    near += [used._replace(warps=4), used._replace(stages=1), used._replace(stages=3)]
    return [cut for cut in dict.fromkeys(near) if cut.cells * cut.outputs <= cut.warps * 2048]


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["fp32", "tf32", "fp16", "bf16"])
def test_which_blocks_would_be_the_best(dtype: str, capsys: pytest.CaptureFixture) -> None:
    """Printed for the table `BLOCKS`, which is fixed so that the first call can be recorded.

    About ten compilations per dtype; triton keeps them, so that one that was broken off goes on.
    """
    from triton.runtime.errors import OutOfResources

    torch.backends.cuda.matmul.allow_tf32 = dtype == "tf32"
    case = Case(SEPC, 1, 256, 256, spread=1.0, channels_last=True)
    case = replace(case, dtype=dtype.replace("tf32", "fp32"))
    of, times = make(case, "cuda"), {}
    precision = {"fp32": "tf32x3", "tf32": "tf32"}.get(dtype, "half")
    for cut in some_blocks(precision):
        with suppress(OutOfResources):  # more shared memory than there is
            times[cut] = median_ms(lambda cut=cut: compute(case, of, cut))
    with capsys.disabled():
        for cut, took in sorted(times.items(), key=lambda one: one[1])[:5]:
            print(f"\n{dtype}: {took:.4f} ms with {cut}", end="")
        print()
    assert times
