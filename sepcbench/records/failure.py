"""What did not work, or not to its end."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sepcbench.records.latency import Latency


@dataclass(frozen=True)
class Failure:
    """A measurement that did not work, and why, in one line."""

    variant: str
    measure: str
    reason: str


# The note of a latency whose samples are complete, and the passes after them are not.
NOT_LOOKED_AT = "not looked at: interrupted"


def interrupted(records: Iterable[object]) -> bool:
    """Whether sampling was broken off by Ctrl-C; what it had by then is in the records."""
    return any(isinstance(item, Latency) and item.stopped == "interrupted" for item in records)


def cut_short(records: Iterable[object]) -> bool:
    """Whether Ctrl-C came while sampling or after it; after it the samples are complete."""
    found = [item for item in records if isinstance(item, Latency)]
    return interrupted(found) or any(NOT_LOOKED_AT in item.notes for item in found)
