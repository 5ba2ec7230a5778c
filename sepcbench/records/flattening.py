"""Records for tools that take flat dicts."""

from __future__ import annotations

from typing import Any

from sepcbench.codec import encode

_FEW = 4  # numbers of a list that still get a key each, such as the ends of an interval


def flat(record: Any, *, numbers: bool = False) -> dict[str, str | int | float | bool]:
    """A record as one flat dict with dotted keys, for pandas, MLflow, W&B or TensorBoard.

    Ends of an interval and the height and width of a shape get a key each ("ci95_s.0"), names
    are joined by ", ". What does not exist is left out, and so are long lists, such as the raw
    samples of a latency, and lists of lists: those stay in the record.

    Args:
        record: any dataclass of this module.
        numbers: only numbers, as loggers of metrics want it.
    """
    found: dict[str, str | int | float | bool] = {}
    _flatten(encode(record), "", found)
    if numbers:
        return {k: v for k, v in found.items() if not isinstance(v, (str, bool))}
    return found


def _flatten(value: Any, key: str, found: dict[str, str | int | float | bool]) -> None:
    if isinstance(value, dict):
        for name, item in value.items():
            _flatten(item, f"{key}.{name}" if key else str(name), found)
    elif isinstance(value, list):
        if value and all(isinstance(item, str) for item in value):
            found[key] = ", ".join(value)
        elif len(value) <= _FEW and not any(isinstance(item, (list, dict)) for item in value):
            for i, item in enumerate(value):
                _flatten(item, f"{key}.{i}", found)
    elif value is not None:
        found[key] = value
