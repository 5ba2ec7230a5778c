"""A mode in which an operation that makes the host wait for the device is an error.

What may not happen in a CUDA graph is so found without a card: operations whose result is a number
of the host, or a tensor whose size depends on values.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

WAITING = (
    "aten._local_scalar_dense",
    "aten.item",
    "aten.nonzero",
    "aten.masked_select",
    "aten.equal",
    "aten.is_nonzero",
    "aten.unique",
    "aten._unique",
    "aten._unique2",
    "aten.unique_dim",
    "aten.unique_consecutive",
    "aten.repeat_interleave.Tensor",
    "aten.bincount",
    "aten.lift_fresh",  # what `torch.tensor` ends with: a copy from the host
    "torchvision.nms",
)


class NoWaiting(TorchDispatchMode):
    """Raises `AssertionError` at the operations of `WAITING`; indexing by a mask is one too."""

    def __torch_dispatch__(
        self, function: Any, types: Any, arguments: Any = (), named: dict[str, Any] | None = None
    ) -> Any:
        name = str(function)
        if name.startswith(WAITING):
            raise AssertionError(f"{name} waits for the device")
        if name.startswith("aten.index"):
            masks = (i for i in _tensors(arguments) if i.dtype == torch.bool)
            if name.startswith("aten.index.") and any(masks):
                raise AssertionError("indexing by a mask waits for the device")
        return function(*arguments, **(named or {}))


def _tensors(arguments: Any) -> list[torch.Tensor]:
    indices = arguments[1] if len(arguments) > 1 else ()
    return [one for one in indices if isinstance(one, torch.Tensor)]
