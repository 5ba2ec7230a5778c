"""`sepcbench flops`: multiply-adds and parameters of variants."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from sepcbench.cli import options
from sepcbench.cli.options import Format, Set
from sepcbench.cli.rows import (
    Backbone,
    ChosenRow,
    Shape,
    build_row,
    chosen_rows,
    cost_settings,
    with_rows,
)
from sepcbench.codec import encode
from sepcbench.errors import CountError, SepcbenchError
from sepcbench.report.table import Table
from sepcbench.specs import CostConvention
from sepcbench.specs.own import OwnSpec
from sepcbench.units import format_shape, giga, mega, parse_shape

if TYPE_CHECKING:
    from sepcbench.records import Cost

# Digits after the point of single modules and ops, which may be small.
FINE = 6
PARTS = ("total", "backbone", "neck", "head", "tower")
_ROUTES = {False: "empty batch", True: "real image"}

CONVENTION_NOTES: dict[str, str] = {
    "mac": "MAC: one multiply-add of a conv, deformable conv or matmul; others print it as FLOPs.",
    "mmdet": "As mmdetection 1.x counts: MAC plus conv bias, BN (2 per element), ReLU, max-pool.",
    "paper": "As the SEPC paper's Appendix 1: MAC plus sampling of deformable convs.",
}
TOWER_NOTE = "tower: the convs of the head towers without predictions; part of neck and head."


def flops(
    variants: Annotated[
        list[str] | None,
        typer.Argument(
            help="Variants (see `sepcbench list variants`), or MODULE:NAME of yours.",
            autocompletion=options.complete_variant,
        ),
    ] = None,
    suite: Annotated[
        str | None,
        typer.Option(
            "--suite",
            help="Count the rows of a suite, by name or file.",
            autocompletion=options.complete_suite,
        ),
    ] = None,
    sets: Set = None,
    shape: Shape = None,
    backbone: Backbone = None,
    by: Annotated[str, typer.Option("--by", help="part, module or op.")] = "part",
    exact: Annotated[
        bool, typer.Option("--exact", help="Trace a real image, not an empty batch.")
    ] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Count a second way too; differing is an error.")
    ] = False,
    convention: Annotated[
        str | None,
        typer.Option(help="What is in the total: mac, mmdet or paper; else the suite's, else mac."),
    ] = None,
    fmt: Format = "table",
) -> None:
    """Count multiply-adds (MAC) and parameters, for one image.

    Example: sepcbench flops retinanet_r50_fpn retinanet_r50_sepc
    Example: sepcbench flops retinanet_r50_sepc --by module --format md
    Example: sepcbench flops retinanet_r50_fpn my_neck.py:MyNeck --backbone r50
    """
    options.check_format(fmt)
    options.check_choice("view", by, VIEW_TABLES)
    if convention is not None:
        options.check_choice("convention", convention, get_args(CostConvention))
    settings = cost_settings(suite, shape, convention)
    size = parse_shape(settings.shape)
    rows = chosen_rows(variants, suite, sets, backbone)
    costs = []
    with options.progress_bar("flops") as progress:
        for done, row in enumerate(rows):
            progress(done, len(rows), row.name)
            costs.append(_count(row, size, exact, check, settings.convention))
    overrides = options.parse_sets(sets)
    tables = VIEW_TABLES[by]([_label(row, overrides) for row in rows], costs)
    values = [encode(cost) | _changed(row, overrides) for row, cost in zip(rows, costs)]
    options.emit(fmt, tables, with_rows(rows, values))


def _label(row: ChosenRow, overrides: dict[str, Any]) -> str:
    """The name of a row with what `--set` changed, such as "retinanet_r50_fpn (norm=gn)"."""
    told = ", ".join(f"{field}={value}" for field, value in overrides.items())
    return f"{row.name} ({told})" if _changed(row, overrides) else row.name


def _changed(row: ChosenRow, overrides: dict[str, Any]) -> dict[str, Any]:
    """The key of a row's JSON object that says what `--set` changed; a module has no fields."""
    return {} if isinstance(row.spec, OwnSpec) or not overrides else {"set": overrides}


def _count(
    row: ChosenRow, shape: tuple[int, int], exact: bool, check: bool, convention: Any
) -> Cost:
    from sepcbench.measures.cost import cost

    # nobody promised that a module of the user's own counts right on an empty batch
    own = isinstance(row.spec, OwnSpec)
    exact = exact or own
    kind = "module" if own else "variant"
    # an empty batch reads no weight; a real image must not meet uninitialised offsets
    detector = build_row(row, init=exact)
    try:
        counted = cost(detector, shape, exact=exact, convention=convention)
        if check:
            _check(detector, counted)
    except SepcbenchError as error:
        raise type(error)(f"{kind} '{row.name}': {error}") from None
    except Exception as error:
        if not (own or isinstance(error, RuntimeError)):
            raise
        line = (str(error).splitlines() or [""])[0]
        line = line if isinstance(error, RuntimeError) else f"{type(error).__name__}: {line}"
        raise CountError(
            f"{kind} '{row.name}' does not run at {format_shape(shape)}: {line}; "
            "try another --shape"
        ) from None
    return counted


def _check(detector: Any, counted: Cost) -> None:
    """Compare with the count of torch's own counter, which knows multiply-adds only."""
    from sepcbench.measures.cost import cost, count_dispatched

    macs = dict(cost(detector, counted.shape, exact=counted.exact).macs)["total"]
    other = count_dispatched(detector, counted.shape)
    if macs != other:
        raise CountError(
            f"fvcore's trace has {macs} MAC, torch's FlopCounterMode {other}; the trace leaves out "
            "what the outputs do not need"
        )


# --- tables --------------------------------------------------------------------------------


def _title(costs: list[Cost]) -> str:
    cost = costs[0]
    routes = " or ".join(sorted({_ROUTES[cost.exact] for cost in costs}))
    return f"Multiply-adds of one {format_shape(cost.shape)} image ({cost.convention}, {routes})"


def part_tables(names: list[str], costs: list[Cost]) -> list[Table]:
    """One table: a variant per row, a part per column."""
    headers = (
        "variant",
        "params, M",
        "trainable, M",
        "total, GMAC (lower is better)",
        *(f"{part}, GMAC" for part in PARTS[1:]),
        "sampling, GMAC",
    )
    rows = []
    for name, cost in zip(names, costs):
        macs = dict(cost.macs)
        params = (mega(cost.params), mega(cost.trainable_params))
        counts = tuple(giga(macs[part]) if part in macs else "" for part in PARTS)
        rows.append((name, *params, *counts, giga(cost.sampling_macs)))
    return [Table(_title(costs), headers, tuple(rows), _notes(costs), keys=1)]


def module_tables(names: list[str], costs: list[Cost]) -> list[Table]:
    """One table: a module of a variant per row."""
    rows = [
        (name, path, giga(macs, FINE), _share(macs, cost))
        for name, cost in zip(names, costs)
        for path, macs in cost.by_module
    ]
    headers = ("variant", "module", "GMAC (lower is better)", "share of total")
    return [Table(_title(costs), headers, tuple(rows), _notes(costs)[:1], keys=1)]


def op_tables(names: list[str], costs: list[Cost]) -> list[Table]:
    """One table: an op of a variant per row, first those in the total, then the others."""
    rows = []
    for name, cost in zip(names, costs):
        rows += [(name, op, giga(n, FINE), "", _share(n, cost)) for op, n in cost.by_op]
        rows += [(name, op, "", giga(n, FINE), "") for op, n in cost.other_ops]
    headers = (
        "variant",
        "op",
        "GMAC (lower is better)",
        "outside the total, 10^9 elements",
        "share of total",
    )
    return [Table(_title(costs), headers, tuple(rows), (*_notes(costs)[:1], *_unknown(costs)))]


def _share(macs: int, cost: Cost) -> str:
    return f"{macs / dict(cost.macs)['total']:.2%}"


def _notes(costs: list[Cost]) -> tuple[str, ...]:
    return (CONVENTION_NOTES[costs[0].convention], TOWER_NOTE, *_rois(costs), *_unknown(costs))


def _rois(costs: list[Cost]) -> tuple[str, ...]:
    counts = sorted({cost.rois for cost in costs if cost.rois})
    if not counts:
        return ()
    number = " or ".join(map(str, counts))
    return (f"second stages: with {number} RoIs, as many as they see at most.",)


def _unknown(costs: list[Cost]) -> tuple[str, ...]:
    ops = sorted({op for cost in costs for op, _ in cost.unsupported_ops})
    return (f"Not counted (no multiply-adds): {', '.join(ops)}.",) if ops else ()


VIEW_TABLES = {"part": part_tables, "module": module_tables, "op": op_tables}
