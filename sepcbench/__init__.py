"""sepcbench: what does this neck cost, and what does it buy?

The names below are imported when they are first used: `import sepcbench` itself is light.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sepcbench.api import (
        build,
        evaluate,
        flat,
        flops,
        latency,
        load,
        make_shapes,
        run,
        suite,
        train,
        variant,
        write_report,
    )

__version__ = "0.1.0"
__all__ = [
    "__version__",
    "build",
    "evaluate",
    "flat",
    "flops",
    "latency",
    "load",
    "make_shapes",
    "run",
    "suite",
    "train",
    "variant",
    "write_report",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'sepcbench' has no attribute '{name}'")
    return getattr(importlib.import_module("sepcbench.api"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
