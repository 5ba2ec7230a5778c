"""Every generator of random numbers that a training may draw from: seeded, kept, restored."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


@contextmanager
def seeded(seed: int, device: str) -> Iterator[None]:
    """Seed the generators of Python, NumPy and torch, and put them back as they were at the end.

    Args:
        seed: 0 or more.
        device: of the training; on a GPU its generator is one of them.
    """
    gpus = [torch.device(device)] if device.startswith("cuda") else []
    numbers, arrays = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=gpus):
        try:
            reseed(seed)
            yield
        finally:
            random.setstate(numbers)
            np.random.set_state(arrays)


def reseed(seed: int) -> None:
    """Seed all generators."""
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)


def state(device: str) -> dict[str, Any]:
    """Where all generators are, in types that torch's restricted unpickler takes."""
    kind, keys, *rest = np.random.get_state()
    found: dict[str, Any] = {
        "torch": torch.get_rng_state(),
        "python": random.getstate(),
        # (str, uint32 keys, position, has_gauss, cached_gaussian)
        "numpy": [kind, torch.from_numpy(np.asarray(keys).astype(np.int64)), *rest],
    }
    if device.startswith("cuda"):
        found["cuda"] = torch.cuda.get_rng_state(device)
    return found


def restore(found: dict[str, Any], device: str) -> None:
    """Put all generators to where `state` found them."""
    torch.set_rng_state(found["torch"].cpu())
    version, numbers, gauss = found["python"]
    random.setstate((version, tuple(numbers), gauss))
    kind, keys, *rest = found["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))
    if device.startswith("cuda") and "cuda" in found:
        torch.cuda.set_rng_state(found["cuda"].cpu(), device)
