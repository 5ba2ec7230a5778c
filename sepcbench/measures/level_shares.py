"""Which pyramid level found objects of which size."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sepcbench.measures.coco_arrays import Arrays, Detection
from sepcbench.measures.coco_curves import LARGE, MEDIUM, SMALL
from sepcbench.measures.coco_matching import COCO, Rules
from sepcbench.records import LevelShare

# as AP50 matches: at one threshold, so that an object is found by one detection
_RULES = Rules(thresholds=(0.5,), max_detections=(max(COCO.max_detections),))


def level_shares(lined_up: Arrays, detections: Sequence[Detection]) -> tuple[LevelShare, ...]:
    """Count what each level found; nothing where some detection does not have its `level`.

    Args:
        lined_up: the set and the detections.
        detections: the same, in COCO result format.
    """
    assert lined_up.kept is not None
    kept = lined_up.kept.tolist()
    if not kept or not all("level" in detections[i] for i in kept):
        return ()
    level = np.array([detections[i]["level"] for i in kept], dtype=np.int64)
    matched = lined_up.match(_RULES)
    of_hit = level[matched.index[matched.hits]]  # (h,)

    def found(of: int, area: int) -> int:
        return int((matched.counted[0, area] & (of_hit == of)).sum())

    return tuple(
        LevelShare(
            level=number,
            detections=int((level == number).sum()),
            found_small=found(number, SMALL),
            found_medium=found(number, MEDIUM),
            found_large=found(number, LARGE),
        )
        for number in sorted(set(level.tolist()))
    )
