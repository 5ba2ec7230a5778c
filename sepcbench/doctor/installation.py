"""Python, torch and torchvision as a pair, and the optional packages."""

from __future__ import annotations

import operator
import re
import sys
from collections.abc import Callable, Iterator
from importlib import import_module, metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from sepcbench.doctor.finding import Finding

_OLDEST = (3, 11)
_OFFSET = 15  # torch 2.N came with torchvision 0.(N + 15), until torchvision took a range of them
_NVIDIA = Path("/proc/driver/nvidia/version")

# package: (what it is for, how to get it)
OPTIONAL: dict[str, tuple[str, str]] = {
    "timm": ("backbones of timm", "pip install timm"),
    "onnxruntime": ("the engine onnxruntime", "pip install onnxruntime, or onnxruntime-gpu"),
    "onnx": ("the engine onnxruntime", "pip install onnx"),
    "onnxscript": ("the engine onnxruntime", "pip install onnxscript"),
    "tensorboard": ("logs of training", "pip install tensorboard"),
    "nvidia-ml-py": ("clocks, power and tenants of a GPU", "pip install nvidia-ml-py"),
    "torch-tensorrt": ("the engine tensorrt", "pip install torch-tensorrt"),
}
_ALSO_AS = {"onnxruntime": "onnxruntime-gpu"}  # another package that brings the same module

_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq, ">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt,
    "!=": operator.ne,
}  # fmt: skip


def check_installation(device: str | None = None) -> Iterator[Finding]:
    """Check what is installed, on `device` if there is one."""
    yield _python(sys.version_info[:3])
    torch, trouble = _imported("torch")
    if torch is None:
        yield Finding("torch", "problem", trouble, "install torch anew: pip install -U torch")
        return
    vision = _version("torchvision")
    if vision is None:
        yield Finding("torchvision", "problem", "not installed", "pip install torchvision")
        return
    yield from pairing(_version("torch") or "", vision, metadata.requires("torchvision") or ())
    yield from _build(torch, device)
    yield from _operations(device)
    yield from optional_packages()


def _python(version: tuple[int, ...]) -> Finding:
    text = ".".join(str(part) for part in version)
    if version < _OLDEST:
        return Finding("Python", "problem", text, "use Python 3.11 or newer")
    return Finding("Python", "ok", text)


def _imported(name: str) -> tuple[Any | None, str]:
    try:
        return import_module(name), ""
    except Exception as error:  # a missing library, or an operator that is registered nowhere
        return None, f"cannot be imported: {' '.join(str(error).split())}"


def _version(package: str) -> str | None:
    """The version of a package with its build, such as 2.11.0+cu128, without importing it.

    Its metadata may leave the build out; `version.py`, which torch and torchvision have, does not.
    """
    try:
        version = metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
    spec = find_spec(package) if package in ("torch", "torchvision") else None
    file = Path(spec.origin).with_name("version.py") if spec and spec.origin else None
    if file is not None and file.is_file():
        found = re.search(r"__version__\s*(?::.*)?=\s*['\"]([^'\"]+)", file.read_text())
        version = found[1] if found else version
    return version


# --- the pair ------------------------------------------------------------------------------


def pairing(torch: str, torchvision: str, requires: Any = ()) -> Iterator[Finding]:
    """Whether two versions belong together, and were built for the same device.

    By what the torchvision says it requires; one that names no version goes with torch 2.N as
    0.(N + 15). The build is behind the plus sign: +cpu, +cu128; none in the wheels of PyPI.
    """
    both = f"torch {torch}, torchvision {torchvision}"
    wanted = _required(requires)
    if wanted is None:
        minor = _numbers(torch)[1]
        fits = _numbers(torchvision)[:2] == (0, minor + _OFFSET)
        wanted = f"torchvision 0.{minor + _OFFSET} goes with torch 2.{minor}"
        advice = f"pip install 'torchvision==0.{minor + _OFFSET}.*'"
    else:
        fits = _satisfies(_numbers(torch), wanted)
        wanted = f"this torchvision needs torch{wanted}"
        advice = "install both in one command: pip install -U torch torchvision"
    if fits:
        yield Finding("torchvision", "ok", both)
    else:
        yield Finding("torchvision", "problem", f"{both}: {wanted}", advice)
    builds = [version.partition("+")[2] for version in (torch, torchvision)]
    if all(builds) and builds[0] != builds[1]:
        yield Finding(
            "torchvision", "problem", f"{both}: built for {builds[0]} beside {builds[1]}",
            f"install both from one index: --index-url https://download.pytorch.org/whl/{builds[0]}",
        )  # fmt: skip


def _required(requires: Any) -> str | None:
    """The versions of torch in a package's requirements, such as "==2.11.0"."""
    for requirement in requires:
        found = re.match(r"torch\s*\(?\s*([=<>!~][^;)]*)\)?", requirement)
        if found:
            return found[1].replace(" ", "")
    return None


def _satisfies(version: tuple[int, ...], wanted: str) -> bool:
    for clause in wanted.split(","):
        found = re.match(r"(==|>=|<=|>|<|!=)(.+)", clause)
        if found:
            other = _numbers(found[2])
            if not _COMPARE[found[1]](version[: len(other)], other):
                return False
    return True


def _numbers(version: str) -> tuple[int, ...]:
    """The release of a version: "2.11.0a1+cu128" is (2, 11, 0)."""
    found = re.match(r"\d+(\.\d+)*", version)
    numbers = tuple(int(part) for part in found[0].split(".")) if found else ()
    return numbers if len(numbers) > 1 else (*numbers, 0)


def _build(torch: Any, device: str | None) -> Iterator[Finding]:
    """What torch was built for, beside what the machine has."""
    if torch.version.cuda:
        yield Finding("torch", "ok", f"{torch.__version__}, built for CUDA {torch.version.cuda}")
        return
    text = f"{torch.__version__}, built for CPU"
    if (device or "").startswith("cuda") or _NVIDIA.is_file():
        status = "problem" if (device or "").startswith("cuda") else "warning"
        where = "though there is an NVIDIA driver" if _NVIDIA.is_file() else "for --device cuda"
        advice = "install torch and torchvision built for CUDA: see pytorch.org/get-started"
        yield Finding("torch", status, f"{text}, {where}", advice)  # type: ignore[arg-type]
    else:
        yield Finding("torch", "ok", text)


def _operations(device: str | None) -> Iterator[Finding]:
    """torchvision's own operators run: they are what a wrong pair breaks."""
    vision, trouble = _imported("torchvision")
    if vision is None:
        yield Finding("torchvision", "problem", trouble, "pip install -U torch torchvision")
        return
    import torch

    with_gpu = device != "cpu" and torch.cuda.is_available()
    for place in ("cpu", device or "cuda") if with_gpu else ("cpu",):
        try:
            right = _nms_and_deformable(torch, vision, place)
        except Exception as error:
            text = f"its operators fail on {place}: {str(error).splitlines()[0]}"
            advice = "torch and torchvision do not fit: install both in one command"
            yield Finding("torchvision", "problem", text, advice)
            continue
        text = f"nms and deform_conv2d {'run' if right else 'are WRONG'} on {place}"
        yield Finding("torchvision", "ok" if right else "problem", text)


def _nms_and_deformable(torch: Any, vision: Any, device: str) -> bool:
    """Run both where the result is known: two boxes that overlap, and offsets of zero."""
    boxes = torch.tensor([[0.0, 0, 10, 10], [1, 1, 10, 10], [20, 20, 30, 30]], device=device)
    kept = vision.ops.nms(boxes, torch.tensor([0.5, 0.9, 0.1], device=device), 0.5)
    x = torch.arange(32.0, device=device).reshape(1, 2, 4, 4)
    weight, offset = torch.ones(1, 2, 3, 3, device=device), torch.zeros(1, 18, 4, 4, device=device)
    deformed = vision.ops.deform_conv2d(x, offset, weight, padding=1)
    plain = torch.nn.functional.conv2d(x, weight, padding=1)
    return kept.tolist() == [1, 2] and bool(torch.allclose(deformed, plain, rtol=1e-2))


def optional_packages() -> Iterator[Finding]:
    """The packages that only some commands need."""
    for package, (purpose, how) in OPTIONAL.items():
        version = _version(package) or _version(_ALSO_AS.get(package, package))
        if version is None:
            yield Finding(package, "info", f"not installed; it is for {purpose}", how)
        else:
            yield Finding(package, "ok", version)
