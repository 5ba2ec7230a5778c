"""Finding the convs whose output goes through a batch norm and nowhere else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

Module = nn.Module


class Watch(TorchFunctionMode):
    """Who reads what a conv gives: batch norms, and any other operation.

    Attributes:
        read_by: conv and batch norm to how often the one read the other.
        runs: how often each conv and batch norm ran.
        elsewhere: convs whose output another operation read.
    """

    def __init__(self) -> None:
        super().__init__()
        self.read_by: Counter[tuple[Module, Module]] = Counter()
        self.runs: Counter[Module] = Counter()
        self.elsewhere: set[Module] = set()
        self._made: dict[int, tuple[Module, Tensor]] = {}  # kept alive, so that ids stay unique
        self._inside = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        makes = any(isinstance(x, Tensor) for x in pytree.tree_leaves(out))
        if makes and not self._inside:
            self.given_out((args, kwargs))
        return out

    def conv_ran(self, conv: Module, inputs: Any, output: Tensor) -> None:
        self.runs[conv] += 1
        self._made[id(output)] = (conv, output)

    def norm_starts(self, norm: Module, inputs: tuple[Any, ...]) -> None:
        self._inside += 1
        self.runs[norm] += 1
        if id(inputs[0]) in self._made:
            self.read_by[self._made[id(inputs[0])][0], norm] += 1

    def norm_ran(self, norm: Module, inputs: Any, output: Any) -> None:
        self._inside -= 1

    def given_out(self, values: Any) -> None:
        """Note that something other than a batch norm reads these values."""
        for x in pytree.tree_leaves(values):
            if id(x) in self._made:
                self.elsewhere.add(self._made[id(x)][0])

    def pairs(self) -> list[tuple[Module, Module]]:
        """Conv and batch norm that always work together, in the order they ran."""
        readings: Counter[Module] = Counter()
        for (conv, _), times in self.read_by.items():
            readings[conv] += times
        return [
            (conv, norm)
            for (conv, norm), times in self.read_by.items()
            if times == readings[conv] == self.runs[conv] == self.runs[norm]
            and conv not in self.elsewhere
        ]


@contextmanager
def watching(
    module: nn.Module, is_conv: Callable[[Module], bool], is_norm: Callable[[Module], bool]
) -> Iterator[Watch]:
    """Watch the convs and batch norms inside a module while it runs.

    Args:
        module: to watch.
        is_conv: whether a module is a conv that a norm can be folded into.
        is_norm: whether a module is a batch norm that can be folded.
    """
    watch = Watch()
    hooks = []
    for part in module.modules():
        if is_conv(part):
            hooks.append(part.register_forward_hook(watch.conv_ran))
        elif is_norm(part):
            hooks.append(part.register_forward_pre_hook(watch.norm_starts))
            hooks.append(part.register_forward_hook(watch.norm_ran))
    try:
        with watch:
            yield watch
    finally:
        for hook in hooks:
            hook.remove()
