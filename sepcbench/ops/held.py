"""Keeping alive what caches hand out: a CUDA graph knows only the addresses of what it reads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor

_HOLDERS: list[list[Tensor]] = []


@contextmanager
def holding() -> Iterator[list[Tensor]]:
    """A list of the tensors that caches hand out in this block; it keeps them alive."""
    holder: list[Tensor] = []
    _HOLDERS.append(holder)
    try:
        yield holder
    finally:
        _HOLDERS[:] = [one for one in _HOLDERS if one is not holder]


def hand_out(*tensors: Tensor) -> None:
    """Say that a cache gave these to someone."""
    for holder in _HOLDERS:
        holder.extend(tensors)
