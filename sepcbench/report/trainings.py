"""Whether the scored networks were trained alike: else their scores do not compare."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from sepcbench.records import Row, Training

# What makes trainings unlike; the seed, the processes and the speed do not.
FIELDS = ("iterations", "batch", "optimizer", "learning_rate", "amp", "pretrained", "images")
_NAMED = 3  # rows that are named per value


def trainings(row: Row) -> Iterator[Training]:
    """The trainings of a row, of every seed."""
    if row.training is not None:
        yield row.training
    for one in row.seeds:
        if one.kind == "training" and isinstance(one.record, Training):
            yield one.record


def trained_unlike(rows: Iterable[Row]) -> list[str]:
    """One line that names the fields in which trainings differ, and which rows have which value.

    Args:
        rows: of results, or those that are averaged over seeds.

    Returns:
        That line, or nothing where all trainings are alike.
    """
    found = [(row.label, one) for row in rows for one in trainings(row)]
    parts = []
    for name in FIELDS:
        labels: dict[object, list[str]] = {}
        for label, one in found:
            labels.setdefault(getattr(one, name), []).append(label)
        if len(labels) > 1:
            values = "; ".join(f"{value_text(v)} of {_listed(of)}" for v, of in labels.items())
            parts.append(f"{name.replace('_', ' ')} ({values})")
    if not parts:
        return []
    return [f"Rows were trained differently, their scores do not compare: {', '.join(parts)}."]


def value_text(value: object) -> str:
    """A field of a training as text, "none" where it is empty."""
    if value == "":
        return "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _listed(labels: list[str]) -> str:
    names = list(dict.fromkeys(labels))
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")
