"""Compile the Triton kernel for NVIDIA cards that need not be there; prints JSON.

For each dtype and compute capability the bytes of shared memory per program. The arguments pass
through the same binding as in a launch; only the launch itself is left out.
"""

from __future__ import annotations

import json
from typing import Any

import torch
from deformable_cases import Case, make

TARGETS = (("fp16", 80), ("fp16", 90), ("fp32", 90))  # dtype, compute capability times ten


class NoCard:
    """Stands for the driver of a card, as far as compiling asks for one."""

    def __init__(self, capability: int) -> None:
        self.capability = capability

    def get_current_target(self) -> Any:
        from triton.backends.compiler import GPUTarget

        return GPUTarget("cuda", self.capability, 32)

    def get_current_device(self) -> int:
        return self.capability

    def get_current_stream(self, device: int) -> int:
        return 0


class Compiled:
    """Stands for the kernel: compiles where it would be launched."""

    def __init__(self, kernel: Any) -> None:
        self.kernel = kernel
        self.found: list[Any] = []

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        def launch(*arguments: object, **options: int) -> None:
            self.found.append(self.kernel.warmup(*arguments, grid=grid, **options))

        return launch


def main() -> None:
    from triton.runtime import driver

    from sepcbench.ops import deformable_kernel, triton_deformable

    shared = {}
    kernel = deformable_kernel.deform_levels
    triton_deformable._check = lambda *_: None  # the tensors lie in the memory of the host
    for dtype, capability in TARGETS:
        driver.set_active(NoCard(capability))
        deformable_kernel.deform_levels = compiled = Compiled(kernel)
        case = Case(((8, 8), (4, 4)), 1, 256, 256, dtype=dtype, channels_last=True)
        of = make(case)
        triton_deformable.triton_deform_levels(
            of.xs, of.offsets, of.weight, of.bias, case.stride, case.padding, relu=True
        )
        (made,) = compiled.found
        shared[f"{dtype} {capability}"] = made.metadata.shared
    print(json.dumps(shared))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
