"""Frozen dataclasses to JSON and back, strictly: every key and every type is checked.

A field typed `tuple[tuple[str, X], ...]` is written as a JSON object (a frozen mapping keeps
the dataclass hashable). A field typed as a union of dataclasses is written with a `type` key
naming the class, by the class's own `TYPE` name.
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from sepcbench.errors import UsageError, unknown

T = TypeVar("T")


def fields_of(cls: type) -> dict[str, Any]:
    """Map the field names of a dataclass to their resolved types."""
    hints = get_type_hints(cls)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls)}


def encode(value: Any, *, sparse: bool = False) -> Any:
    """Turn a dataclass (or a value inside one) into JSON types. NaN and infinity become None.

    Args:
        value: what to encode.
        sparse: leave out fields that have their default.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        hints = fields_of(type(value))
        plain = _defaults(type(value)) if sparse else {}
        body = {
            name: _encode_field(getattr(value, name), hint, sparse)
            for name, hint in hints.items()
            if name not in plain or plain[name] != getattr(value, name)
        }
        tag = getattr(type(value), "TYPE", None)
        return {"type": tag, **body} if tag else body
    if isinstance(value, (tuple, list)):
        return [encode(item, sparse=sparse) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _encode_field(value: Any, hint: Any, sparse: bool) -> Any:
    if is_mapping(hint):
        return {key: encode(item, sparse=sparse) for key, item in value}
    return encode(value, sparse=sparse)


def _defaults(cls: type) -> dict[str, Any]:
    fields = dataclasses.fields(cls)
    made = {f.name: f.default_factory() for f in fields if callable(f.default_factory)}
    return made | {f.name: f.default for f in fields if f.default is not dataclasses.MISSING}


def is_mapping(hint: Any) -> bool:
    """Whether a type is the frozen form of a mapping, `tuple[tuple[str, X], ...]`."""
    if get_origin(hint) is not tuple:
        return False
    args = get_args(hint)
    if len(args) != 2 or args[1] is not Ellipsis or get_origin(args[0]) is not tuple:
        return False
    inner = get_args(args[0])
    return len(inner) == 2 and inner[0] is str and inner[1] is not Ellipsis


def decode(cls: type[T], data: Any, where: str = "") -> T:
    """Build a dataclass from JSON types.

    Args:
        cls: the dataclass.
        data: what `encode` wrote, or the same written by hand.
        where: the place to name in an error, such as "suites/quick.toml: row 'fpn'".

    Raises:
        UsageError: an unknown or missing key, a value of another type, or another class's `type`.
    """
    place = where or cls.__name__
    if not isinstance(data, dict):
        raise UsageError(f"{place}: expected a table of fields, found {shown(data)}")
    hints = fields_of(cls)
    given = dict(data)
    tag = getattr(cls, "TYPE", None)
    if tag is not None and (told := given.pop("type", tag)) != tag:
        raise _located(place, unknown("type", str(told), [tag]))
    for key in given:
        if key not in hints:
            raise _located(place, unknown("key", key, hints))
    required = [
        field.name
        for field in dataclasses.fields(cls)  # type: ignore[arg-type]
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    ]
    missing = [name for name in required if name not in given]
    if missing:
        raise UsageError(f"{place}: missing key '{missing[0]}'")
    values = {k: coerce(v, hints[k], f"{place}.{k}") for k, v in given.items()}
    try:
        return cls(**values)
    except UsageError as error:
        raise _located(place, error) from None


def shown(value: Any) -> str:
    """A value for an error line, cut where it is long."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # a number of thousands of digits
        return f"a {type(value).__name__} without end"
    return text if len(text) <= 80 else f"{text[:77]}..."


def _located(place: str, error: UsageError) -> UsageError:
    return UsageError(f"{place}: {error}")


def coerce(value: Any, hint: Any, where: str) -> Any:
    """Check `value` against a type, reading strings (from the command line) as that type.

    Raises:
        UsageError: the value does not fit.
    """
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return _coerce_union(value, args, where)
    if origin is Literal:
        return _coerce_literal(value, args, where)
    if is_mapping(hint):
        return _coerce_mapping(value, args, where)
    if origin is tuple:
        return _coerce_tuple(value, args, where)
    if dataclasses.is_dataclass(hint):
        if dataclasses.is_dataclass(value):
            return value
        return decode(typing.cast(type, hint), value, where)
    return _coerce_scalar(value, hint, where)


def _coerce_union(value: Any, args: tuple[Any, ...], where: str) -> Any:
    if value is None or (value == "none" and type(None) in args):
        if type(None) in args:
            return None
        raise UsageError(f"{where}: a value is needed")
    classes = [arg for arg in args if dataclasses.is_dataclass(arg)]
    if isinstance(value, tuple(typing.cast(list[type], classes))):
        return value
    if len(classes) > 1:
        if not isinstance(value, dict) or "type" not in value:
            raise UsageError(f"{where}: expected a table with a 'type', found {shown(value)}")
        by_name = {getattr(cls, "TYPE"): cls for cls in classes}  # noqa: B009
        tag = str(value["type"])
        if tag not in by_name:
            raise _located(where, unknown("type", tag, by_name))
        return decode(typing.cast(type, by_name[tag]), value, where)
    rest = [arg for arg in args if arg is not type(None)]
    return coerce(value, rest[0], where)


def _coerce_literal(value: Any, args: tuple[Any, ...], where: str) -> Any:
    for arg in args:
        same = value == arg and type(value) is type(arg)
        if same or (isinstance(value, str) and value == str(arg)):
            return arg
    raise _located(where, unknown("value", str(value), [str(arg) for arg in args]))


def _coerce_mapping(value: Any, args: tuple[Any, ...], where: str) -> Any:
    item = get_args(args[0])[1]
    if isinstance(value, tuple) and all(isinstance(pair, tuple) for pair in value):
        value = dict(value)  # the frozen form
    if not isinstance(value, dict):
        raise UsageError(f"{where}: expected a table, found {shown(value)}")
    return tuple((str(key), coerce(val, item, f"{where}.{key}")) for key, val in value.items())


def _coerce_tuple(value: Any, args: tuple[Any, ...], where: str) -> Any:
    if isinstance(value, str):
        value = [part.strip() for part in value.strip("()[]").split(",") if part.strip()]
    if not isinstance(value, (list, tuple)):
        raise UsageError(f"{where}: expected a list, found {shown(value)}")
    if len(args) == 2 and args[1] is Ellipsis:
        return tuple(coerce(item, args[0], f"{where}.{i}") for i, item in enumerate(value))
    if len(value) != len(args):
        raise UsageError(f"{where}: expected {len(args)} values, found {len(value)}")
    return tuple(coerce(v, a, f"{where}.{i}") for i, (v, a) in enumerate(zip(value, args)))


_TRUE, _FALSE = ("true", "yes", "1", "on"), ("false", "no", "0", "off")


def _coerce_scalar(value: Any, hint: Any, where: str) -> Any:
    if hint is Any:
        return value
    if hint is bool:
        if isinstance(value, bool):
            return value
        if isinstance(value, str) and value.lower() in _TRUE + _FALSE:
            return value.lower() in _TRUE
    elif hint is str:
        if isinstance(value, str):
            return value
    elif hint in (int, float) and not isinstance(value, bool):
        try:
            number = hint(value) if isinstance(value, (str, int, hint)) else None
        except (ValueError, OverflowError):
            number = None
        # whole numbers of up to 64 bits, as everything that reads JSON can hold them
        fits = abs(number) < 2**63 if isinstance(number, int) else math.isfinite(number or 0.0)
        if number is not None and fits:
            return number
    raise UsageError(f"{where}: expected {getattr(hint, '__name__', hint)}, found {shown(value)}")
