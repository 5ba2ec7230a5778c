"""Errors that a user can act on: one line, and the exit code that goes with it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class SepcbenchError(Exception):
    """A failure with one clear line for the user.

    The line says what is wrong, where, the nearest valid name and what to do next.
    """

    exit_code = 2


class UsageError(SepcbenchError):
    """A name, option, shape or file that the user gave cannot be used."""


class EngineError(UsageError):
    """An engine cannot run here, or cannot run this module."""


class DataError(SepcbenchError):
    """A data set is missing, incomplete or malformed."""


class CheckpointError(SepcbenchError):
    """A checkpoint cannot be read, or is not of this variant."""


class StoreError(SepcbenchError):
    """A record cannot be written or read."""


class TrainingError(SepcbenchError):
    """A training run went wrong: the loss is no longer a number, or its state cannot be kept."""


class Interrupted(SepcbenchError):
    """Ctrl-C, with a line on what was kept."""

    exit_code = 130


class CountError(SepcbenchError):
    """An operation does multiply-adds and no formula for it is known."""


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Find the known name that looks most like `name`, or None."""
    found = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return found[0] if found else None


def require(ok: bool, message: str) -> None:
    """Raise `UsageError` with this message unless `ok`."""
    if not ok:
        raise UsageError(message)


def unknown(kind: str, name: str, known: Iterable[str], hint: str = "") -> UsageError:
    """Build the error for a name that is in no table.

    Args:
        kind: what the name should be, such as "variant".
        name: what was given.
        known: the valid names.
        hint: what to do next, such as "see `sepcbench list variants`".
    """
    names = list(known)
    close = nearest(name, names)
    line = f"unknown {kind} '{name}'"
    if close:
        line += f"; did you mean '{close}'?"
    elif len(names) <= 12:
        line += f"; known: {', '.join(names)}"
    return UsageError(line + (f" ({hint})" if hint else ""))
