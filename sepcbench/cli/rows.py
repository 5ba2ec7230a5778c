"""The rows of a command: variants by name, modules of the user's own, the rows of a suite."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sepcbench.cli.options import parse_sets, parse_variants
from sepcbench.errors import UsageError
from sepcbench.overriding import override
from sepcbench.specs import VariantSpec
from sepcbench.specs.own import OwnSpec
from sepcbench.suites import CostSettings, load
from sepcbench.variants import VARIANTS

if TYPE_CHECKING:
    from torch import nn

Shape = Annotated[
    str | None,
    typer.Option(
        "--shape",
        help="Input size, HEIGHTxWIDTH in pixels; else the suite's, else 800x1344.",
        show_default=False,
    ),
]
Backbone = Annotated[
    str | None,
    typer.Option(
        "--backbone",
        metavar="NAME",
        help="What feeds a neck of your own (MODULE:NAME): a backbone, or a variant whose pyramid "
        "it gets; none for images. Else r50 for what takes in_channels, none for others.",
        show_default=False,
    ),
]


@dataclass(frozen=True)
class ChosenRow:
    """One row: its unique name, its variant or own module, and whether a suite brought it."""

    name: str
    spec: VariantSpec | OwnSpec
    of_suite: bool = False


def chosen_rows(
    variants: Iterable[str] | None,
    suite: str | None,
    sets: Iterable[str] | None,
    backbone: str | None = None,
) -> list[ChosenRow]:
    """Collect the rows of a command, variants and own modules first, then those of the suite.

    A name that is there already gets a number: "retinanet_r50_fpn#2", also in its spec.

    Raises:
        UsageError: there is no row, a name, field or suite is unknown, or `backbone` or `sets`
            is given and nothing takes it.
    """
    given = list(variants or ())
    rows = [_row(name, sets, backbone) for name in given]
    owned = [row for row in rows if isinstance(row.spec, OwnSpec)]
    if backbone is not None and not owned:
        raise UsageError("--backbone is for modules of your own, written MODULE:NAME")
    if sets and owned and len(owned) == len(rows) and suite is None:
        raise UsageError("--set changes variants, and there is none; a module of your own has none")
    if suite is not None:
        rows += _suite_rows(suite, parse_sets(sets))
    if not rows:
        raise UsageError("no variant given; name some (see `sepcbench list variants`) or a --suite")
    return _unique(rows)


def _row(name: str, sets: Iterable[str] | None, backbone: str | None) -> ChosenRow:
    """One row; a colon that is not in a variant's name (timm's have one) is an own module's."""
    if ":" in name and name not in VARIANTS:
        return ChosenRow(name, OwnSpec(name, backbone))
    (spec,) = parse_variants([name], sets)
    return ChosenRow(spec.name, spec)


def build_row(row: ChosenRow, *, init: bool = True, seed: int | None = None) -> nn.Module:
    """Build the module of a row; one of the user's own is always made whole."""
    if isinstance(row.spec, OwnSpec):
        from sepcbench import own_modules

        return own_modules.build(row.spec, seed=seed)
    from sepcbench import detectors

    return detectors.build(row.spec, init=init, seed=seed)


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


def with_rows(rows: list[ChosenRow], values: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Put the row's name first in the JSON object of every row of a suite."""
    return [
        {"row": row.name, **value} if row.of_suite else value for row, value in zip(rows, values)
    ]
