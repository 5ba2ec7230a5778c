"""From a target to the module that is measured.

A target is a variant's name or spec, MODULE:NAME or FILE.py:NAME, a module, or a class or function
that makes one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sepcbench.errors import UsageError
from sepcbench.specs import VariantSpec
from sepcbench.specs.own import OwnSpec
from sepcbench.variants import VARIANTS
from sepcbench.variants import variant as find_variant

if TYPE_CHECKING:
    from torch import nn


def spec_of(target: str | VariantSpec, overrides: dict[str, Any]) -> VariantSpec:
    """The spec of a variant by name or spec, with overrides.

    Raises:
        UsageError: no such variant or field.
    """
    if isinstance(target, str):
        return find_variant(target, overrides)
    from sepcbench.overriding import override

    for path, value in overrides.items():
        target = override(target, path, value)
    return target


def is_own(target: Any) -> bool:
    """Whether a target names a user's own module, MODULE:NAME or FILE.py:NAME."""
    return isinstance(target, str) and ":" in target and target not in VARIANTS


def module_of(
    target: Any, backbone: str | None, *, init: bool, seed: int | None = None
) -> nn.Module:
    """The module of a target, with what a measure asks of it."""
    from sepcbench import detectors, own_modules

    if isinstance(target, (detectors.Detector, own_modules.OwnNeck, own_modules.OwnDetector)):
        return target
    if is_own(target):
        return own_modules.build(OwnSpec(target, backbone), seed=seed)
    if isinstance(target, (str, VariantSpec)):
        return detectors.build(spec_of(target, {}), init=init, seed=seed)
    return own_modules.dress(target, OwnSpec(place_of(target), backbone), seed=seed)


def place_of(target: Any) -> str:
    """MODULE:NAME of what makes a module, or of the class of one."""
    made = target if callable(target) and hasattr(target, "__qualname__") else type(target)
    return f"{made.__module__}:{made.__qualname__}"


def name_of(target: Any) -> str:
    """The name of a row: the variant's, or that of the module's class."""
    if isinstance(target, str):
        return target
    spec = target if isinstance(target, VariantSpec) else getattr(target, "spec", None)
    return getattr(spec, "name", None) or place_of(target).rpartition(":")[2]


def rows_of(
    targets: Sequence[Any] | Mapping[str, Any], backbone: str | None, seed: int
) -> dict[str, nn.Module]:
    """The modules of one or many targets by the names of their rows; repeated names get a number.

    Raises:
        UsageError: there is none, or one cannot be made.
    """
    if isinstance(targets, str) or not isinstance(targets, (Sequence, Mapping)):
        targets = [targets]
    named = targets.items() if isinstance(targets, Mapping) else ((name_of(t), t) for t in targets)
    rows: dict[str, nn.Module] = {}
    for name, target in named:
        unique, number = name, 1
        while unique in rows:
            number += 1
            unique = f"{name}#{number}"
        rows[unique] = module_of(target, backbone, init=True, seed=seed)
    if not rows:
        raise UsageError("nothing to time; name a variant or give a module")
    return rows
