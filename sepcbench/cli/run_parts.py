"""Being the process of one row that `sepcbench run --jobs` started: short lines, and an end."""

from __future__ import annotations

import _thread
import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from functools import partial

from sepcbench.cli import options

_PATIENCE_S = 2.0


def say(line: str) -> None:
    """Print a line of a row's process on stderr; who reads it may be gone."""
    with suppress(OSError):
        print(line, file=sys.stderr, flush=True)


def log(every_s: float) -> Callable[[str], AbstractContextManager[options.Progress]]:
    """Progress as lines, one in so many seconds."""
    return partial(options.progress_bar, announce=True, every_s=every_s)


def end_with_input() -> None:
    """End this process, as Ctrl-C does, when its standard input closes: its parent has ended."""
    threading.Thread(target=_wait_for_end, daemon=True).start()


def _wait_for_end() -> None:
    with suppress(OSError, ValueError):
        while os.read(0, 4096):
            pass
    _thread.interrupt_main()
    time.sleep(_PATIENCE_S)  # in the middle of a long call; nothing stored is lost
    os._exit(130)
