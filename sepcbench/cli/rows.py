"""The rows of a command: variants by name, the rows of a suite, or both."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

import typer

from sepcbench.cli.options import parse_sets, parse_variants
from sepcbench.errors import UsageError
from sepcbench.specs import VariantSpec
from sepcbench.units import parse_shape
from sepcbench.variants import override

DEFAULT_SHAPE = "800x1344"

Shape = Annotated[
    str | None,
    typer.Option(
        "--shape",
        help=f"Input size, HEIGHTxWIDTH in pixels; else the suite's, else {DEFAULT_SHAPE}.",
        show_default=False,
    ),
]


@dataclass(frozen=True)
class ChosenRow:
    """One row: its unique name, its variant, and whether a suite brought it."""

    name: str
    spec: VariantSpec
    of_suite: bool = False


def chosen_rows(
    variants: Iterable[str] | None, suite: str | None, sets: Iterable[str] | None
) -> list[ChosenRow]:
    """Collect the rows of a command, variants first, then those of the suite.

    A name that is there already gets a number: "retinanet_r50_fpn#2", also in its spec.

    Raises:
        UsageError: there is no row, or a name, field or suite is unknown.
    """
    rows = [ChosenRow(spec.name, spec) for spec in parse_variants(variants or (), sets)]
    if suite is not None:
        rows += _suite_rows(suite, parse_sets(sets))
    if not rows:
        raise UsageError("no variant given; name some (see `sepcbench list variants`) or a --suite")
    return _unique(rows)


def _suite_rows(suite: str, overrides: dict[str, Any]) -> list[ChosenRow]:
    from sepcbench import suites

    rows = []
    for row in suites.load(suite).rows:
        spec = row.spec
        for path, value in overrides.items():
            spec = override(spec, path, value)
        rows.append(ChosenRow(row.name, spec, of_suite=True))
    return rows


def _unique(rows: list[ChosenRow]) -> list[ChosenRow]:
    seen: dict[str, int] = {}
    unique = []
    for row in rows:
        seen[row.name] = seen.get(row.name, 0) + 1
        if seen[row.name] > 1:
            name = f"{row.name}#{seen[row.name]}"
            row = ChosenRow(name, replace(row.spec, name=name), row.of_suite)
        unique.append(row)
    return unique


def shape_of(
    measure: Literal["cost", "latency"], shape: str | None, suite: str | None
) -> tuple[int, int]:
    """The input shape asked for, else the suite's for this measure, else 800x1344."""
    if shape is None and suite is not None:
        from sepcbench import suites

        loaded = suites.load(suite)
        return loaded.cost_shape if measure == "cost" else loaded.latency_shape
    return parse_shape(shape or DEFAULT_SHAPE)


def with_rows(rows: list[ChosenRow], values: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Put the row's name first in the JSON object of every row of a suite."""
    return [
        {"row": row.name, **value} if row.of_suite else value for row, value in zip(rows, values)
    ]
