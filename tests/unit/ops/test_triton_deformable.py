"""The Triton deformable conv without a GPU: in triton's interpreter, and compiled for cards."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from deformable_cases import CASES
from torch import nn

from sepcbench.errors import UsageError
from sepcbench.ops import triton_deformable
from sepcbench.ops.triton_deformable import BLOCKS, packed, triton_deform_conv2d

TESTS = Path(__file__).parents[2]
LIMITS = {"fp32": 1e-5, "fp16": 2e-3, "bf16": 2e-2}
needs_triton = pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed")


def program(name: str, **variables: str) -> dict[str, float]:
    """What a program of the tests prints as JSON, run in a process of its own."""
    path = os.pathsep.join([str(TESTS.parent), str(TESTS)])
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(TESTS / name)],
        capture_output=True,
        text=True,
        timeout=240,
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **variables},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def errors() -> dict[str, float]:
    return program("deformable_cases.py", TRITON_INTERPRET="1")


@needs_triton
@pytest.mark.parametrize("name", CASES)
def test_the_interpreted_kernel_computes_what_torchvision_does(
    name: str, errors: dict[str, float]
) -> None:
    assert errors[name] <= LIMITS[CASES[name].dtype]


@needs_triton
@pytest.mark.slow
def test_the_kernel_compiles_for_cards_that_are_not_here() -> None:
    """And fits the shared memory of a program: 163 KiB, consumer cards 99, Hopper 227."""
    shared = program("deformable_compiling.py")
    assert shared["fp16 80"] <= 99 * 1024
    assert max(shared["fp16 90"], shared["fp32 90"]) <= 227 * 1024


@needs_triton
def test_tensors_that_are_not_on_a_gpu_are_an_error() -> None:
    x, weight = torch.zeros(1, 4, 3, 3), torch.zeros(4, 4, 3, 3)
    with pytest.raises(UsageError, match="needs CUDA tensors, not cpu; use fast_deform_conv2d"):
        triton_deform_conv2d(x, torch.zeros(1, 18, 3, 3), weight, None, (1, 1), (1, 1))


def test_without_triton_calling_is_an_error_and_importing_is_not() -> None:
    code = (
        "import sys; sys.modules['triton'] = None\n"
        "import torch\n"
        "from sepcbench.errors import UsageError\n"
        "from sepcbench.ops.fast_deformable import way\n"
        "from sepcbench.ops.triton_deformable import available, triton_deform_conv2d\n"
        "assert not available()\n"
        "x, offset, weight = (torch.zeros(1, c, 3, 3) for c in (4, 18, 4))\n"
        "assert way(x, offset, weight) == 'gathered'\n"
        "try: triton_deform_conv2d(x, offset, weight, None, (1, 1), (1, 1))\n"
        "except UsageError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "needs triton, which is not installed" in done.stdout


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weight": (4, 2, 3, 3)}, "no groups"),
        ({"offset": (1, 36, 3, 3)}, "18 offsets per cell"),
        ({"mask": (1, 18, 3, 3)}, "9 mask values per cell"),
        ({"dtype": torch.float64}, "float32, float16 or bfloat16"),
    ],
)
def test_what_it_cannot_compute_is_one_line(
    change: dict[str, object], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(triton_deformable, "_kernel", lambda: None)
    monkeypatch.setattr(triton_deformable, "_interpreted", lambda: True)
    sizes = {
        "x": (1, 4, 3, 3),
        "offset": (1, 18, 3, 3),
        "weight": (4, 4, 3, 3),
        "mask": (1, 9, 3, 3),
    }
    dtype = change.pop("dtype", torch.float32)
    given = {name: torch.zeros(size, dtype=dtype) for name, size in {**sizes, **change}.items()}  # type: ignore
    with pytest.raises(UsageError, match=message):
        triton_deform_conv2d(**given, bias=None, stride=(1, 1), padding=(1, 1))  # type: ignore


def test_weights_are_repacked_once_and_anew_when_they_change() -> None:
    conv = nn.Conv2d(3, 5, (2, 4))
    first = packed(conv.weight)
    assert torch.equal(first[1 * 4 + 2, 1], conv.weight[:, 1, 1, 2])
    assert first.shape == (8, 3, 5)
    assert first.is_contiguous()
    assert not first.requires_grad
    assert packed(conv.weight) is first
    with torch.no_grad():
        conv.weight.mul_(2)
    second = packed(conv.weight)
    assert torch.equal(second, 2 * first)
    conv.half()
    assert packed(conv.weight).dtype == torch.float16
    conv.load_state_dict({key: torch.ones_like(old) for key, old in conv.state_dict().items()})
    assert packed(conv.weight).eq(1).all()


def test_what_is_kept_goes_with_the_weight() -> None:
    weight = torch.zeros(2, 2, 3, 3)
    packed(weight)
    key = id(weight)
    assert key in triton_deformable._PACKED
    del weight
    gc.collect()
    assert key not in triton_deformable._PACKED


def test_weights_of_inference_mode_can_be_repacked() -> None:
    with torch.inference_mode():
        weight = torch.randn(2, 2, 3, 3)
        assert packed(weight) is packed(weight)


def test_blocks_are_powers_of_two_that_fit_the_weights() -> None:
    """`tl.arange` and `tl.dot` need powers of 2, of at least 16."""
    for cut in BLOCKS.values():
        for outputs, inputs in ((1, 3), (20, 20), (256, 256), (300, 1000)):
            found = triton_deformable._fitting(cut, torch.empty(outputs, inputs, 3, 3))
            for size in found[:4]:
                assert size.bit_count() == 1
            assert min(found[:3]) >= 16
            assert found.outputs <= max(16, 2 * outputs)
