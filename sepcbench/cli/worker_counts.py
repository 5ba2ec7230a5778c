"""How many threads read images where the user does not say."""

from __future__ import annotations

import os

# what is worth a thread that reads to evaluate
_IMAGES_PER_WORKER = 8
_MOST_TO_EVALUATE, _MOST_TO_TRAIN = 8, 4


def cores(sharing: int | None = None) -> int:
    """The cores that this process may use, shared with others.

    Args:
        sharing: how many processes do, this one included; by default those of `torchrun` here.
    """
    usable = getattr(os, "sched_getaffinity", None)  # not on macOS
    count = len(usable(0)) if usable else os.cpu_count() or 1
    local = os.environ.get("LOCAL_WORLD_SIZE", "1")
    return max(1, count // max(1, sharing or (int(local) if local.isdigit() else 1)))


def for_evaluation(given: int | None, images: int) -> int:
    """As many as were asked for, else one per core but one, if there is work for them.

    Args:
        given: what was asked for.
        images: of all processes.
    """
    if given is not None:
        return given
    world = os.environ.get("WORLD_SIZE", "1")
    share = images // max(1, int(world) if world.isdigit() else 1)
    return min(_MOST_TO_EVALUATE, cores() - 1, share // _IMAGES_PER_WORKER)


def for_training(given: int | None, device: str, sharing: int | None = None) -> int:
    """As many as were asked for, else a few beside a GPU; on a CPU all cores train.

    Args:
        given: what was asked for.
        device: that trains.
        sharing: see `cores`.
    """
    if given is not None:
        return given
    return min(_MOST_TO_TRAIN, cores(sharing)) if device.startswith("cuda") else 0
