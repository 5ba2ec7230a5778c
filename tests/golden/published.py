"""Published parameter names of one part of a detector, renamed as those of a whole one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sepcbench.checkpoints.mmdet import rename_detector

PREFIXES = {
    "fusing": ("neck.0.", "necks.0."),
    "sepc": ("neck.1.", "necks.1."),
    "head": ("bbox_head.", "head."),
}


def rename_part(state: Mapping[str, Any], part: str) -> dict[str, Any]:
    """Rename the parameters of a part, given without its prefix; see `PREFIXES`."""
    published, ours = PREFIXES[part]
    renamed = rename_detector({published + key: value for key, value in state.items()})
    return {key.removeprefix(ours): value for key, value in renamed.items()}
