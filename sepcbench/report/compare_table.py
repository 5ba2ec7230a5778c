"""A comparison of two sets of results as a table, and the limits that a change may not pass."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from sepcbench.errors import UsageError, unknown
from sepcbench.records import Environment
from sepcbench.report.changes import Change
from sepcbench.report.compare import QUANTITIES, RATIOS, TIMES, Compared, Unlike
from sepcbench.report.table import Table

HEADERS = {
    "latency": "latency, times",
    "latency_ratio": "ratio to the first row, times",
    "macs": "MACs, times",
    "params": "params, times",
    "ap": "AP, points more",
    "mask_ap": "mask AP, points more",
    "ar1000": "AR at 1000, points more",
}


@dataclass(frozen=True)
class Limit:
    """A bound such as "latency>1.03": a row is broken that lies beyond it."""

    text: str
    quantity: str
    above: bool
    bound: float


@dataclass(frozen=True)
class Broken:
    """A row beyond a limit.

    `resolved` when its whole interval is, or when it is a count, or when its measure failed.
    """

    limit: str
    row: str
    change: str
    resolved: bool


def read_limit(text: str) -> Limit:
    """Read a limit, QUANTITY>NUMBER or QUANTITY<NUMBER.

    Raises:
        UsageError: it is written otherwise, or there is no such quantity.
    """
    found = re.fullmatch(r"\s*(\w+)\s*([<>])\s*([+-]?\d+(?:\.\d*)?)\s*", text)
    if not found:
        raise UsageError(
            f"--fail-if '{text}' is not QUANTITY>NUMBER or QUANTITY<NUMBER, such as 'latency>1.03'"
        )
    quantity, sign, number = found.groups()
    if quantity not in QUANTITIES:
        raise unknown("quantity of --fail-if", quantity, QUANTITIES)
    return Limit(text.strip(), quantity, sign == ">", float(number))


def broken(compared: Compared, limit: Limit) -> list[Broken]:
    """The rows that are beyond a limit.

    Raises:
        UsageError: no row has the quantity, so that the limit would guard nothing.
    """
    changes = [(row.row, dict(row.changes).get(limit.quantity)) for row in compared.rows]
    changes += [(one.name, dict(one.changes).get(limit.quantity)) for one in compared.timings]
    known = [(row, change) for row, change in changes if change is not None]
    if not known:
        raise UsageError(f"--fail-if '{limit.text}': no row of both sets has this quantity")
    found = []
    for row, change in known:
        if change.failed or _beyond(change.value, limit):
            found.append(
                Broken(limit.text, row, _cell(limit.quantity, change), _sure(change, limit))
            )
    return found


def _beyond(value: float | None, limit: Limit) -> bool:
    if value is None:
        return False
    return value > limit.bound if limit.above else value < limit.bound


def _sure(change: Change, limit: Limit) -> bool:
    """Whether all of the interval is beyond the limit; counts are exact."""
    if change.failed or limit.quantity in ("macs", "params"):
        return True
    nearest = None if change.ci95 is None else change.ci95[0 if limit.above else 1]
    # a difference may have an interval from too few images or rounds
    return _beyond(nearest, limit) and change.enough


def compare_table(
    compared: Compared, differing: Sequence[Unlike], environments: Sequence[str] = ()
) -> Table:
    """The second set against the first, row by row, and the mean over rows."""
    names = [name for name in QUANTITIES if any(name in dict(r.changes) for r in compared.rows)]
    rows = [
        (row.label, *(_cell(name, dict(row.changes).get(name)) for name in names))
        for row in compared.rows
    ]
    if compared.mean:
        means = dict(compared.mean)
        rows.append(("mean over rows", *(_cell(name, means.get(name)) for name in names)))
    return Table(
        f"{compared.second} against {compared.first}",
        ("row", *(HEADERS[name] for name in names)),
        tuple(rows),
        (*_explained(names, compared), *environments, *_flags(differing), *_missing(compared)),
    )


def timing_table(compared: Compared) -> Table | None:
    """Latencies under the further conditions that both sets have; None where there are none."""
    found = compared.timings
    if not found:
        return None
    names = [name for name in TIMES if any(name in dict(one.changes) for one in found)]
    rows = tuple(
        (
            one.label,
            one.engine,
            one.dtype,
            str(one.batch),
            *(_cell(name, dict(one.changes).get(name)) for name in names),
        )
        for one in found
    )
    headers = ("row", "engine", "dtype", "batch", *(HEADERS[name] for name in names))
    failed = [
        f"Failed: {one.name}: {change.failed}"
        for one in found
        for _, change in one.changes
        if change.failed
    ]
    return Table("The same engine, dtype and batch in both", headers, rows, tuple(failed))


def _cell(quantity: str, change: Change | None) -> str:
    if change is None:
        return ""
    if change.value is None:
        return "failed"
    ratio = quantity in RATIOS
    form = "{:.3f}" if ratio else "{:+z.2f}"
    # a ratio of counts that is not 1 must not look like 1
    form = "{:.4f}" if quantity in ("macs", "params") else form
    text = form.format(change.value)
    if change.ci95 is None:
        same = quantity in ("macs", "params") and not change.resolved
        return "=" if same else text
    low, high = (form.format(end) for end in change.ci95)
    return f"{text} [{low}, {high}]{'' if change.resolved else ' ~'}"


def _explained(names: Sequence[str], compared: Compared) -> list[str]:
    lines = [
        "Second over first; [95 % interval], ~ where no change is shown, = where counts agree."
    ]
    if "latency" in names:
        lines.append(
            "Latency intervals are over the rounds of each run; what changed between two runs on "
            "one machine (clocks, temperature, other load) is not in them."
        )
    if "latency_ratio" in names:
        lines.append(
            "Ratio to the first row: how many times slower a row is than its own set's first row, "
            "second over first; of two machines, this is what compares."
        )
    if any(name in names for name in ("ap", "mask_ap", "ar1000")):
        lines.append(
            "Intervals of scores are over the same draws of images for both. Where a row was "
            "trained again, each set has one training of it, and another would have another score."
        )
    if compared.mean:
        lines.append("The mean is geometric for ratios.")
    lines += [
        f"Failed: {row.label}: {change.failed}"
        for row in compared.rows
        for _, change in row.changes
        if change.failed
    ]
    return list(dict.fromkeys(lines))


def _flags(differing: Sequence[Unlike]) -> list[str]:
    """One line per condition, however many rows it differs in."""
    groups: dict[tuple[str, str, str], list[str]] = {}
    for item in differing:
        groups.setdefault((item.what, item.first, item.second), []).append(item.row)
    return [
        f"Unlike: {what} is {second}, not {first}, of {_some(rows)}."
        for (what, first, second), rows in groups.items()
    ]


def _some(rows: list[str]) -> str:
    return f"{len(rows)} rows" if len(rows) > 3 else f"row {', '.join(rows)}"


def _missing(compared: Compared) -> list[str]:
    pairs = (("first", compared.only_first), ("second", compared.only_second))
    return [f"Only in the {which} set: {', '.join(rows)}." for which, rows in pairs if rows]


def environment_changes(first: Environment | None, second: Environment | None) -> list[str]:
    """What differs between the machines: versions, threads, commit, flags."""
    if first is None or second is None:
        return []
    pairs = [
        (name, getattr(first, name), getattr(second, name))
        for name in ("cpu", "gpu", "driver", "threads", "git_commit")
    ]
    for name in ("versions", "flags"):
        before, after = dict(getattr(first, name)), dict(getattr(second, name))
        pairs += [(key, before.get(key), after.get(key)) for key in {**before, **after}]
    changed = [f"{name.replace('_', ' ')} {a} -> {b}" for name, a, b in pairs if a != b]
    return [f"Environment: {'; '.join(changed)}."] if changed else []
