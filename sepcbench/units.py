"""Numbers with units: reading them from the command line, writing them for people."""

from __future__ import annotations

import re

from sepcbench.errors import UsageError

_SHAPE = re.compile(r"(\d+)x(\d+)\Z")


def parse_shape(text: str) -> tuple[int, int]:
    """Read an image shape such as `800x1344` as (height, width) in pixels.

    Raises:
        UsageError: the text is not HEIGHTxWIDTH with both above zero.
    """
    match = _SHAPE.match(text.strip())
    if match is None or 0 in (int(match[1]), int(match[2])):
        raise UsageError(
            f"shape '{text}' is not HEIGHTxWIDTH in pixels, both above 0; write it like 800x1344"
        )
    return int(match[1]), int(match[2])


def format_shape(shape: tuple[int, int]) -> str:
    """Write (height, width) as `800x1344`."""
    return f"{shape[0]}x{shape[1]}"


def giga(count: float, digits: int = 3) -> str:
    """Write a count in units of 10^9, without the unit: headers carry it."""
    return f"{count / 1e9:,.{digits}f}"


def mega(count: float, digits: int = 3) -> str:
    """Write a count in units of 10^6, without the unit: headers carry it."""
    return f"{count / 1e6:,.{digits}f}"


def milliseconds(seconds: float, digits: int = 3) -> str:
    """Write seconds as milliseconds, without the unit: headers carry it."""
    return f"{seconds * 1e3:,.{digits}f}"
