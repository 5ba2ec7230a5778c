"""Which deformable conv is chosen, and that all of them compute the same."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from deformable_cases import CASES, Case, error, make, wanted
from torch import Tensor
from torchvision.ops import deform_conv2d

from sepcbench.ops import fast_deformable, triton_deformable
from sepcbench.ops.fast_deformable import fast_deform_conv2d, fast_deform_levels, way

LIMITS = {"fp32": 1e-5, "fp16": 1e-2, "bf16": 3e-2}
TENSORS = (torch.zeros(1, 4, 3, 3), torch.zeros(1, 18, 3, 3), torch.zeros(4, 4, 3, 3))


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.batch])
def test_levels_on_a_cpu_are_what_torchvision_computes(name: str) -> None:
    case = CASES[name]
    of = make(case)
    found = fast_deform_levels(
        of.xs, of.offsets, of.weight, of.bias, case.stride, case.padding, of.masks, relu=case.relu
    )
    assert all(out.dtype == x.dtype for out, x in zip(found, of.xs))
    assert error(found, wanted(case, of)) <= LIMITS[case.dtype]


def test_one_level_is_as_of_several() -> None:
    case = replace(CASES["v2"], relu=True)
    of = make(case)
    assert of.masks is not None
    arguments = (of.xs[0], of.offsets[0], of.weight, of.bias, case.stride, case.padding)
    found = fast_deform_conv2d(*arguments, of.masks[0], relu=True)
    assert error([found], wanted(case, of)) <= LIMITS["fp32"]


def test_no_level_is_no_output() -> None:
    assert fast_deform_levels([], [], TENSORS[2], None, (1, 1), (1, 1)) == []


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_the_gather_on_a_cpu(dtype: torch.dtype) -> None:
    assert way(*(t.to(dtype) for t in TENSORS)) == "gathered"


def test_torchvision_where_nothing_else_can() -> None:
    x, offset, weight = TENSORS
    assert way(x, offset, weight[:, :2]) == "torchvision", "groups"
    assert way(x, torch.zeros(1, 36, 3, 3), weight) == "torchvision", "two offset groups"
    assert way(x.double(), offset.double(), weight.double()) == "torchvision"
    training = weight.clone().requires_grad_()
    assert way(x, offset, training) == "torchvision", "gradients"
    with torch.no_grad():
        assert way(x, offset, training) == "gathered"


class OnGpu(torch.Tensor):
    """A tensor that says it lies on a GPU."""

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return torch.device("cuda", 0)


@pytest.mark.parametrize(
    ("capability", "installed", "hip", "chosen"),
    [
        ((9, 0), True, None, "triton"),
        ((8, 0), True, None, "triton"),
        ((7, 5), True, None, "torchvision"),
        ((9, 0), False, None, "torchvision"),
        ((9, 0), True, "6.0", "torchvision"),
    ],
)
def test_triton_on_a_new_nvidia_card(
    capability: tuple[int, int],
    installed: bool,
    hip: str | None,
    chosen: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fast_deformable._has_triton.cache_clear()
    monkeypatch.setattr(triton_deformable, "available", lambda: installed)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    monkeypatch.setattr(torch.version, "hip", hip)
    with torch.no_grad():
        assert way(*(t.as_subclass(OnGpu) for t in TENSORS)) == chosen
    fast_deformable._has_triton.cache_clear()


def test_triton_gets_all_levels_in_one_call(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[object, ...]] = []

    def launch(*arguments: object, **named: object) -> list[Tensor]:
        calls.append(arguments)
        assert named == {"relu": True}
        return []

    monkeypatch.setattr(fast_deformable, "way", lambda *_: "triton")
    monkeypatch.setattr(triton_deformable, "triton_deform_levels", launch)
    of = make(CASES["levels"])
    fast_deform_levels(of.xs, of.offsets, of.weight, of.bias, (1, 1), (1, 1), relu=True)
    assert calls == [(of.xs, of.offsets, of.weight, of.bias, (1, 1), (1, 1), None)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_groups_and_gradients_go_through_torchvision(dtype: torch.dtype) -> None:
    of = make(Case(channels=8, outputs=8))
    weight = of.weight[:, :4].to(dtype).requires_grad_()
    x, offset = of.xs[0].to(dtype), of.offsets[0].to(dtype)
    found = fast_deform_conv2d(x, offset, weight, None, (1, 1), (1, 1))
    expected = deform_conv2d(x.float(), offset.float(), weight.float(), None, (1, 1), (1, 1))
    assert torch.equal(found, expected.to(dtype))
    found.float().sum().backward()
    assert weight.grad is not None


def test_positions_in_half_precision_are_as_exact_as_the_offsets() -> None:
    """torchvision adds place and offset in float16, whose steps are 1/16 cell from cell 64 on."""
    case = Case(((12, 100),), 1, 16, 16, dtype="fp16", spread=1.0)
    of = make(case)
    expected = wanted(case, of)
    arguments = (of.xs[0], of.offsets[0], of.weight, of.bias, (1, 1), (1, 1))
    assert error([fast_deform_conv2d(*arguments)], expected) < 2e-3
    assert error([deform_conv2d(*arguments)], expected) > 1e-2
