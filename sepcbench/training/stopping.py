"""Ctrl-C while training: the first one waits for the iteration under way, so that it is kept."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

_LINE = "sepcbench: stopping after this iteration, which is kept; Ctrl-C again stops at once"


@contextmanager
def patiently(world: int) -> Iterator[Callable[[], bool]]:
    """What tells whether Ctrl-C was pressed; a second one is `KeyboardInterrupt`, as ever.

    Processes that train together do not get a signal in the same iteration, and signals are for
    the main thread alone: elsewhere the first one is that already.

    Args:
        world: how many processes train together.
    """
    usual = signal.default_int_handler
    main = threading.current_thread() is threading.main_thread()
    if world > 1 or not main or signal.getsignal(signal.SIGINT) is not usual:
        yield lambda: False
        return
    pressed: list[int] = []

    def first(number: int, frame: Any) -> None:
        pressed.append(number)
        signal.signal(signal.SIGINT, usual)
        print(_LINE, file=sys.stderr)

    signal.signal(signal.SIGINT, first)
    try:
        yield lambda: bool(pressed)
    finally:
        signal.signal(signal.SIGINT, usual)
