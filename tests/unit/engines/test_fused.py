"""Fast twins compute what the plain modules do, whichever steps they take."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from sepcbench.detectors import build
from sepcbench.engines.folding import fold, folded_block
from sepcbench.engines.fused import (
    STEPS,
    TWINS,
    FastCombinedTower,
    FastDeformableConv,
    FastPointConv,
    FastPyramidBlock,
    fuse,
)
from sepcbench.engines.outputs import output_error
from sepcbench.engines.reading import Reading, Steps
from sepcbench.heads import HEADS
from sepcbench.necks import NECKS
from sepcbench.ops.convs import PyramidBlock
from sepcbench.ops.deformable import DeformableConv
from sepcbench.ops.norms import NoNorm
from sepcbench.specs import NATIVE, PconvSpec, RetinaSpec, SepcSpec
from sepcbench.variants import variant

ALL = [Steps(*chosen) for chosen in product((False, True), repeat=2)]
ODD = ((23, 19), (12, 10), (6, 5), (3, 3))
TO_ONE = ((9, 5), (5, 3), (3, 2), (2, 1), (1, 1))
NONE: dict[str, Any] = {"channels": 8, "depth": 2, "norm": "none"}
SPECS = {
    "pconv": PconvSpec(**NONE),
    "gn": PconvSpec(channels=8, depth=2, norm="gn", groups=2),
    "independent": PconvSpec(channels=8, depth=2, norm="independent"),
    "separate": PconvSpec(**NONE, branches="separate"),
    "stand alone": PconvSpec(**NONE, branches="none"),
    "scale kernel 1": PconvSpec(**NONE, scale_kernel=1),
    "no padding": PconvSpec(**NONE, extra_padding=0),
    "lite": SepcSpec(**NONE, deform="lite"),
    "lite, no padding": SepcSpec(**NONE, deform="lite", extra_padding=0),
    "full": SepcSpec(**NONE),
    "full from 0": SepcSpec(**NONE, deform_from=0),
    "full from 2": SepcSpec(**NONE, deform_from=2),
    "full from 9": SepcSpec(**NONE, deform_from=9, extra_padding=0),
}
LIMITS = {torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 2e-2}


def neck_of(name: str, levels: int = 4) -> nn.Module:
    """A neck in a container, as `fuse` replaces what is inside; random weights and offsets."""
    spec = SPECS[name]
    neck = NECKS[type(spec)](spec, (spec.channels,) * levels)  # type: ignore[attr-defined]
    return randomised(nn.Sequential(neck))


def randomised(module: nn.Module) -> nn.Module:
    torch.manual_seed(1)
    for name, values in module.named_parameters():
        fan = values[0].numel() if values.dim() == 4 else 25
        nn.init.normal_(values, std=fan**-0.5)
        if ".offset." in name:
            nn.init.normal_(values, std=2 * fan**-0.5)
    return module.eval().requires_grad_(False)


def pyramid(sizes: tuple[tuple[int, int], ...], channels: int = 8, batch: int = 2) -> list[Tensor]:
    torch.manual_seed(2)
    return [torch.randn(batch, channels, *size) for size in sizes]


@pytest.mark.parametrize("steps", ALL, ids=str)
@pytest.mark.parametrize("name", SPECS)
def test_a_neck_gives_the_same(name: str, steps: Steps) -> None:
    neck = neck_of(name)
    levels = pyramid(ODD)
    wanted = neck(levels)
    fast = fuse(copy.deepcopy(neck), steps)
    assert output_error(fast(levels), wanted) <= LIMITS[torch.float32]
    for a, b in zip(levels, pyramid(ODD)):
        assert torch.equal(a, b), "inputs are overwritten"
    fast = fast.to(memory_format=torch.channels_last)
    laid_out = [x.contiguous(memory_format=torch.channels_last) for x in levels]
    assert output_error(fast(laid_out), wanted) <= LIMITS[torch.float32]


@pytest.mark.parametrize("steps", ALL[::3], ids=str)
@pytest.mark.parametrize("name", ["pconv", "lite", "full", "scale kernel 1"])
@pytest.mark.parametrize("count", [1, 2, 5])
def test_levels_down_to_one_cell_and_one_level(name: str, steps: Steps, count: int) -> None:
    neck, levels = neck_of(name, count), pyramid(TO_ONE[:count])
    wanted = neck(levels)
    assert output_error(fuse(neck, steps)(levels), wanted) <= LIMITS[torch.float32]


@pytest.mark.parametrize("steps", ALL[::3], ids=str)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", ["pconv", "full"])
def test_half_precision(name: str, dtype: torch.dtype, steps: Steps) -> None:
    neck = neck_of(name).to(dtype)
    levels = [x.to(dtype) for x in pyramid(ODD)]
    wanted = neck(levels)
    assert output_error(fuse(neck, steps)(levels), wanted) <= LIMITS[dtype]


@pytest.mark.parametrize("steps", ALL[::3], ids=str)
@pytest.mark.parametrize("spec", [PconvSpec(depth=1), SepcSpec(depth=1)], ids=["pconv", "full"])
def test_256_channels_with_folded_norms(spec: PconvSpec | SepcSpec, steps: Steps) -> None:
    neck = randomised(nn.Sequential(NECKS[type(spec)](spec, (256,) * 4)))
    levels = pyramid(ODD, 256, batch=1)
    wanted = neck(levels)
    for block in [part for part in neck.modules() if type(part) is PyramidBlock]:
        folded = folded_block(block)
        block.conv, block.norm = folded.conv, folded.norm
    fast = fuse(neck, steps)
    assert output_error(fast(levels), wanted) <= LIMITS[torch.float32]


@pytest.mark.parametrize("steps", ALL, ids=str)
@pytest.mark.parametrize("deform", [False, True])
def test_the_towers_of_a_dense_head(deform: bool, steps: Steps) -> None:
    spec = RetinaSpec(depth=2, channels=8, norm="none", deform=deform)
    head = randomised(HEADS[RetinaSpec](spec, (8,) * 4, 3, (8, 16, 32, 64), NATIVE))
    levels = pyramid(ODD)
    wanted = head(levels)
    fuse(head, steps)
    assert sum(isinstance(part, FastPyramidBlock) for part in head.modules()) == 4
    assert output_error(head(levels), wanted) <= LIMITS[torch.float32]


@pytest.mark.parametrize(
    ("name", "twin"),
    [
        ("retinanet_tiny_sepc", FastCombinedTower),
        ("retinanet_tiny_fpn", FastPyramidBlock),
        ("reppoints_tiny_sepc", FastPointConv),
    ],
)
def test_a_folded_detector(name: str, twin: type[nn.Module]) -> None:
    detector = randomised(build(variant(name), seed=0))
    images = pyramid(((128, 128),), 3, batch=1)[0]
    wanted = detector(images)
    fast = fuse(fold(copy.deepcopy(detector))).to(memory_format=torch.channels_last)
    assert any(isinstance(part, twin) for part in fast.modules())
    assert not any(type(part) in TWINS for part in fast.modules() if not in_a_twin(part, fast))
    images = images.contiguous(memory_format=torch.channels_last)
    assert output_error(fast(images), wanted) <= LIMITS[torch.float32]


def in_a_twin(part: nn.Module, root: nn.Module) -> bool:
    """Twins keep the plain convs, for their weights."""
    keepers = (Reading, FastDeformableConv, FastPointConv)
    return any(
        part is inner
        for keeper in root.modules()
        if isinstance(keeper, keepers)
        for inner in keeper.modules()
        if inner is not keeper
    )


def test_deformable_convs_of_a_backbone() -> None:
    for kind in ("v1", "v2"):
        plain = nn.Conv2d(8, 6, 3, 2, 1, groups=2)
        holder = randomised(nn.Sequential(DeformableConv.like(plain, kind)))
        x = torch.randn(2, 8, 9, 7)
        wanted = holder(x)
        fuse(holder)
        assert isinstance(holder[0], FastDeformableConv)
        assert output_error(holder(x), wanted) <= LIMITS[torch.float32]


class Calls(TorchFunctionMode):
    """How often each function of torch is called."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.counts[getattr(func, "__name__", "")] += 1
        return func(*args, **(kwargs or {}))


def convs(neck: nn.Module, levels: list[Tensor]) -> int:
    with Calls() as calls:
        neck(levels)
    return calls.counts["conv2d"]


def test_each_step_saves_convs() -> None:
    """A plain PConv of 4 levels is 4 + 3 + 3 convs; two of them, then 4 for each branch."""
    levels = pyramid(ODD)
    assert convs(neck_of("pconv"), levels) == 2 * 10 + 2 * 4
    assert convs(fuse(neck_of("pconv"), Steps(join=True, pack=False)), levels) == 2 * 7 + 4
    assert convs(fuse(neck_of("pconv"), Steps(join=True, pack=True)), levels) == 2 * 4 + 2
    assert convs(fuse(neck_of("pconv"), Steps(join=False, pack=True)), levels) == 2 * 5 + 4
    assert convs(fuse(neck_of("lite"), Steps(join=True, pack=True)), levels) == 2 * 4 + 1 + 1


@pytest.mark.parametrize("name", ["pconv", "full", "lite, no padding"])
def test_nothing_depends_on_values(name: str) -> None:
    """As a CUDA graph demands: on the meta device there are no values to wait for."""
    fast = fuse(neck_of(name), STEPS["cuda"]).to("meta")
    levels = [x.to("meta") for x in pyramid(ODD)]
    wanted = neck_of(name)(pyramid(ODD))
    for found, plain in zip(fast(levels), wanted):
        assert [x.shape for x in found] == [x.shape for x in plain]


def test_the_steps_are_those_of_the_device() -> None:
    assert set(STEPS) == {"cpu", "cuda"}
    levels = pyramid(ODD)
    assert convs(fuse(neck_of("full")), levels) == convs(
        fuse(neck_of("full"), STEPS["cpu"]), levels
    )


def test_an_own_block_stays() -> None:
    """Only outputs of convs that have a twin may be overwritten."""

    class Same(nn.Module):
        def forward(self, levels: list[Tensor]) -> list[Tensor]:
            return levels

    holder = nn.Sequential(PyramidBlock(Same(), NoNorm())).eval()
    levels = pyramid(ODD)
    fuse(holder, STEPS["cpu"])(levels)
    for a, b in zip(levels, pyramid(ODD)):
        assert torch.equal(a, b)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
