"""Pickles read without running what they name: an explicit list of what may be built.

Training programs store more than tensors: loss histories, numpy scalars, class names. What is on
the list below is harmless; anything else is refused by name.
"""

from __future__ import annotations

import pickle
import re
from collections import OrderedDict, deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy import dtypes

from sepcbench.errors import CheckpointError

try:
    from numpy._core import multiarray, numeric
except ImportError:  # numpy 1.x
    from numpy.core import multiarray, numeric  # type: ignore[no-redef]


class HistoryBuffer:
    """Stands in for mmengine's loss history: it keeps what was stored and can do nothing."""


class _Unused:
    """Stands in for a method that a history names; calling it is never needed."""


def _method_name(owner: object, name: str) -> type[_Unused]:
    """Stands in for `getattr`, with which a history names its own methods."""
    if owner is not HistoryBuffer:
        raise pickle.UnpicklingError(f"GLOBAL getattr was not meant for '{name}'")
    return _Unused


def _latin1(text: str, encoding: str = "latin1") -> bytes:
    """Stands in for `_codecs.encode`, with which old pickles write bytes."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"GLOBAL _codecs.encode was not meant for '{encoding}'")
    return text.encode("latin1")


_NUMPY_DTYPES = [getattr(dtypes, name) for name in dtypes.__all__]
_NUMPY_SCALARS = [np.float16, np.float32, np.float64, np.int32, np.int64, np.uint8, np.bool_]

ALLOWED: dict[str, Any] = {
    **{
        f"numpy.{core}.multiarray.{name}": getattr(multiarray, name)
        for core in ("core", "_core")
        for name in ("_reconstruct", "scalar")
    },
    **{
        f"numpy.{core}.numeric._frombuffer": numeric.__dict__["_frombuffer"]
        for core in ("core", "_core")
    },
    "numpy.ndarray": np.ndarray,
    "numpy.dtype": np.dtype,
    **{f"numpy.dtypes.{cls.__name__}": cls for cls in _NUMPY_DTYPES},
    **{f"numpy.{cls.__name__}": cls for cls in _NUMPY_SCALARS},
    "collections.OrderedDict": OrderedDict,
    "collections.deque": deque,
    "mmengine.logging.history_buffer.HistoryBuffer": HistoryBuffer,
    "builtins.getattr": _method_name,
    "_codecs.encode": _latin1,
}
"""From the full name of a global to what is built in its place; tensors come on top."""

_PYTHON2 = {"__builtin__": "builtins", "copy_reg": "copyreg"}
_GLOBAL = re.compile(r"GLOBAL (\w\S*)")


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        full = f"{_PYTHON2.get(module, module)}.{name}"
        if full not in ALLOWED:
            raise pickle.UnpicklingError(f"GLOBAL {full} was not an allowed global")
        return ALLOWED[full]


def load_torch(path: Path, trust: bool = False) -> Any:
    """Read what `torch.save` wrote.

    Args:
        path: the file.
        trust: build whatever the file names, which may run any code in it.

    Raises:
        CheckpointError: damaged, or it names something that is not allowed.
    """
    # torch has its own, equally strict codec for bytes
    extra = [(value, name) for name, value in ALLOWED.items() if not name.startswith("_codecs")]
    with torch.serialization.safe_globals(extra):  # type: ignore[arg-type]
        return _guard(
            path, trust, lambda: torch.load(path, map_location="cpu", weights_only=not trust)
        )


def load_plain(path: Path, trust: bool = False) -> Any:
    """Read an ordinary pickle, such as detectron2's arrays; arguments as in `load_torch`."""

    def read() -> Any:
        with path.open("rb") as file:
            reader = pickle.Unpickler if trust else _Unpickler
            return reader(file, encoding="latin1").load()

    return _guard(path, trust, read)


def _guard(path: Path, trust: bool, read: Callable[[], Any]) -> Any:
    """Turn what may go wrong while unpickling into one line."""
    try:
        return read()
    except pickle.UnpicklingError as error:
        found = None if trust else _GLOBAL.search(str(error))
        if found:
            raise CheckpointError(
                f"checkpoint '{path}' is refused: it asks for '{found[1]}', which could run code; "
                "if you trust its source, add --trust"
            ) from None
        raise _damaged(path, error) from None
    except ImportError as error:
        raise CheckpointError(
            f"checkpoint '{path}' needs a package that is not installed: {_first_line(error)}"
        ) from None
    except Exception as error:  # a damaged pickle can raise anything
        raise _damaged(path, error) from None


def _damaged(path: Path, error: Exception) -> CheckpointError:
    return CheckpointError(f"checkpoint '{path}' is damaged or truncated: {_first_line(error)}")


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
