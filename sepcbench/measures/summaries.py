"""From the samples of a group of cases to their records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from sepcbench.measures.cases import Case
from sepcbench.measures.environment import device_name
from sepcbench.measures.sampling import Sampled
from sepcbench.records import Floor, Latency, Ratio, Split
from sepcbench.specs import Protocol, Scope
from sepcbench.stats import compare, summarise


@dataclass(frozen=True)
class Extras:
    """What is known of a case beside its samples; see the fields of `records.Latency`."""

    detections: int | None = None
    candidates: int | None = None
    engine_error: float | None = None
    split: Split | None = None
    floor: Floor | None = None
    launches: int | None = None
    busy_share: float | None = None
    peak_bytes: int | None = None
    energy_j: float | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Group:
    """Cases of one shape and batch, with the samples of those that have some.

    `reference` is the name of the case that ratios are taken to; it may be missing.
    """

    scope: Scope
    device: str
    protocol: Protocol
    cases: tuple[Case, ...]
    sampled: Mapping[str, Sampled]
    reference: str
    flushed_l2: bool = False


def record(case: Case, variant: str, group: Group, extras: Extras) -> Latency:
    """Make the record of one case that has samples."""
    row, seed = group.sampled[case.name], group.protocol.seed
    summary, walls = summarise(row.seconds, seed), row.wall_seconds
    watched = any(state != type(state)() for state in row.states)
    return Latency(
        variant=variant,
        scope=group.scope,
        device=group.device,
        device_name=device_name(group.device),
        dtype=case.dtype,
        engine=case.engine,
        batch=case.batch,
        shape=case.shape,
        seed=seed,
        rounds=len(row.rounds),
        samples_per_round=group.protocol.samples_per_round,
        stopped=row.stopped,
        interleaved_with=tuple(name for name in group.sampled if name != case.name),
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
        wall_median_s=summarise(walls, seed).median if walls else None,
        ratio=ratio(case.name, group.reference, group),
        reference=group.reference,
        mean_s=float(np.mean(np.concatenate([np.asarray(taken) for taken in row.seconds]))),
        tf32=case.tf32,
        protocol=group.protocol.name,
        flushed_l2=group.flushed_l2,
        eager_ratio=ratio(case.name, _eagerly(case, group), group),
        states=tuple(row.states) if watched else (),
        repeated_rounds=row.repeated,
        flagged_rounds=tuple(row.flagged),
        **vars(extras),
    )


def ratio(name: str, to: str, group: Group) -> Ratio | None:
    """How many times slower one case is than another; None to itself, or where one has failed."""
    if name == to or to not in group.sampled:
        return None
    sampled = group.sampled
    found = compare(sampled[name].seconds, sampled[to].seconds, group.protocol.seed)
    return Ratio(to, found.median, found.ci95, found.p20, found.p20_ci95, found.resolved)


def _eagerly(case: Case, group: Group) -> str:
    """The same row and dtype run eagerly, or ""."""
    for other in group.cases:
        if (other.row, other.dtype, other.engine) == (case.row, case.dtype, "eager"):
            return other.name
    return ""
