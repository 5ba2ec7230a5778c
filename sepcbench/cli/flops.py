"""`sepcbench flops`: multiply-adds and parameters of variants."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from sepcbench.cli import options
from sepcbench.cli.options import Format, Set, Shape
from sepcbench.cli.rows import chosen_rows, with_rows
from sepcbench.codec import encode
from sepcbench.errors import CountError, SepcbenchError
from sepcbench.report.table import Table
from sepcbench.specs import CostConvention, VariantSpec
from sepcbench.units import format_shape, giga, mega, parse_shape

if TYPE_CHECKING:
    from sepcbench.records import Cost

VIEWS = ("part", "module", "op")
PARTS = ("total", "backbone", "neck", "head", "tower")

CONVENTION_NOTES: dict[str, str] = {
    "mac": "MAC: one multiply-add of a conv, deformable conv or matmul; others print it as FLOPs.",
    "mmdet": "As mmdetection 1.x counts: MAC plus conv bias, BN (2 per element), ReLU, max-pool.",
    "paper": "As the SEPC paper's Appendix 1: MAC plus sampling of deformable convs.",
}
TOWER_NOTE = "tower: the convs of the head towers without predictions; part of neck and head."


def flops(
    variants: Annotated[
        list[str] | None, typer.Argument(help="Variants; see `sepcbench list variants`.")
    ] = None,
    suite: Annotated[
        str | None, typer.Option("--suite", help="Count the rows of a suite, by name or file.")
    ] = None,
    sets: Set = None,
    shape: Shape = "800x1344",
    by: Annotated[str, typer.Option("--by", help="part, module or op.")] = "part",
    exact: Annotated[
        bool, typer.Option("--exact", help="Trace a real image, not an empty batch.")
    ] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Count a second way too; differing is an error.")
    ] = False,
    convention: Annotated[
        str, typer.Option("--convention", help="What is in the total: mac, mmdet or paper.")
    ] = "mac",
    fmt: Format = "table",
) -> None:
    """Count multiply-adds (MAC) and parameters, for one image."""
    options.check_format(fmt)
    options.check_choice("view", by, VIEWS)
    options.check_choice("convention", convention, get_args(CostConvention))
    size = parse_shape(shape)
    rows = chosen_rows(variants, suite, sets)
    costs = [_count(row.spec, size, exact, check, convention) for row in rows]
    tables = VIEW_TABLES[by]([row.name for row in rows], costs)
    options.emit(fmt, tables, with_rows(rows, [encode(cost) for cost in costs]))


def _count(
    spec: VariantSpec, shape: tuple[int, int], exact: bool, check: bool, convention: Any
) -> Cost:
    from sepcbench import detectors
    from sepcbench.measures.cost import cost

    # an empty batch reads no weight; a real image must not meet uninitialised offsets
    detector = detectors.build(spec, init=exact)
    try:
        counted = cost(detector, shape, exact=exact, convention=convention)
        if check:
            _check(detector, counted)
    except SepcbenchError as error:
        raise type(error)(f"variant '{spec.name}': {error}") from None
    except RuntimeError as error:
        line = str(error).splitlines()[0]
        raise CountError(
            f"variant '{spec.name}' does not run at {format_shape(shape)}: {line}; "
            "try a larger --shape"
        ) from None
    return counted


def _check(detector: Any, counted: Cost) -> None:
    """Compare with the count of torch's own counter, which knows multiply-adds only."""
    from sepcbench.measures.cost import cost, count_dispatched

    macs = dict(cost(detector, counted.shape, exact=counted.exact).macs)["total"]
    other = count_dispatched(detector, counted.shape)
    if macs != other:
        raise CountError(f"fvcore's trace has {macs} MAC, torch's FlopCounterMode {other}")


# --- tables --------------------------------------------------------------------------------


def _title(cost: Cost) -> str:
    route = "real image" if cost.exact else "empty batch"
    return f"Multiply-adds of one {format_shape(cost.shape)} image ({cost.convention}, {route})"


def part_tables(names: list[str], costs: list[Cost]) -> list[Table]:
    """One table: a variant per row, a part per column."""
    headers = (
        "variant",
        "params, M",
        "trainable, M",
        "total, GMAC (lower is better)",
        *(f"{part}, GMAC" for part in PARTS[1:]),
        "sampling, GMAC (apart)",
    )
    rows = []
    for name, cost in zip(names, costs):
        macs = dict(cost.macs)
        params = (mega(cost.params), mega(cost.trainable_params))
        rows.append((name, *params, *(giga(macs[p]) for p in PARTS), giga(cost.sampling_macs)))
    return [Table(_title(costs[0]), headers, tuple(rows), _notes(costs))]


def module_tables(names: list[str], costs: list[Cost]) -> list[Table]:
    """A table per variant: a module per row."""
    return [_share_table(name, "module", cost, cost.by_module) for name, cost in zip(names, costs)]


def op_tables(names: list[str], costs: list[Cost]) -> list[Table]:
    """A table per variant of what adds up to the total, and one of what is outside of it."""
    tables = []
    for name, cost in zip(names, costs):
        tables.append(_share_table(name, "op", cost, cost.by_op))
        rows = tuple((op, giga(count)) for op, count in cost.other_ops)
        title = f"{name}: outside the total, {format_shape(cost.shape)}"
        tables.append(Table(title, ("op", "elements, 10^9"), rows))
    return tables


def _share_table(name: str, what: str, cost: Cost, counts: tuple[tuple[str, int], ...]) -> Table:
    total = dict(cost.macs)["total"]
    rows = tuple((item, giga(count), f"{count / total:.2%}") for item, count in counts)
    headers = (what, "GMAC (lower is better)", "share of total")
    return Table(
        f"{name}: {_title(cost)}", headers, (*rows, ("total", giga(total), "")), _notes([cost])
    )


def _notes(costs: list[Cost]) -> tuple[str, ...]:
    notes = [CONVENTION_NOTES[costs[0].convention], TOWER_NOTE]
    unknown = sorted({op for cost in costs for op, _ in cost.unsupported_ops})
    if unknown:
        notes.append(f"Not counted (no multiply-adds): {', '.join(unknown)}.")
    return tuple(notes)


VIEW_TABLES = {"part": part_tables, "module": module_tables, "op": op_tables}
