"""What `sepcbench train` is asked to do, read from its options."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from sepcbench import recipes
from sepcbench.cli import options
from sepcbench.errors import UsageError
from sepcbench.specs import Recipe

_EVERY = re.compile(r"(\d+(?:\.\d+)?)\s*(e|epoch|epochs)?\Z")


def parse_recipe(given: list[str] | None, chosen: dict[str, Any]) -> Recipe:
    """The recipe that `--recipe` names, with its `--recipe FIELD=VALUE` and other options set.

    Args:
        given: names, files and FIELD=VALUE; one name at most.
        chosen: recipe field to value; None is not given.

    Raises:
        UsageError: an unknown name, field or value.
    """
    fields = recipe_fields(given)
    fields |= {name: value for name, value in chosen.items() if value is not None}
    return recipes.made(fields)


def recipe_fields(given: Iterable[str] | None) -> dict[str, Any]:
    """The fields that `--recipe` sets, with the recipe it names under `recipes.KEY`.

    Args:
        given: names, files and FIELD=VALUE, the last of one field counts; one name at most.

    Raises:
        UsageError: several names, or a field without a name.
    """
    named = [text for text in given or () if "=" not in text]
    if len(named) > 1:
        raise UsageError(f"--recipe takes one name or file, not both '{named[0]}' and '{named[1]}'")
    fields: dict[str, Any] = {recipes.KEY: named[0]} if named else {}
    pairs = [text for text in given or () if "=" in text]
    return fields | options.parse_pairs("--recipe", "NAME, FILE or FIELD=VALUE", pairs)


def with_length(plan: Recipe, epochs: float | None, iterations: int | None) -> Recipe:
    """The recipe as long as `--epochs` says, if it does."""
    if epochs is None:
        return plan
    if iterations is not None:
        raise UsageError("give --iterations or --epochs, not both")
    if not 0 < epochs < float("inf"):
        raise UsageError(f"--epochs {epochs} is not a number above 0")
    return replace(plan, epochs=epochs)


def every(text: str) -> dict[str, float]:
    """What `--evaluate-every` says, for `training.loop.train`: iterations or epochs ("2 epochs").

    Raises:
        UsageError: it is neither.
    """
    match = _EVERY.match(text.strip())
    if match is None or float(match[1]) <= 0 or (not match[2] and "." in match[1]):
        raise UsageError(
            f"--evaluate-every '{text}' is not a number of iterations, such as 500, or of epochs, "
            "such as '1 epoch'"
        )
    number = float(match[1])
    return {"evaluate_epochs" if match[2] else "evaluate_every": number}


def check_free(out: Path) -> None:
    """Hours of training must not be lost to a repeated command.

    Raises:
        UsageError: there is a checkpoint in `out`, or a state to make one from.
    """
    if any((out / name).exists() for name in ("last.safetensors", "state.pt")):
        raise UsageError(
            f"'{out}' holds a checkpoint already; --resume goes on with it, --overwrite replaces "
            "it, or choose another --out"
        )
