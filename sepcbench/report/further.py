"""Records of a row beyond its first: latencies under further conditions, scores of further seeds.

Their kind is written as in the names of their files: "latency@folded-fp32-1", "accuracy@2".
"""

from __future__ import annotations

from dataclasses import replace

from sepcbench.errors import UsageError, nearest
from sepcbench.records import Failure, Latency, Record, Row

MORE = "@"  # as `store.MORE`
Conditions = tuple[str, str, int]


def conditions(record: Latency) -> Conditions:
    """What tells the latencies of a row apart: engine, dtype and batch."""
    return record.engine, record.dtype, record.batch


def written(found: Conditions) -> str:
    """Conditions as in a file's name: "folded-fp32-1"."""
    return "-".join(map(str, found))


def split_kind(kind: str) -> tuple[str, str]:
    """The plain kind and what is after the sign, "" where there is nothing."""
    plain, _, more = kind.partition(MORE)
    return plain, more


def further(row: Row, kind: str) -> dict[str, Record]:
    """What a row has of a kind beyond the first, by what is after the sign, failures too.

    Args:
        row: of results.
        kind: "latency", or of a score or training.
    """
    found: dict[str, Record] = {str(one.seed): one.record for one in row.seeds if one.kind == kind}
    if kind == "latency":
        found |= {written(conditions(record)): record for record in row.timings}
    failed = [(split_kind(failure.measure), failure) for failure in row.failures]
    return found | {more: failure for (plain, more), failure in failed if more and plain == kind}


def first(row: Row, kind: str) -> str:
    """What would be after the sign for the first record of a kind; "" where there is none."""
    record = getattr(row, kind, None)
    if isinstance(record, Latency):
        return written(conditions(record))
    seeded = record is not None and kind != "cost"
    return str(row.training.seed if row.training else 0) if seeded else ""


def under(row: Row, kind: str, more: str) -> Row:
    """The row as if a further record were its first, with what belongs to it.

    Raises:
        UsageError: there is no such record; the line says what there is.
    """
    there = further(row, kind)
    if more not in there:
        raise UsageError(_nothing(row, kind, more, list(there)))
    record = there[more]
    failed = isinstance(record, Failure)
    changes: dict[str, object] = {kind: None if failed else record}
    if kind != "latency":
        changes["training"] = further(row, "training").get(more)
    failures = (replace(record, measure=kind),) if isinstance(record, Failure) else ()
    return replace(row, failures=failures, differences=(), **changes)  # type: ignore[arg-type]


def completed(row: Row, kind: str, more: str) -> str:
    """What is after the sign in full where its beginning tells: "fused" for "fused-fp32-1"."""
    there = list(dict.fromkeys([first(row, kind), *further(row, kind)]))
    if more in there:
        return more
    found = [one for one in there if one.startswith(f"{more}-")]
    return found[0] if len(found) == 1 else more


def _nothing(row: Row, kind: str, more: str, there: list[str]) -> str:
    own = first(row, kind)
    if not there:
        itself = f"only {kind} itself" + (f" ({own})" if own else "")
        what = itself if getattr(row, kind) else "none"
        return f"row '{row.name}' has no {kind}{MORE}{more}: there is {what}"
    known = ([f"{kind} ({own})"] if own else []) + [f"{kind}{MORE}{one}" for one in there]
    close = nearest(more, [own, *there])
    meant = f"did you mean '{kind}{MORE}{close}'? " if close else ""
    return f"row '{row.name}' has no {kind}{MORE}{more}; {meant}there is {', '.join(known)}"
