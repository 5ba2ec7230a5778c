"""Latency: detectors timed against each other in one scope, on one device, with one dtype.

The statistics and the protocol know no detector: see `sampling` and `sepcbench.stats`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sepcbench.errors import UsageError, unknown
from sepcbench.measures.environment import device_name, measuring
from sepcbench.measures.sampling import Progress, Sampled, reason, sample
from sepcbench.measures.timers import Call, Timer, timer_for
from sepcbench.records import Failure, Latency, Ratio
from sepcbench.specs import Dtype, EngineName, Protocol, Scope
from sepcbench.stats import compare
from sepcbench.stats import summarise as summarise_rounds
from sepcbench.units import format_shape

DTYPES: dict[Dtype, torch.dtype] = {
    "fp32": torch.float32,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
}


@dataclass(frozen=True)
class Conditions:
    """What all rows of one measurement share."""

    scope: Scope
    shape: tuple[int, int]
    batch: int
    dtype: Dtype
    device: str
    engine: EngineName
    protocol: Protocol


# --- what is called in each scope ----------------------------------------------------------


def _neck(detector: Any, images: Tensor) -> Call:
    features = detector.features(images)
    return lambda: detector.fuse(features)


def _neck_and_head(detector: Any, images: Tensor) -> Call:
    features = detector.features(images)
    return lambda: detector.head(detector.fuse(features))


def _forward(detector: Any, images: Tensor) -> Call:
    return lambda: detector(images)


def _end_to_end(detector: Any, images: Tensor) -> Call:
    sizes = [(images.shape[2], images.shape[3])] * images.shape[0]
    return lambda: detector.detect(images, sizes)


SCOPES: dict[Scope, Callable[[Any, Tensor], Call]] = {
    "neck": _neck,
    "neck+head": _neck_and_head,
    "forward": _forward,
    "end-to-end": _end_to_end,
}


# --- measuring -----------------------------------------------------------------------------


def measure(
    detectors: Mapping[str, nn.Module],
    *,
    scope: Scope,
    shape: tuple[int, int],
    batch: int = 1,
    dtype: Dtype = "fp32",
    device: str = "cpu",
    engine: EngineName = "eager",
    protocol: Protocol,
    run_as: Callable[[nn.Module], nn.Module] | None = None,
    timer: Timer | None = None,
    reference: str = "",
    progress: Progress | None = None,
) -> dict[str, Latency | Failure]:
    """Time detectors against each other; ratios are to `reference`, by default the first.

    The modules are moved to `device` and `dtype` and put in eval mode.

    Args:
        detectors: row name to detector (`.features`, `.fuse`, `.head`, `.detect`, `.spec`).
        scope: what is timed; inputs of the scope are computed beforehand, on the device.
        shape: (H, W) of the images in pixels; no padding.
        batch: images per call.
        dtype: of weights and inputs.
        device: "cpu", "cuda" or "cuda:INDEX".
        engine: name of the engine, for the record.
        protocol: rounds, warm-up, stopping and the seed of order and images.
        run_as: the engine itself, module to module; the module as it is without one.
        timer: the clock; that of the device without one.
        reference: the row that ratios are taken to.
        progress: told of (rounds done, rounds, label).

    Returns:
        Row name to record. A row that cannot be built or crashes is a `Failure` with its
        reason, and the others go on.
    """
    conditions = Conditions(scope, shape, batch, dtype, device, engine, protocol)
    check(conditions)
    timer = timer or timer_for(device)
    failures: dict[str, str] = {}
    calls: dict[str, Call] = {}
    with measuring(), torch.inference_mode():
        images = _images(conditions)
        for name, detector in detectors.items():
            try:
                calls[name] = _prepare(detector, images, conditions, run_as)
            except Exception as error:
                failures[name] = reason(error)
        sampled = sample(calls, timer, protocol, progress)
        counts = {name: _detections(call, scope, sampled[name]) for name, call in calls.items()}
    failures |= {name: row.failure for name, row in sampled.items() if row.failure}
    variants = {name: _variant(detector, name) for name, detector in detectors.items()}
    done = {name: row for name, row in sampled.items() if name not in failures}
    reference = reference or next(iter(detectors), "")
    return {
        name: Failure(variant, "latency", failures[name])
        if name in failures
        else summarise(name, variant, done, reference, conditions, counts[name])
        for name, variant in variants.items()
    }


def check(conditions: Conditions) -> None:
    """Check names and numbers that would only fail later, row by row.

    Raises:
        UsageError: an unknown scope or dtype, or a batch below 1.
    """
    if conditions.scope not in SCOPES:
        raise unknown("scope", conditions.scope, SCOPES)
    if conditions.dtype not in DTYPES:
        raise unknown("dtype", conditions.dtype, DTYPES)
    if conditions.batch < 1:
        raise UsageError(f"batch {conditions.batch}: at least 1 image is needed")


def _images(conditions: Conditions) -> Tensor:
    """Normal noise (N, 3, H, W), the same for every row, machine and run."""
    generator = torch.Generator().manual_seed(conditions.protocol.seed)
    try:
        images = torch.randn(conditions.batch, 3, *conditions.shape, generator=generator)
        return images.to(conditions.device, DTYPES[conditions.dtype])
    except RuntimeError as error:
        raise UsageError(
            f"{conditions.batch} images of {format_shape(conditions.shape)} do not fit on "
            f"'{conditions.device}' ({reason(error)}); use a smaller --batch or --shape"
        ) from None


def _prepare(
    detector: nn.Module,
    images: Tensor,
    conditions: Conditions,
    run_as: Callable[[nn.Module], nn.Module] | None,
) -> Call:
    module = detector.to(conditions.device, DTYPES[conditions.dtype]).eval()
    return SCOPES[conditions.scope](run_as(module) if run_as else module, images)


def _detections(call: Call, scope: Scope, row: Sampled) -> int | None:
    """Boxes found in one more, untimed call: NMS costs what it has to do."""
    if scope != "end-to-end" or row.failure is not None:
        return None
    found: Any = call()
    return sum(len(image.scores) for image in found)


def _variant(detector: Any, name: str) -> str:
    spec = getattr(detector, "spec", None)
    return spec.name if spec is not None else name


# --- summarising ---------------------------------------------------------------------------


def summarise(
    name: str,
    variant: str,
    sampled: Mapping[str, Sampled],
    reference: str,
    conditions: Conditions,
    detections: int | None = None,
) -> Latency:
    """Make the record of one row.

    Args:
        name: the row.
        variant: its variant's name.
        sampled: all rows that have samples, this one among them.
        reference: the row that ratios are taken to; it may be missing.
        conditions: what all rows share.
        detections: boxes found per call, where the scope has them.
    """
    row = sampled[name]
    seed = conditions.protocol.seed
    summary = summarise_rounds(row.seconds, seed)
    walls = row.wall_seconds
    ratio = None
    if name != reference and reference in sampled:
        ratio = _ratio(row, sampled[reference], reference, seed)
    return Latency(
        variant=variant,
        scope=conditions.scope,
        device=conditions.device,
        device_name=device_name(conditions.device),
        dtype=conditions.dtype,
        engine=conditions.engine,
        batch=conditions.batch,
        shape=conditions.shape,
        seed=seed,
        rounds=len(row.rounds),
        samples_per_round=conditions.protocol.samples_per_round,
        stopped=row.stopped,
        interleaved_with=tuple(other for other in sampled if other != name),
        warmup_calls=row.warmup_calls,
        warmup_settled=row.warmup_settled,
        first_call_s=row.first_call_s,
        median_s=summary.median,
        p10_s=summary.p10,
        p90_s=summary.p90,
        p99_s=summary.p99,
        mad_s=summary.mad,
        ci95_s=summary.ci95,
        samples_s=row.seconds,
        wall_samples_s=walls,
        wall_median_s=summarise_rounds(walls, seed).median if walls else None,
        ratio=ratio,
        reference=reference,
        detections=detections,
    )


def _ratio(row: Sampled, reference: Sampled, name: str, seed: int) -> Ratio:
    found = compare(row.seconds, reference.seconds, seed)
    return Ratio(
        to=name,
        median=found.median,
        ci95=found.ci95,
        p20=found.p20,
        p20_ci95=found.p20_ci95,
        resolved=found.resolved,
    )
