"""Passes over an image at test time: several scales, mirrored too, as frozen data."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

from sepcbench.conventions import Conventions
from sepcbench.errors import UsageError


@dataclass(frozen=True)
class ScaleRange:
    """One short side, and the sizes (root of the area, in pixels of the file) it gives boxes of."""

    short_side: int
    low: float = 0.0
    high: float = math.inf

    def __str__(self) -> str:
        if self.low == 0 and self.high == math.inf:
            return str(self.short_side)
        return f"{self.short_side}:{self.low:g}-{'' if self.high == math.inf else f'{self.high:g}'}"


@dataclass(frozen=True)
class TestTime:
    """Passes over each image beyond one.

    `scales` are short sides, none for the conventions' own; `max_side` limits the long side, by
    default in the proportion of the conventions; `flip` adds each scale mirrored.
    """

    __test__: ClassVar[bool] = False  # not a test, whatever pytest makes of the name

    scales: tuple[ScaleRange, ...] = ()
    max_side: int | None = None
    flip: bool = False

    def __str__(self) -> str:
        """As records have it; "" for one pass as the conventions say."""
        parts = []
        if self.scales:
            parts.append(f"scales {','.join(map(str, self.scales))}")
        if self.max_side is not None:
            parts.append(f"max side {self.max_side}")
        return ", ".join([*parts, *(["flip"] if self.flip else [])])

    @property
    def merges(self) -> bool:
        """Whether an image has several passes, or not all boxes of the one are kept."""
        return self.flip or len(self.scales) > 1 or any(":" in str(one) for one in self.scales)

    def conventions(self, own: Conventions) -> tuple[Conventions, ...]:
        """The conventions of each scale, from the detector's own."""
        return tuple(_at_scale(own, one.short_side, self.max_side) for one in self.ranges(own))

    def ranges(self, own: Conventions) -> tuple[ScaleRange, ...]:
        """What each scale is for; one scale where none is named."""
        return self.scales or (ScaleRange(own.short_side),)


ONCE = TestTime()


def _at_scale(own: Conventions, short_side: int, max_side: int | None) -> Conventions:
    proportional = round(own.long_side * short_side / own.short_side)
    return replace(own, short_side=short_side, long_side=max_side or proportional)


def parse_scales(text: str) -> tuple[ScaleRange, ...]:
    """Read short sides such as `400,600,1200`, each maybe with a range, `400:96-` or `1200:0-256`.

    Raises:
        UsageError: it is not written so.
    """
    return tuple(_parse_scale(part.strip(), text) for part in text.split(","))


def _parse_scale(part: str, text: str) -> ScaleRange:
    side, colon, sizes = part.partition(":")
    low, _, high = sizes.partition("-")
    try:
        if colon and "-" not in sizes:
            raise ValueError
        made = ScaleRange(int(side), float(low or 0), float(high or math.inf))
    except ValueError:
        made = ScaleRange(0)
    if made.short_side < 1 or not 0 <= made.low < made.high:
        raise UsageError(
            f"scales '{text}': '{part}' is not a short side in pixels, such as 800, nor one with "
            "the sizes of boxes it is for, such as 400:96- or 1200:0-256"
        )
    return made
