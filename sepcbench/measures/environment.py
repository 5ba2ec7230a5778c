"""The machine, versions and flags of a measurement, and setting flags only while measuring."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib import metadata
from pathlib import Path

import torch

from sepcbench.measures.nvml import driver_version
from sepcbench.records import Environment, Texts

PACKAGES = ("torch", "torchvision", "fvcore", "numpy", "sepcbench")


@contextmanager
def measuring(tf32: bool = False) -> Iterator[None]:
    """Set the flags of a measurement; afterwards they are as they were.

    cudnn picks its kernels by trial, since shapes stay the same.

    Args:
        tf32: as in `float32`.
    """
    cudnn = torch.backends.cudnn
    before = cudnn.benchmark, cudnn.deterministic
    cudnn.benchmark, cudnn.deterministic = True, False
    try:
        with float32(tf32):
            yield
    finally:
        cudnn.benchmark, cudnn.deterministic = before


@contextmanager
def float32(tf32: bool) -> Iterator[None]:
    """Let convs and matmuls of float32 use TF32, both or neither; afterwards it is as it was.

    By default torch lets only cudnn use it, and a deformable conv, which multiplies in a matmul,
    would look slower than it is.
    """
    cudnn = torch.backends.cudnn
    before, precision = cudnn.allow_tf32, torch.get_float32_matmul_precision()
    cudnn.allow_tf32 = tf32
    # also sets matmul.allow_tf32; that alone, set after "medium", would leave no one precision
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    try:
        yield
    finally:
        cudnn.allow_tf32 = before
        torch.set_float32_matmul_precision(precision)


def on_device(device: str) -> AbstractContextManager[object]:
    """Make a GPU the current one inside: streams, events and graphs are made on that."""
    if not device.startswith("cuda"):
        return nullcontext()
    return torch.cuda.device(torch.device(device))


def environment(device: str = "cpu") -> Environment:
    """Describe this machine as it is while measuring on `device`.

    `machine` names the hardware alone ("nvidia-h200", "intel-xeon-platinum-8481c-2-cores"):
    no host name, no path.
    """
    cpu, cores = cpu_model(), usable_cores()
    gpu = torch.cuda.get_device_name(device) if device.startswith("cuda") else None
    with measuring():
        flags = _flags()
    return Environment(
        machine=slug(gpu or f"{cpu} {cores} {'core' if cores == 1 else 'cores'}"),
        cpu=cpu,
        cores=cores,
        threads=torch.get_num_threads(),
        gpu=gpu,
        driver=driver_version() if gpu else None,
        platform=f"{platform.system()} {platform.machine()}",
        versions=_versions(),
        flags=flags,
        git_commit=git_commit(Path(__file__).resolve().parents[2]),
    )


def device_name(device: str) -> str:
    """The GPU's name, or the CPU's model."""
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else cpu_model()


def slug(name: str) -> str:
    """A name in lower case, with letters, digits and single dashes only.

    Trademarks and clock rates are left out: "Intel(R) Xeon(R) CPU @ 2.20GHz" is "intel-xeon".
    """
    name = re.sub(r"\((r|tm|c)\)|\bcpu\b|\bprocessor\b|@\s*[\d.]+\s*ghz", " ", name.lower())
    return re.sub(r"[^a-z0-9]+", "-", name).strip("-")


def cpu_model() -> str:
    """The CPU's model name, or its architecture where the system does not tell."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        match = re.search(r"^model name\s*:\s*(.+)$", info.read_text(), re.MULTILINE)
        if match:
            return match[1].strip()
    return platform.processor() or platform.machine() or "unknown cpu"


def usable_cores() -> int:
    """Cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def git_commit(folder: Path) -> str | None:
    """The commit of a checkout, "+changes" added when its package was edited.

    None where `folder` is not the top of a checkout, as in an installed package.
    """
    if not (folder / ".git").exists():
        return None
    commit = _git(folder, "rev-parse", "HEAD")
    if commit is None:
        return None
    return commit + ("+changes" if _git(folder, "status", "--porcelain", "--", "sepcbench") else "")


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True, text=True, timeout=10, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _versions() -> Texts:
    found = [("python", platform.python_version())]
    for name in PACKAGES:
        try:
            found.append((name, metadata.version(name)))
        except metadata.PackageNotFoundError:
            found.append((name, _source_version(name)))
    if torch.version.cuda:
        found.append(("cuda", torch.version.cuda))
    if torch.cuda.is_available() and torch.backends.cudnn.version():
        found.append(("cudnn", str(torch.backends.cudnn.version())))
    return tuple(found)


def _source_version(name: str) -> str:
    """The version of a package that runs from its source folder."""
    import sepcbench

    return sepcbench.__version__ if name == "sepcbench" else "not installed"


def _flags() -> Texts:
    cudnn = torch.backends.cudnn
    flags = {
        "cudnn.allow_tf32": cudnn.allow_tf32,
        "cuda.matmul.allow_tf32": torch.backends.cuda.matmul.allow_tf32,
        "cudnn.benchmark": cudnn.benchmark,
        "cudnn.deterministic": cudnn.deterministic,
        "float32_matmul_precision": torch.get_float32_matmul_precision(),
    }
    return tuple((name, str(value).lower()) for name, value in flags.items())
