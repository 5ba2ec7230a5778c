"""The format of `sepcbench train`: the variant, its conventions and its classes are inside."""

from __future__ import annotations

import json
from typing import Any

from sepcbench import codec
from sepcbench.checkpoints import native
from sepcbench.checkpoints.contents import Contents
from sepcbench.checkpoints.format import Format, Reason, Renamed
from sepcbench.errors import CheckpointError, UsageError
from sepcbench.specs import VariantSpec


def _recognise(contents: Contents) -> tuple[Reason, ...]:
    if native.KEY not in contents.about:
        return ()
    return (Reason("format native", f"'{native.KEY}' in the file's metadata describes it"),)


def _description(contents: Contents) -> dict[str, Any]:
    try:
        return dict(json.loads(contents.about[native.KEY]))
    except (ValueError, TypeError, RecursionError) as error:
        raise _damaged(contents, error) from None


def _inside(contents: Contents) -> VariantSpec:
    description = _description(contents)
    native.check_schema(contents.path, description.get("schema"))
    try:
        return codec.decode(VariantSpec, description["spec"], "spec")
    except (UsageError, KeyError) as error:
        raise _damaged(contents, error) from None


def _damaged(contents: Contents, error: Exception) -> CheckpointError:
    return native.unreadable(contents.path, error)


def _classes(contents: Contents, count: int) -> tuple[str, ...]:
    names = _description(contents).get("classes", [])
    if not isinstance(names, list):
        raise _damaged(contents, ValueError("'classes' is no list"))
    return tuple(str(name) for name in names)


FORMAT = Format(
    name="native",
    producer="sepcbench",
    conventions="",
    recognise=_recognise,
    rename=lambda state: Renamed(dict(state), {key: key for key in state}, ()),
    suits=lambda spec: True,
    classes=_classes,
    inside=_inside,
)
