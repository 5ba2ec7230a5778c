"""The GPU: driver, memory, clocks and limits, throttling, other tenants."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from sepcbench.doctor.finding import Finding

if TYPE_CHECKING:
    from sepcbench.measures.nvml import Gpu

_GIB = 2**30
_FREE = 0.9  # of the memory
_HOT = 80  # degrees Celsius while idle


def check_gpu(device: str | None = None) -> Iterator[Finding]:
    """Check the GPU of `device`, or the first; none is a problem where one is asked for."""
    if device == "cpu":
        return
    import torch

    if not torch.cuda.is_available():
        yield _none(device)
        return
    from sepcbench.measures.nvml import driver_version, gpu_of

    name = device or "cuda"
    try:
        model = torch.cuda.get_device_name(name)
    except Exception as error:  # a number that no GPU has
        advice = f"the GPUs are cuda:0 to cuda:{torch.cuda.device_count() - 1}"
        yield Finding("GPU", "problem", f"{name}: {str(error).splitlines()[0]}", advice)
        return
    driver = driver_version()
    yield Finding("GPU", "ok", f"{model}, driver {driver or 'unknown'}, CUDA {torch.version.cuda}")
    found = gpu_of(name)
    if found is None:
        text = "NVML does not answer: no clocks, power, throttling or other tenants in records"
        yield Finding("NVML", "warning", text, "pip install nvidia-ml-py")
    else:
        yield from state(found)


def _none(device: str | None) -> Finding:
    if device is None:
        return Finding("GPU", "info", "none that CUDA sees; everything here runs on the CPU")
    advice = "check nvidia-smi, the driver and CUDA_VISIBLE_DEVICES; or use --device cpu"
    return Finding("GPU", "problem", f"--device {device}, and CUDA sees no GPU", advice)


def state(gpu: Gpu) -> Iterator[Finding]:
    """What NVML says of one GPU."""
    if gpu.sliced():
        text = "a MIG slice: no clocks or energy in records, and the neighbours' work can be felt"
        yield Finding("MIG", "warning", text, "time on a whole GPU")
    yield from _memory(gpu)
    yield _clocks(gpu)
    yield from _power(gpu)
    yield _throttling(gpu)
    yield _tenants(gpu)
    if gpu.persistent() is False:
        text = "off: the driver is loaded anew when nothing uses the card, and starts are slow"
        yield Finding("persistence", "info", text, "sudo nvidia-smi -pm 1")


def _memory(gpu: Gpu) -> Iterator[Finding]:
    memory = gpu.memory_bytes()
    if memory is None:
        return
    free, total = memory
    text = f"{free / _GIB:.1f} of {total / _GIB:.1f} GiB free"
    if free < _FREE * total:
        yield Finding("GPU memory", "warning", text, "see in nvidia-smi who uses the rest")
    else:
        yield Finding("GPU memory", "ok", text)


def _clocks(gpu: Gpu) -> Finding:
    now, default, top = gpu.sm_mhz(), gpu.default_sm_mhz(), gpu.max_sm_mhz()
    memory = gpu.memory_mhz()
    if now is None or default is None:
        return Finding("clocks", "info", "the driver does not tell")
    parts = [f"SM {now:.0f} MHz now (idle ones are low), {default:.0f} by default"]
    parts += [f"{top:.0f} at most"] if top else []
    parts += [f"memory {memory:.0f} MHz"] if memory else []
    return Finding("clocks", "ok", ", ".join(parts))


def _power(gpu: Gpu) -> Iterator[Finding]:
    limit, default = gpu.power_limits_w()
    now, hot = gpu.power_w(), gpu.temperature_c()
    text = f"{_or_unknown(now, 'W')} now, limit {_or_unknown(limit, 'W')}"
    text += f" of {_or_unknown(default, 'W')} by default, {_or_unknown(hot, 'degrees C')}"
    if limit is not None and default is not None and limit < default:
        advice = "its owner lowered the limit: do not compare with cards that run at theirs"
        yield Finding("power", "warning", text, advice)
    elif hot is not None and hot > _HOT:
        yield Finding("power", "warning", text, "the card is hot: let it cool down, check its fans")
    elif limit is not None or now is not None:
        yield Finding("power", "ok", text)


def _or_unknown(value: float | None, unit: str) -> str:
    return "unknown" if value is None else f"{value:.0f} {unit}"


def _throttling(gpu: Gpu) -> Finding:
    reasons = gpu.throttle()
    if reasons:
        advice = "find out why before timing: heat, a power limit, or the power supply"
        return Finding("throttling", "warning", ", ".join(reasons), advice)
    return Finding("throttling", "ok", "none now")


def _tenants(gpu: Gpu) -> Finding:
    others = gpu.other_processes()
    if others is None:
        return Finding("tenants", "info", "the driver or the container hides other processes")
    if others:
        text = f"{others} other {'process uses' if others == 1 else 'processes use'} this GPU"
        return Finding("tenants", "warning", text, "stop them, or take another GPU")
    return Finding("tenants", "ok", "no other process uses this GPU")
