"""What is wrong with this machine, its installation or a data set, and what to do about it.

Everything is imported on demand and inside a guard: a broken installation is what this is for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from sepcbench.doctor.data_set import check_data
from sepcbench.doctor.finding import Finding
from sepcbench.doctor.gpu import check_gpu
from sepcbench.doctor.installation import check_installation
from sepcbench.doctor.machine import disk, processor

Progress = Callable[[int, int, str], None]


def examine(
    device: str | None = None,
    data: Path | None = None,
    folders: tuple[Path, ...] = (),
    progress: Progress | None = None,
) -> list[Finding]:
    """Check everything; what cannot be checked is a finding too.

    Args:
        device: that is to be measured on, "cpu", "cuda" or "cuda:INDEX"; without one a GPU is
            looked at if there is one, and not missed if there is none.
        data: a data set in COCO format to check.
        folders: where results and checkpoints will be written.
        progress: told of (checks done, checks, label).
    """
    checks: dict[str, Callable[[], Iterator[Finding]]] = {
        "installation": lambda: check_installation(device),
        "processor": processor,
        "GPU": lambda: check_gpu(device),
        "disk": lambda: disk(folders),
    }
    if data is not None:
        checks["data set"] = lambda: check_data(data)
    found: list[Finding] = []
    for i, (name, check) in enumerate(checks.items()):
        if progress:
            progress(i, len(checks), name)
        found += guarded(name, check)
    return found


def guarded(topic: str, check: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """What a check finds, and one more problem where it breaks down itself."""
    try:
        yield from check()
    except Exception as error:
        text = " ".join(str(error).split()) or type(error).__name__
        yield Finding(
            topic, "problem", f"the check broke down: {text}", "see the text of the error"
        )


__all__ = ["Finding", "examine", "guarded"]
