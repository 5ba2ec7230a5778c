"""One line of a diagnosis."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "info", "warning", "problem"]


@dataclass(frozen=True)
class Finding:
    """What was found about a topic; `advice` says what to do where it is not well.

    A warning makes results doubtful or something slow; a problem makes something fail.
    """

    topic: str
    status: Status
    text: str
    advice: str = ""
