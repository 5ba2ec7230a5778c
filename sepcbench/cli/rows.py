"""The rows of a command: variants by name, the rows of a suite, or both."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Annotated, Any

import typer

from sepcbench.cli.options import parse_sets, parse_variants
from sepcbench.errors import UsageError
from sepcbench.overriding import override
from sepcbench.specs import VariantSpec
from sepcbench.suites import CostSettings, LatencySettings, load

Shape = Annotated[
    str | None,
    typer.Option(
        "--shape",
        help="Input size, HEIGHTxWIDTH in pixels; else the suite's, else 800x1344.",
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
    rows = []
    for row in load(suite).rows:
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


def cost_settings(suite: str | None, shape: str | None, convention: str | None) -> CostSettings:
    """What to count under: what is asked for, else the suite's setting, else the default."""
    base = load(suite).file.cost if suite else CostSettings()
    asked: dict[str, Any] = {"shape": shape, "convention": convention}
    return replace(base, **{key: value for key, value in asked.items() if value is not None})


def latency_settings(suite: str | None, **asked: Any) -> LatencySettings:
    """What to time under: what is asked for (not None), else the suite's, else the default."""
    base = load(suite).file.latency if suite else LatencySettings()
    return replace(base, **{key: value for key, value in asked.items() if value is not None})


def with_rows(rows: list[ChosenRow], values: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Put the row's name first in the JSON object of every row of a suite."""
    return [
        {"row": row.name, **value} if row.of_suite else value for row, value in zip(rows, values)
    ]
