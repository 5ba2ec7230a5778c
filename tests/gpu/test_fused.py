"""Fused necks on a real GPU: parity with the plain ones, also recorded in a CUDA graph."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sepcbench.engines.engine import laid_out, to_channels_last
from sepcbench.engines.fused import fuse
from sepcbench.engines.graphs import run_graphed
from sepcbench.measures.cases import Case
from sepcbench.measures.correctness import check_outputs
from sepcbench.necks import NECKS
from sepcbench.specs import Dtype, PconvSpec, SepcSpec

pytestmark = pytest.mark.gpu
SIZES = ((100, 168), (50, 84), (25, 42), (13, 21), (7, 11))  # P3..P7 of 800x1344
SPECS = {
    "pconv": PconvSpec(norm="none"),
    "lite": SepcSpec(norm="none", deform="lite"),
    "full": SepcSpec(norm="none", extra_padding=0),
}
DTYPES: dict[torch.dtype, Dtype] = {
    torch.float32: "fp32",
    torch.float16: "fp16",
    torch.bfloat16: "bf16",
}


@pytest.fixture(autouse=True)
def strict_float32() -> Iterator[None]:
    """No TF32; put back afterwards."""
    flags = torch.backends.cuda.matmul, torch.backends.cudnn
    before = [flag.allow_tf32 for flag in flags]
    for flag in flags:
        flag.allow_tf32 = False
    yield
    for flag, was in zip(flags, before):
        flag.allow_tf32 = was


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", SPECS)
@torch.inference_mode()
def test_a_fused_neck_gives_the_same_eagerly_and_replayed(name: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    spec = SPECS[name]
    neck = nn.Sequential(NECKS[type(spec)](spec, (256,) * len(SIZES))).eval()
    for key, values in neck.named_parameters():
        nn.init.normal_(values, std=0.02 if ".offset." not in key else 0.01)
    neck = neck.to("cuda", dtype)
    levels = [torch.randn(1, 256, *size, device="cuda", dtype=dtype) for size in SIZES]
    case = Case(name, name, "fused", DTYPES[dtype], 1, SIZES[0])

    def check(found: Any, maps: list[Tensor]) -> None:
        """As before a measurement: torchvision has positions in half precision, which is coarse."""
        maps = [x.contiguous() for x in maps]
        wide = copy.deepcopy(neck).float()
        check_outputs(found, neck(maps), case, lambda: wide([x.float() for x in maps]))

    fast = to_channels_last(fuse(copy.deepcopy(neck)))
    inputs = laid_out((levels,))
    check(fast(*inputs), levels)
    replay = run_graphed(fast, inputs)
    check(replay(), levels)
    for x in inputs[0]:
        x.mul_(0.5)
    check(replay(), inputs[0])
