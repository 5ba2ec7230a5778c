"""Which format a file has, and which variants its keys and shapes fit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sepcbench import overriding, variants
from sepcbench.checkpoints import FORMATS
from sepcbench.checkpoints.contents import Contents
from sepcbench.checkpoints.fitting import (
    Differences,
    compare,
    shapes_of,
    wanted_shapes,
    with_classes,
)
from sepcbench.checkpoints.format import Format, Reason, Renamed
from sepcbench.codec import encode
from sepcbench.errors import UsageError
from sepcbench.specs import TimmSpec, VariantSpec


@dataclass(frozen=True)
class Wishes:
    """What the user says about a checkpoint instead of what the file says.

    Attributes:
        variant: a name or a spec.
        conventions: one of `CONVENTIONS`.
        overrides: field of the variant to value; they come last.
    """

    variant: str | VariantSpec | None = None
    conventions: str | None = None
    overrides: tuple[tuple[str, Any], ...] = ()

    def apply(self, spec: VariantSpec) -> VariantSpec:
        """A variant with the overrides."""
        for field, value in self.overrides:
            spec = overriding.override(spec, field, value)
        return spec


@dataclass(frozen=True, eq=False)
class Match:
    """One way to read a file.

    Attributes:
        format: the format, or the first of those that are possible.
        possible: the formats that cannot be told apart, if their conventions differ.
        reasons: what says that it is this format.
        renamed: the tensors under our keys.
        fits: the variants whose keys and shapes these are.
        nearest: the variant with the fewest differences; None if none was compared.
        differences: from the nearest.
    """

    format: Format
    possible: tuple[Format, ...]
    reasons: tuple[Reason, ...]
    renamed: Renamed
    fits: tuple[VariantSpec, ...]
    nearest: VariantSpec | None
    differences: Differences


def find(contents: Contents, wishes: Wishes) -> Match | None:
    """Find the format and the variants of a file; None if no format has such keys.

    Raises:
        UsageError: no such variant or field.
    """
    asked = _candidates(wishes)
    recognised = [(made, made.recognise(contents)) for made in FORMATS.values()]
    possible = [(made, reasons) for made, reasons in recognised if reasons]
    # what the user says about the conventions decides between formats
    possible = [p for p in possible if p[0].conventions == wishes.conventions] or possible
    if not possible:
        return None
    made_by, reasons = possible[0]
    told = len({made.conventions for made, _ in possible}) == 1
    inside = made_by.inside(contents)
    if wishes.variant is None:
        asked = [wishes.apply(inside)] if inside else [s for s in asked if made_by.suits(s)]
    renamed = made_by.rename(contents.state)
    fits, nearest, differences = _compare(renamed, asked, made_by)
    return Match(
        format=made_by,
        possible=() if told else tuple(made for made, _ in possible),
        reasons=reasons if told else (),
        renamed=renamed,
        fits=fits,
        nearest=nearest,
        differences=differences,
    )


def _candidates(wishes: Wishes) -> list[VariantSpec]:
    """The variants to compare with: the one asked for, or all that have the fields overridden.

    Of the listed ones those on backbones of timm are left out: no format has names for them.
    """
    if isinstance(wishes.variant, VariantSpec):
        return [wishes.apply(wishes.variant)]
    if wishes.variant is not None:
        return [wishes.apply(variants.variant(wishes.variant))]
    found, failure = [], None
    for spec in variants.VARIANTS.values():
        if isinstance(spec.backbone, TimmSpec):
            continue
        try:
            found.append(wishes.apply(spec))
        except UsageError as error:
            failure = failure or error
    if failure is not None and not found:
        raise failure
    return found


def _compare(
    renamed: Renamed, specs: list[VariantSpec], made_by: Format
) -> tuple[tuple[VariantSpec, ...], VariantSpec | None, Differences]:
    found = shapes_of(renamed.state)
    scored = []
    for spec in specs:
        spec = with_classes(spec, found)
        scored.append((spec, compare(renamed, wanted_shapes(spec), made_by)))
    if not scored:
        return (), None, Differences()
    nearest = min(scored, key=lambda pair: pair[1].count)
    return tuple(spec for spec, differences in scored if not differences.count), *nearest


def differing_fields(specs: tuple[VariantSpec, ...]) -> str:
    """The fields in which variants differ, with their values, in one line."""
    flat = [_flatten(encode(spec)) for spec in specs]
    fields = dict.fromkeys(key for values in flat for key in values if key != "name")
    parts = []
    for field in fields:
        values = [str(values[field]) for values in flat if field in values]
        if len(values) == len(flat) and len(set(values)) > 1:
            parts.append(f"{field} ({' against '.join(dict.fromkeys(values))})")
    return ", ".join(parts)


def _flatten(node: Any, path: str = "") -> dict[str, Any]:
    if isinstance(node, Mapping):
        items = list(node.items())
    elif isinstance(node, list) and node and isinstance(node[0], Mapping):
        items = list(enumerate(node))
    else:
        return {path: node}
    flat: dict[str, Any] = {}
    for key, value in items:
        flat |= _flatten(value, f"{path}.{key}" if path else str(key))
    return flat
