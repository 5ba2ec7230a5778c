"""`sepcbench latency`: time variants against each other."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, get_args

import typer

from sepcbench.cli import options
from sepcbench.cli.options import Device, Format, Set
from sepcbench.cli.rows import (
    Backbone,
    ChosenRow,
    Shape,
    build_row,
    chosen_rows,
    latency_settings,
    with_rows,
)
from sepcbench.codec import encode
from sepcbench.records import Failure, Latency, interrupted
from sepcbench.report.table import Table
from sepcbench.specs import Dtype, EngineName, Protocol, Scope
from sepcbench.suites import LatencySettings
from sepcbench.units import format_shape, milliseconds, parse_shape

HEADERS = (
    "variant",
    "median, ms (lower is better)",
    "p10-p90, ms",
    "95 % interval, ms",
    "times the first (lower is better)",
    "rounds",
)


def latency(
    variants: Annotated[
        list[str] | None,
        typer.Argument(
            help="Variants, or MODULE:NAME of yours; the first is the reference.",
            autocompletion=options.complete_variant,
        ),
    ] = None,
    suite: Annotated[
        str | None,
        typer.Option(
            "--suite",
            help="Time the rows of a suite, by name or file.",
            autocompletion=options.complete_suite,
        ),
    ] = None,
    sets: Set = None,
    device: Device = "cpu",
    shape: Shape = None,
    backbone: Backbone = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Images per call.")] = None,
    dtype: Annotated[str | None, typer.Option(help="fp32, fp16 or bf16.")] = None,
    scope: Annotated[
        str | None, typer.Option(help="neck, neck+head, forward or end-to-end.")
    ] = None,
    engine: Annotated[str | None, typer.Option(help="How the module runs: eager.")] = None,
    rounds: Annotated[int | None, typer.Option(min=1, help="Interleaved rounds.")] = None,
    samples: Annotated[
        int | None, typer.Option(min=1, help="Samples of each variant per round.")
    ] = None,
    max_seconds: Annotated[
        float | None, typer.Option(help="Stop after this long; at least one round.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of images, weights and order.")] = None,
    fmt: Format = "table",
) -> None:
    """Time variants in interleaved rounds; ratios are against the first.

    Example: sepcbench latency retinanet_r50_fpn retinanet_r50_sepc --device cuda --dtype fp16
    Example: sepcbench latency retinanet_tiny_fpn retinanet_tiny_sepc --shape 128x128 --scope neck
    Example: sepcbench latency retinanet_r50_fpn my_neck.py:MyNeck --backbone r50 --scope neck
    """
    options.check_format(fmt)
    for kind, value, known in (
        ("scope", scope, Scope),
        ("engine", engine, EngineName),
        ("dtype", dtype, Dtype),
    ):
        if value is not None:
            options.check_choice(kind, value, get_args(known))
    device = options.check_device(device)
    plan = latency_settings(
        suite, shape=shape, batch=batch, dtype=dtype, scope=scope, engine=engine
    )
    plan = replace(plan, protocol=_protocol(plan.protocol, rounds, samples, max_seconds, seed))
    rows = chosen_rows(variants, suite, sets, backbone)
    records, environment = _measure(rows, plan, device)
    json_rows = [{**encode(record), "environment": environment} for record in records.values()]
    table = latency_table(records)
    options.emit(fmt, [table], with_rows(rows, json_rows))
    if interrupted(records.values()):
        raise KeyboardInterrupt
    if any(isinstance(record, Failure) for record in records.values()):
        raise typer.Exit(1)


def _protocol(
    base: Protocol,
    rounds: int | None,
    samples: int | None,
    max_seconds: float | None,
    seed: int | None,
) -> Protocol:
    """The suite's or the default protocol with what was asked for."""
    limit = base.max_seconds if max_seconds is None else max_seconds
    return replace(
        base,
        rounds=rounds or base.rounds,
        samples_per_round=samples or base.samples_per_round,
        max_seconds=limit,
        warmup_max_seconds=min(base.warmup_max_seconds, limit),
        seed=base.seed if seed is None else seed,
    )


def _measure(
    rows: list[ChosenRow], plan: LatencySettings, device: str
) -> tuple[dict[str, Latency | Failure], Any]:
    from sepcbench.engines import ENGINES
    from sepcbench.measures.environment import environment
    from sepcbench.measures.latency import measure

    seed = plan.protocol.seed
    built = {row.name: build_row(row, seed=seed) for row in rows}
    with options.progress_bar("latency") as progress:
        records = measure(
            built,
            scope=plan.scope,
            shape=parse_shape(plan.shape),
            batch=plan.batch,
            dtype=plan.dtype,
            device=device,
            engine=plan.engine,
            protocol=plan.protocol,
            run_as=ENGINES[plan.engine],
            progress=progress,
        )
    return records, encode(environment(device))


# --- table ---------------------------------------------------------------------------------


def latency_table(records: dict[str, Latency | Failure]) -> Table:
    """One row per record, failures with their reason in the notes."""
    timed = [record for record in records.values() if isinstance(record, Latency)]
    rows = tuple((name, *latency_cells(record)) for name, record in records.items())
    notes = [
        f"{name} failed: {record.reason}"
        for name, record in records.items()
        if isinstance(record, Failure)
    ]
    title = "Latency per call"
    if timed:
        first = timed[0]
        title += f" of {first.scope}, {first.batch} x {format_shape(first.shape)}, {first.dtype}"
        notes = [*latency_notes(timed), *notes]
    return Table(title, HEADERS, rows, tuple(notes))


def latency_cells(record: Latency | Failure) -> tuple[str, ...]:
    """The cells of one record under `HEADERS[1:]`."""
    if isinstance(record, Failure):
        return ("failed", "", "", "", "")
    low, high = record.ci95_s
    return (
        milliseconds(record.median_s),
        f"{milliseconds(record.p10_s)}-{milliseconds(record.p90_s)}",
        f"{milliseconds(low)}-{milliseconds(high)}",
        ratio_cell(record),
        str(record.rounds),
    )


def ratio_cell(record: Latency) -> str:
    """The ratio to the first row with its 95 % interval; "~" where that includes 1."""
    if record.ratio is None:
        return ""
    low, high = record.ratio.ci95
    mark = "" if record.ratio.resolved else " ~"
    return f"{record.ratio.median:.3f} [{low:.3f}, {high:.3f}]{mark}"


def latency_notes(timed: list[Latency]) -> list[str]:
    """What the times hold for, and what is to be doubted."""
    from sepcbench.stats import MIN_ROUNDS

    first = timed[0]
    notes = [
        f"Device: {first.device_name}; engine {first.engine}; {first.samples_per_round} samples "
        f"of each variant per round, in random order; stopped by: {first.stopped}.",
        "times the first: median of the ratios per round, with its 95 % interval; ~: that includes "
        f"1, or comes from fewer than {MIN_ROUNDS} rounds.",
    ]
    if first.device == "cpu":
        notes.append("Absolute times are of this machine only; compare the ratios.")
    found = [f"{row.detections}" for row in timed if row.detections is not None]
    if found:
        notes.append(f"Detections per call, row by row: {', '.join(found)} (random weights).")
    if "0" in found:
        notes.append("Without detections decoding and NMS cost next to nothing: not a full price.")
    unsettled = [row.variant for row in timed if not row.warmup_settled]
    if unsettled:
        notes.append(f"Warm-up did not settle: {', '.join(unsettled)}.")
    launch = [row.variant for row in timed if (row.wall_median_s or 0) > 1.2 * row.median_s]
    if launch:
        notes.append(f"Limited by launches (wall time over 1.2 x GPU time): {', '.join(launch)}.")
    return notes
