"""`sepcbench latency`: time variants against each other."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Annotated, Any, get_args

import typer

from sepcbench.cli import options
from sepcbench.cli.latency_table import latency_table, parts_tables
from sepcbench.cli.options import Device, Format, Set
from sepcbench.cli.rows import Backbone, ChosenRow, Shape, build_row, chosen_rows
from sepcbench.codec import encode
from sepcbench.errors import UsageError
from sepcbench.records import Failure, Latency, cut_short
from sepcbench.specs import PROTOCOLS, Dtype, EngineName, Protocol, Scope
from sepcbench.specs.engines import check_runs_on
from sepcbench.specs.protocols import TIMED, default_protocol, protocol_on
from sepcbench.suites import LatencySettings, load
from sepcbench.units import parse_shape


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
    batch: Annotated[
        str | None, typer.Option(help="Images per call; several as 1,8.", show_default="1")
    ] = None,
    dtype: Annotated[
        str | None,
        typer.Option(help="fp32, tf32, fp16 or bf16; several as tf32,fp16.", show_default="fp32"),
    ] = None,
    scope: Annotated[
        str | None,
        typer.Option(
            help="neck, neck+head, forward, end-to-end or pipeline.", show_default="forward"
        ),
    ] = None,
    engine: Annotated[
        str | None,
        typer.Option(
            help="How the module runs, see `sepcbench list engines`; several as eager,folded.",
            show_default="eager",
        ),
    ] = None,
    protocol: Annotated[
        str | None,
        typer.Option(
            help="standard, thorough (on a GPU the default) or paper (SEPC, section 5).",
            show_default=False,
        ),
    ] = None,
    split: Annotated[
        bool, typer.Option("--split", help="Time backbone, necks, head and decoding apart too.")
    ] = False,
    roofline: Annotated[
        bool,
        typer.Option(
            "--roofline", help="Compare with the floor of this device; on a GPU always done."
        ),
    ] = False,
    flush_l2: Annotated[
        bool, typer.Option("--flush-l2", help="Empty the GPU's L2 cache before every sample.")
    ] = False,
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
    Example: sepcbench latency retinanet_tiny_sepc --shape 128x128 --engine eager,folded --batch 1,2
    Example: sepcbench latency retinanet_r50_fpn my_neck.py:MyNeck --backbone r50 --scope neck
    """
    options.check_format(fmt)
    device = options.check_device(device)
    changes = Changes(rounds, samples, max_seconds, seed)
    plan = _plan(suite, device, protocol, changes, shape, batch, dtype, scope, engine)
    plan = replace(plan, split=split, roofline=roofline, flush_l2=flush_l2)
    rows = chosen_rows(variants, suite, sets, backbone)
    _check_engines(plan, device)
    notes = _paper_changed(plan)
    records, environment, broken_off = _measure(rows, plan, device)
    tables = [latency_table(records, notes), *parts_tables(records)]
    options.emit(fmt, tables, _as_json(rows, records, environment))
    if broken_off or cut_short(records.values()):
        print("sepcbench: what was measured is shown", file=sys.stderr)
        raise KeyboardInterrupt
    if any(isinstance(record, Failure) for record in records.values()):
        raise typer.Exit(1)


# --- what is asked for ---------------------------------------------------------------------


@dataclass(frozen=True)
class Changes:
    """What is asked for instead of the protocol's; None where nothing is."""

    rounds: int | None = None
    samples_per_round: int | None = None
    max_seconds: float | None = None
    seed: int | None = None


@dataclass(frozen=True)
class Plan:
    """What to time: all combinations, under one protocol and scope."""

    scope: Scope
    shapes: tuple[tuple[int, int], ...]
    batches: tuple[int, ...]
    dtypes: tuple[Dtype, ...]
    engines: tuple[EngineName, ...]
    protocol: Protocol
    split: bool = False
    roofline: bool = False
    flush_l2: bool = False


def _plan(
    suite: str | None,
    device: str,
    preset: str | None,
    changes: Changes,
    shape: str | None,
    batch: str | None,
    dtype: str | None,
    scope: str | None,
    engine: str | None,
) -> Plan:
    """What is asked for, else what a preset or the suite says, else the default."""
    if preset is not None:
        options.check_choice("protocol", preset, PROTOCOLS)
    if scope is not None:
        options.check_choice("scope", scope, get_args(Scope))
    base = load(suite).file.latency if suite else LatencySettings()
    protocol = protocol_on(device, base.protocol) if suite and not preset else default_protocol(
        device, preset  # type: ignore[arg-type]
    )  # fmt: skip
    usual: Any = TIMED.get(protocol.name, (base.scope, base.batch))
    asked = {key: value for key, value in vars(changes).items() if value is not None}
    return Plan(
        scope=scope or usual[0],  # type: ignore[arg-type]
        shapes=tuple(parse_shape(text) for text in _several(shape or base.shape)),
        batches=tuple(_count(text) for text in _several(batch or str(usual[1]))),
        dtypes=_names("dtype", dtype or base.dtype, get_args(Dtype)),
        engines=_names("engine", engine or base.engine, get_args(EngineName)),
        protocol=protocol.changed(**asked),
    )


def _several(text: str) -> list[str]:
    return [part.strip() for part in text.split(",")]


def _names(kind: str, text: str, known: Iterable[str]) -> tuple[Any, ...]:
    return tuple(options.check_choice(kind, name, known) for name in _several(text))


def _count(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise UsageError(f"--batch '{text}' is no number of images; give some such as 1,8")
    return int(text)


def _check_engines(plan: Plan, device: str) -> None:
    """Check the engines before anything is built, and their devices before torch is loaded."""
    for name in plan.engines:
        check_runs_on(name, device)
    from sepcbench.engines import ENGINES, check_engines

    check_engines([ENGINES[name] for name in plan.engines], device, plan.dtypes)


# --- what to know of it ----------------------------------------------------------------------


def _paper_changed(plan: Plan) -> list[str]:
    """Where the paper's protocol is asked for with other options than the paper's."""
    if plan.protocol.name != "paper":
        return []
    usual, (scope, batch) = PROTOCOLS["paper"], TIMED["paper"]
    pairs: list[tuple[str, object, object]] = [
        (name, getattr(plan.protocol, name), getattr(usual, name))
        for name in ("rounds", "samples_per_round", "max_seconds")
    ]
    pairs += [("scope", plan.scope, scope)]
    pairs += [("batch", one, batch) for one in plan.batches]
    parts = [f"{name.replace('_', ' ')} {now}, not {was}" for name, now, was in pairs if now != was]
    return [f"The paper's protocol was changed: {'; '.join(parts)}."] if parts else []


# --- measuring -----------------------------------------------------------------------------


def _measure(
    rows: list[ChosenRow], plan: Plan, device: str
) -> tuple[dict[str, Latency | Failure], Any, bool]:
    """Case to record, the environment, and whether it was broken off between two batches."""
    from sepcbench.measures.environment import environment
    from sepcbench.measures.latency import measure

    built = {row.name: build_row(row, seed=plan.protocol.seed) for row in rows}
    records: dict[str, Latency | Failure] = {}
    broken_off = False
    try:
        with options.progress_bar("latency") as progress:
            measure(
                built,
                scope=plan.scope,
                shape=plan.shapes,
                batch=plan.batches,
                dtype=plan.dtypes,
                device=device,
                engine=plan.engines,
                protocol=plan.protocol,
                flush_l2=plan.flush_l2,
                split=plan.split,
                floor=plan.roofline or None,
                progress=progress,
                keep=records.update,
            )
    except KeyboardInterrupt:
        if not records:
            raise
        broken_off = True
    return records, encode(environment(device)), broken_off


def _as_json(
    rows: list[ChosenRow], records: dict[str, Latency | Failure], environment: Any
) -> list[dict[str, Any]]:
    """A record per case; the row of a suite, and the case where a row has several, come first."""
    of_suite = {row.name: row.of_suite for row in rows}
    found = []
    for name, record in records.items():
        row = name if name in of_suite else name.rpartition("@")[0]
        first = {"row": row} if of_suite[row] else {}
        if name != row:
            first["case"] = name
        found.append({**first, **encode(record), "environment": environment})
    return found
