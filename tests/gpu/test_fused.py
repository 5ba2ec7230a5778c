"""Fused necks on a real GPU: parity with the plain ones, also recorded in a CUDA graph."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest
import torch
from torch import nn

from sepcbench.engines.engine import laid_out, to_channels_last
from sepcbench.engines.fused import fuse
from sepcbench.engines.graphs import run_graphed
from sepcbench.engines.outputs import output_error
from sepcbench.necks import NECKS
from sepcbench.specs import PconvSpec, SepcSpec

pytestmark = pytest.mark.gpu
SIZES = ((100, 168), (50, 84), (25, 42), (13, 21), (7, 11))  # P3..P7 of 800x1344
SPECS = {
    "pconv": PconvSpec(norm="none"),
    "lite": SepcSpec(norm="none", deform="lite"),
    "full": SepcSpec(norm="none", extra_padding=0),
}
LIMITS = {torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 2e-2}


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


@pytest.mark.parametrize("dtype", LIMITS, ids=str)
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
    wanted = neck(levels)
    fast = to_channels_last(fuse(copy.deepcopy(neck)))
    inputs = laid_out((levels,))
    assert output_error(fast(*inputs), wanted) <= LIMITS[dtype]
    replay = run_graphed(fast, inputs)
    assert output_error(replay(), wanted) <= LIMITS[dtype]
    for x in inputs[0]:
        x.mul_(0.5)
    assert output_error(replay(), neck([x.contiguous() for x in inputs[0]])) <= LIMITS[dtype]
