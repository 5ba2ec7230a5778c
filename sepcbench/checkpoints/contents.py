"""What a checkpoint file holds, whatever wrote it: named tensors and what is said about them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from sepcbench.checkpoints import native, pickles
from sepcbench.errors import CheckpointError

# where programs put the state dict: mmdetection; detectron2, torchvision's and others' scripts
STATE_KEYS = ("state_dict", "model", "model_state_dict", "module")
# wrappers that prefix every key: DataParallel, torch.compile, Lightning and the like
WRAPPERS = ("module.", "_orig_mod.", "model.")
_TORCH_MAGIC = b"\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19"  # first thing in torch's old format


@dataclass(frozen=True, eq=False)
class Contents:
    """What was in a file.

    Attributes:
        path: the file.
        container: "safetensors", "torch" or "pickle".
        state: key to CPU tensor; floating-point ones in float32.
        about: everything else in the file, such as `meta`, or the metadata of safetensors.
        dtypes: of the tensors as stored, with their counts.
        broken: keys of tensors with NaN or infinite values.
        notes: what was done to the keys and tensors.
    """

    path: Path
    container: str
    state: dict[str, Tensor]
    about: dict[str, Any]
    dtypes: tuple[tuple[str, int], ...]
    broken: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def meta(self) -> dict[str, Any]:
        """What mmdetection says about the file; empty elsewhere."""
        meta = self.about.get("meta")
        return meta if isinstance(meta, dict) else {}


def read(path: Path, trust: bool = False) -> Contents:
    """Read a checkpoint: safetensors, what `torch.save` wrote, or a pickle of arrays.

    Args:
        path: the file.
        trust: unpickle whatever the file names, which may run any code in it.

    Raises:
        CheckpointError: not there, damaged, unsafe, or without a state dict.
    """
    try:
        with path.open("rb") as file:
            start = file.read(64)
    except FileNotFoundError:
        raise CheckpointError(f"checkpoint '{path}' is not there") from None
    except OSError as error:
        raise CheckpointError(f"checkpoint '{path}' cannot be read: {error.strerror}") from None
    safe = native.is_header(start)
    if not safe and (start[:4] == b"PK\x03\x04" or _TORCH_MAGIC in start):
        return _contents(path, "torch", pickles.load_torch(path, trust), {})
    if not safe and start[:1] == b"\x80":
        return _contents(path, "pickle", pickles.load_plain(path, trust), {})
    if not safe and len(start) > 8:
        raise CheckpointError(
            f"'{path}' is not a checkpoint: it is no torch file, no pickle and no safetensors file"
        )
    header = native.read_header(path)
    try:
        state: dict[str, Any] = safetensors.torch.load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"checkpoint '{path}' is damaged: {error}") from None
    return _contents(path, "safetensors", state, header.get("__metadata__", {}))


def _contents(path: Path, container: str, tree: Any, about: dict[str, Any]) -> Contents:
    notes: list[str] = []
    found, rest = _state_dict(path, tree)
    tensors = _tensors(path, found)
    if len(tensors) < len(found):
        notes.append(f"{len(found) - len(tensors)} entries that are no tensors left out")
    state = _strip_wrappers(tensors, notes)
    state = _drop_averages(state, rest, notes)
    dtypes: dict[str, int] = {}
    for value in state.values():
        name = str(value.dtype).removeprefix("torch.")
        dtypes[name] = dtypes.get(name, 0) + 1
    state = _to_float32(state, dtypes, notes)
    broken = tuple(key for key, value in state.items() if not value.isfinite().all())
    return Contents(
        path=path,
        container=container,
        state=state,
        about={**rest, **about},
        dtypes=tuple(sorted(dtypes.items())),
        broken=broken,
        notes=tuple(notes),
    )


def _state_dict(path: Path, tree: Any) -> tuple[Mapping[Any, Any], dict[str, Any]]:
    """The state dict inside, and everything beside it."""
    tree = tree.state_dict() if isinstance(tree, torch.nn.Module) else tree
    if not isinstance(tree, Mapping):
        raise CheckpointError(
            f"'{path}' is not a checkpoint: it holds a {type(tree).__name__}, not a state dict"
        )
    for key in STATE_KEYS:
        inner = tree.get(key)
        inner = inner.state_dict() if isinstance(inner, torch.nn.Module) else inner
        if isinstance(inner, Mapping):
            return inner, {str(k): v for k, v in tree.items() if k != key}
    return tree, {}


def _tensors(path: Path, found: Mapping[Any, Any]) -> dict[str, Tensor]:
    """Tensors and arrays by key; a state dict holds nothing else."""
    state: dict[str, Tensor] = {}
    for key, value in found.items():
        array = isinstance(value, (np.ndarray, np.generic)) and value.dtype != object
        if isinstance(key, str) and isinstance(value, Tensor):
            state[key] = value.detach()
        elif isinstance(key, str) and array:
            state[key] = torch.from_numpy(np.array(value))
    if not state or 2 * len(state) < len(found):
        keys = ", ".join(repr(key) for key in list(found)[:5]) or "nothing"
        raise CheckpointError(f"'{path}' holds no state dict; at its top level: {keys}")
    return state


def _strip_wrappers(state: dict[str, Tensor], notes: list[str]) -> dict[str, Tensor]:
    for prefix in WRAPPERS:
        # averages are named after the wrapped keys, with underscores
        named = [key for key in state if not key.startswith("ema_")]
        if named and all(key.startswith(prefix) for key in named):
            state = {key.removeprefix(prefix): value for key, value in state.items()}
            notes.append(f"prefix '{prefix}' removed from {len(named)} keys")
            return _strip_wrappers(state, notes)
    return state


def _drop_averages(
    state: dict[str, Tensor], rest: Mapping[str, Any], notes: list[str]
) -> dict[str, Tensor]:
    """Leave out the second copy of the weights that averaging keeps.

    mmdetection swaps the two before it saves, so that the plain keys hold the averaged weights.
    """
    copies = [key for key in state if key.startswith("ema_")]
    if copies and len(copies) < len(state):
        notes.append(
            f"{len(copies)} 'ema_' keys left out: the plain keys hold the averaged weights"
        )
        return {key: value for key, value in state.items() if key not in set(copies)}
    if "ema_state_dict" in rest:
        notes.append("'ema_state_dict' left out: 'state_dict' holds the averaged weights")
    return state


def _to_float32(
    state: dict[str, Tensor], dtypes: Mapping[str, int], notes: list[str]
) -> dict[str, Tensor]:
    for name, count in sorted(dtypes.items()):
        if name.startswith(("float", "bfloat")) and name != "float32":
            notes.append(f"{count} tensors in {name}, read as float32")
    return {k: v.float() if v.is_floating_point() else v for k, v in state.items()}
