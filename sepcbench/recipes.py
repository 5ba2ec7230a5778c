"""Recipes by name: TOML files of the fields of `specs.Recipe`, each on top of another or none.

A file, a suite's `train` table or the command line may name a recipe to start from; without one
the defaults of `Recipe` are where it starts.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sepcbench.codec import coerce, encode, fields_of
from sepcbench.errors import UsageError, unknown
from sepcbench.specs import Recipe

KEY = "recipe"  # in a table of fields: the recipe it starts from
OF_COCO = "1x"  # of rows that are trained on the user's set, where nothing else is said
_DEEPEST = 8


def folders() -> tuple[Path, ...]:
    """Where recipes are found by name: here, beside the package, and inside an installed one."""
    package = Path(__file__).resolve().parent
    return (Path("recipes"), package.parent / "recipes", package / "_recipes")


def names() -> list[str]:
    """The recipes that can be named."""
    return sorted({path.stem for folder in folders() for path in folder.glob("*.toml")})


def title(name: str) -> str:
    """What a recipe by name says that it is, in the comment that its file begins with."""
    first = _locate(name).read_text(encoding="utf-8").partition("\n")[0]
    return first.removeprefix("#").strip()


def load(name: str) -> Recipe:
    """Read a recipe by name or file.

    Raises:
        UsageError: there is none, it is malformed, or a field or value is unknown.
    """
    return made(fields(name))


def made(given: Mapping[str, Any], where: str = "recipe") -> Recipe:
    """The recipe of a table of fields, which may name another under `recipe` to start from.

    Args:
        given: field to value, or to its text.
        where: the place to name in an error.

    Raises:
        UsageError: a field or value is unknown.
    """
    hints, whole = fields_of(Recipe), resolved(given, where)
    for name in whole:
        if name not in hints:
            place = f"in {where}; " if where != "recipe" else ""
            raise unknown("recipe field", name, hints, f"{place}see `sepcbench list recipes`")
    return Recipe(**{k: coerce(v, hints[k], f"{where} {k}") for k, v in whole.items()})


def fields(name: str, depth: int = 0) -> dict[str, Any]:
    """The fields that a recipe by name or file sets, those it starts from included."""
    path = _locate(name)
    try:
        given = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise UsageError(f"recipe '{path}' cannot be read: {reason}") from None
    return resolved(given, str(path), depth)


def resolved(given: Mapping[str, Any], where: str, depth: int = 0) -> dict[str, Any]:
    """A table of fields on top of those of the recipe that it names."""
    rest = {name: value for name, value in given.items() if name != KEY}
    start = given.get(KEY)
    if start is None:
        return rest
    if not isinstance(start, str) or depth >= _DEEPEST:
        raise UsageError(f"{where}: '{KEY}' is the name of a recipe that does not lead back here")
    return _upon(fields(start, depth + 1), rest)


def changed(recipe: Recipe, given: Mapping[str, Any]) -> Recipe:
    """A recipe with other values for some of its fields.

    Raises:
        UsageError: a field or value is unknown.
    """
    return made(_upon(encode(recipe), dict(given)))


def told(given: Mapping[str, Any]) -> tuple[Recipe | None, dict[str, Any]]:
    """The recipe that a table of fields names, with its changes; else changes to any recipe.

    Raises:
        UsageError: a recipe, field or value is unknown.
    """
    if KEY in given:
        return made(given), {}
    changed(Recipe(), given)  # a wrong field is known before anything is done
    return None, dict(given)


def resolve_suite(data: dict[str, Any], where: str) -> None:
    """Put whole tables of fields in the place of the recipes that a suite and its rows name.

    A row's `train` is the name of a recipe, or fields on top of the suite's `train`.

    Args:
        data: a suite file as read, of any form; it is changed.
        where: the file, to name in an error.

    Raises:
        UsageError: a recipe is unknown, or a row has fields on top of nothing.
    """
    if isinstance(data.get("train"), dict):
        data["train"] = resolved(data["train"], f"{where}: train")
    rows = data.get("row")
    for row in rows if isinstance(rows, list) else ():
        if isinstance(row, dict) and isinstance(row.get("train"), (str, dict)):
            row["train"] = _of_row(row["train"], data.get("train"), f"{where}: a row's train")


def _of_row(given: str | dict[str, Any], suites: Any, where: str) -> dict[str, Any]:
    if isinstance(given, str):
        return resolved({KEY: given}, where)
    if KEY in given:
        return resolved(given, where)
    if not isinstance(suites, dict):
        raise UsageError(f"{where} has fields on top of no recipe; add recipe = 'NAME' to them")
    return _upon(dict(suites), given)


def _upon(start: dict[str, Any], rest: dict[str, Any]) -> dict[str, Any]:
    """Fields on top of others; a length in iterations takes the place of one in epochs."""
    if "iterations" in rest and "epochs" not in rest:
        start.pop("epochs", None)
    return start | rest


def _locate(name: str) -> Path:
    path = Path(name)
    if path.suffix == ".toml":
        if path.is_file():
            return path
        raise UsageError(f"recipe '{name}': there is no such file")
    for folder in folders():
        candidate = folder / f"{name}.toml"
        if candidate.is_file():
            return candidate
    raise unknown("recipe", name, names(), "or FIELD=VALUE")
