"""The processes of one job under `torchrun`: who this is of how many, and what they add up.

Without `torchrun` there is one process, and everything here leaves values as they are.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch import distributed as dist

from sepcbench.errors import UsageError

# longer than one process may score a set, or download weights, while the others wait
_PATIENCE = timedelta(hours=3)


@dataclass(frozen=True)
class Job:
    """This process among all of a job: `rank` of `world`."""

    rank: int = 0
    world: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process writes, prints and shows progress for all."""
        return self.rank == 0


def job() -> Job:
    """This process, once `joined`; one alone otherwise."""
    if dist.is_available() and dist.is_initialized():
        return Job(dist.get_rank(), dist.get_world_size())
    return Job()


def announced() -> Job:
    """This process as `torchrun` started it, known before it has joined the others."""
    try:
        found = Job(int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1)))
    except ValueError:
        raise UsageError("RANK and WORLD_SIZE of the environment are not numbers") from None
    return found if "RANK" in os.environ else Job()


def own_device(device: str) -> str:
    """The device of this process: of "cuda", the GPU of its number on this machine.

    Raises:
        UsageError: one GPU by its number, for several processes.
    """
    world = announced().world
    if world == 1 or not device.startswith("cuda"):
        return device
    if device != "cuda":
        raise UsageError(
            f"device '{device}' is one GPU, and torchrun has started {world} processes; use "
            "--device cuda, which gives each its own"
        )
    return f"cuda:{os.environ.get('LOCAL_RANK', '0')}"


@contextmanager
def joined(device: str) -> Iterator[Job]:
    """Join the other processes of `torchrun`, if it started this one and there are others.

    After an exception the group stays: leaving it could wait for the others, who wait for this
    process. A command then ends at once (`among_others`), and `torchrun` ends the others.

    Args:
        device: of this process, its current one inside; the processes talk by NCCL between GPUs,
            by gloo otherwise.
    """
    gpu = device.startswith("cuda")
    with torch.cuda.device(device) if gpu else nullcontext():
        if announced().world == 1 or dist.is_initialized():
            yield job()
            return
        dist.init_process_group("cpu:gloo,cuda:nccl" if gpu else "gloo", timeout=_PATIENCE)
        yield job()
        dist.destroy_process_group()


def among_others() -> bool:
    """Whether this process has joined others and has not left them."""
    return job().world > 1


def lost_another(error: BaseException) -> bool:
    """Whether an error is that another process of the job has gone, and not one of this process."""
    if not isinstance(error, RuntimeError) or not among_others():
        return False
    return isinstance(error, dist.DistError) or "gloo" in str(error)


class _AllSum(torch.autograd.Function):
    """Add up over processes; the gradients are added up too."""

    @staticmethod
    def forward(context: Any, value: Tensor) -> Tensor:
        return all_sum_(value.detach().clone())

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        return all_sum_(gradient.detach().clone())


def all_sum(value: Tensor) -> Tensor:
    """The sum of a tensor over all processes, which gradients go through."""
    return value if job().world == 1 else _AllSum.apply(value)  # type: ignore[no-any-return]


def all_sum_(value: Tensor) -> Tensor:
    """Add up a tensor over all processes in place, and give it back."""
    if job().world > 1:
        dist.all_reduce(value)
    return value


Count = TypeVar("Count", bound=Any)


def mean_over_processes(count: Count, like: Tensor) -> Count:
    """The mean of a number over all processes; as it is where there is one.

    Losses divided by it and averaged over processes, as gradients are, come out as of one process
    with all images.

    Args:
        count: of this process, a number or a tensor without gradients.
        like: has the device.

    Returns:
        A number for a number, a tensor for a tensor.
    """
    world = job().world
    if world == 1:
        return count
    value = torch.as_tensor(count, dtype=torch.float32, device=like.device).clone()
    mean = all_sum_(value) / world
    return mean if isinstance(count, Tensor) else mean.item()  # type: ignore[return-value]


def gathered(value: Any) -> list[Any]:
    """What every process has, in the order of ranks, on all of them; anything that pickles."""
    world = job().world
    if world == 1:
        return [value]
    found: list[Any] = [None] * world
    dist.all_gather_object(found, value)
    return found


def of_leader(value: Any) -> Any:
    """What the first process has; anything that pickles."""
    if job().world == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def share_buffers(module: torch.nn.Module) -> None:
    """Give all processes the buffers of the first, such as the statistics of norms."""
    _share(module.buffers())


def share_weights(module: torch.nn.Module) -> None:
    """Give all processes the parameters and buffers of the first."""
    _share([*module.parameters(), *module.buffers()])


@torch.no_grad()
def _share(tensors: Iterable[Tensor]) -> None:
    if job().world == 1:
        return
    for tensor in tensors:
        whole = tensor.contiguous()  # of channels last there is a copy
        dist.broadcast(whole, src=0)
        tensor.copy_(whole)
