"""Cores, threads and load; disk space, and folders that can be written."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from sepcbench.doctor.finding import Finding

_QUOTA = Path("/sys/fs/cgroup/cpu.max")
_GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
_BUSY = 0.25  # processes that run or wait, per core
_LITTLE, _TOO_LITTLE = 5 * 2**30, 2**28  # bytes
_GIB = 2**30


def processor() -> Iterator[Finding]:
    """Check the CPU."""
    from sepcbench.measures.environment import cpu_model, usable_cores

    cores = usable_cores()
    yield Finding("CPU", "ok", f"{cpu_model()}, {cores} usable of {os.cpu_count()} cores")
    yield _threads(cores)
    yield load(cores)
    quota = _quota(_QUOTA)
    if quota is not None and quota < cores:
        text = f"this container may use {quota:g} cores' time of {cores} cores"
        yield Finding("CPU quota", "warning", text, f"OMP_NUM_THREADS={max(1, int(quota))}")
    if _GOVERNOR.is_file() and _GOVERNOR.read_text().strip() == "powersave":
        text = "the governor of the cores' clocks is powersave: short calls see slow clocks"
        yield Finding("CPU clocks", "info", text, "time long enough, or change the governor")


def _threads(cores: int) -> Finding:
    import torch

    threads = torch.get_num_threads()
    if threads > cores:
        text = f"{threads} threads on {cores} cores get in each other's way"
        return Finding("threads", "warning", text, f"OMP_NUM_THREADS={cores}")
    return Finding("threads", "ok", f"{threads} per operation")


def load(cores: int, average: float | None = None) -> Finding:
    """Whether others use the cores; `average` is that of the last minute."""
    if average is None:
        try:
            average = os.getloadavg()[0]
        except (OSError, AttributeError):
            return Finding("load", "info", "this system does not tell its load")
    text = f"{average:.2f} on {cores} cores in the last minute"
    if average > _BUSY * cores:
        advice = "stop what else runs: latency on a busy machine is doubtful"
        return Finding("load", "warning", text, advice)
    return Finding("load", "ok", text)


def _quota(file: Path) -> float | None:
    """Cores' worth of time that a container may use: "150000 100000" is 1.5."""
    try:
        allowed, period = file.read_text().split()
        return None if allowed == "max" else int(allowed) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return None


# --- disk ----------------------------------------------------------------------------------


def disk(folders: tuple[Path, ...]) -> Iterator[Finding]:
    """Check the folders that will be written to, and those of compiled kernels."""
    for folder in folders:
        yield room(folder)
    caches = {
        "Triton": Path(os.environ.get("TRITON_CACHE_DIR", Path.home() / ".triton" / "cache")),
        "torch.hub": Path(os.environ.get("TORCH_HOME", Path.home() / ".cache" / "torch")),
        "torch.compile": Path(
            os.environ.get("TORCHINDUCTOR_CACHE_DIR", tempfile.gettempdir())
        ),
    }  # fmt: skip
    for name, folder in caches.items():
        yield cache(name, folder)


def room(folder: Path) -> Finding:
    """Whether a folder can be written and how much goes in; it need not be there yet."""
    topic = f"folder {folder}"
    there = _existing(folder)
    if not _writable(there):
        advice = "choose another with --results or --work, or make it writable"
        return Finding(topic, "problem", f"{there} cannot be written", advice)
    free = shutil.disk_usage(there).free
    text = f"writable, {free / _GIB:.1f} GiB free"
    if free < _TOO_LITTLE:
        return Finding(topic, "problem", text, "make room")
    if free < _LITTLE:
        return Finding(topic, "warning", text, "make room: a long training keeps many checkpoints")
    return Finding(topic, "ok", text)


def cache(name: str, folder: Path) -> Finding:
    """Whether a cache can be written; without it everything is compiled or fetched anew."""
    there = _existing(folder)
    if _writable(there):
        return Finding(f"cache of {name}", "ok", "writable" if folder.is_dir() else "not made yet")
    advice = "set its folder to one that can be written"
    return Finding(f"cache of {name}", "warning", f"{there} cannot be written", advice)


def _existing(folder: Path) -> Path:
    """The folder, or the one it will be made in."""
    there = folder.absolute()
    while not there.exists() and there != there.parent:
        there = there.parent
    return there


def _writable(folder: Path) -> bool:
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False
