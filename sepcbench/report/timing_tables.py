"""Latency under every engine, dtype and batch that was timed, and what each part takes of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import get_args

from sepcbench.records import Failure, Latency, Ratio, Results, Row, Split
from sepcbench.report.columns import BLANK, FAILED
from sepcbench.report.table import Table
from sepcbench.specs import PROTOCOLS, Dtype, EngineName
from sepcbench.units import milliseconds

_ROUNDS = PROTOCOLS["thorough"].min_rounds  # that ratios of a GPU are to come from


@dataclass(frozen=True)
class Timing:
    """One latency of a row, and whether its absolute time says something to others."""

    row: Row
    record: Latency

    @property
    def on_gpu(self) -> bool:
        """A CPU's absolute times are of one machine and one moment."""
        return self.record.device.startswith("cuda")


def timings(results: Results) -> list[Timing]:
    """All latencies, batch by batch, row by row, those of the suite's own conditions first.

    The others stand by dtype and engine in the order in which `specs` names them.
    """
    found = [
        Timing(row, record)
        for row in results.rows
        for record in ([row.latency] if row.latency else []) + list(row.timings)
    ]
    order = {row.name: i for i, row in enumerate(results.rows)}
    return sorted(
        found,
        key=lambda one: (
            one.record.batch,
            order[one.row.name],
            one.record is not one.row.latency,
            place(one.record),
        ),
    )


def place(record: Latency) -> tuple[int, int]:
    """Where conditions stand among others of their batch, by dtype and engine."""
    return _place(record.dtype, get_args(Dtype)), _place(record.engine, get_args(EngineName))


def _place(name: str, names: tuple[str, ...]) -> int:
    """Where a name stands among others; an unknown one is last."""
    return names.index(name) if name in names else len(names)


def _to_first(one: Timing) -> str:
    first = one.record.ratio is None and one.record.reference == one.row.name
    return "1.000" if first else _ratio(one.record.ratio)


def _ratio(found: Ratio | None) -> str:
    if found is None:
        return BLANK
    low, high = found.ci95
    return f"{found.median:.3f} [{low:.3f}, {high:.3f}]{'' if found.resolved else ' ~'}"


def _ms(one: Timing) -> str:
    return milliseconds(one.record.median_s) if one.on_gpu else BLANK


def _per_image(one: Timing) -> str:
    return milliseconds(one.record.median_s / one.record.batch) if one.on_gpu else BLANK


def _floor(one: Timing) -> str:
    floor = one.record.floor
    return f"{one.record.median_s / floor.seconds:.2f}" if floor and floor.seconds else BLANK


def _number(value: float | None, digits: int, scale: float = 1.0) -> str:
    return BLANK if value is None else f"{value * scale:,.{digits}f}"


def _clock(one: Timing) -> str:
    clocks = [state.sm_mhz for state in one.record.states if state.sm_mhz is not None]
    return f"{min(clocks):.0f}-{max(clocks):.0f}" if clocks else BLANK


def _error(one: Timing) -> str:
    error = one.record.engine_error
    return BLANK if error is None or one.record.engine == "eager" else f"{error:.1e}"


# Header to how a cell is written; a column that is empty in all rows is left out.
TIMING_COLUMNS: dict[str, Callable[[Timing], str]] = {
    "latency, ms (lower is better)": _ms,
    "per image, ms": _per_image,
    "times the first row": _to_first,
    "times eager (lower is better)": lambda one: _ratio(one.record.eager_ratio),
    "times its roofline": _floor,
    "launches": lambda one: _number(one.record.launches, 0),
    "GPU busy, %": lambda one: _number(one.record.busy_share, 0, 100),
    "peak memory, MiB": lambda one: _number(one.record.peak_bytes, 0, 2**-20),
    "energy per image, mJ": lambda one: _number(one.record.energy_j, 1, 1e3),
    "SM clock, MHz": _clock,
    "engine's error": _error,
}


def timing_table(results: Results) -> Table | None:
    """One line per row and conditions; None where nothing but the suite's own were timed."""
    found = timings(results)
    failed = list(_failed(results))
    if not any(row.timings for row in results.rows) and not failed:
        return None
    used = {
        header: write
        for header, write in TIMING_COLUMNS.items()
        if any(write(one) for one in found)
    }
    headers = ("row", "engine", "dtype", "batch", *used)
    rows = [
        (one.row.label, *_conditions(one.record), *(write(one) for write in used.values()))
        for one in found
    ]
    rows += [
        (row.label, *condition, FAILED, *[BLANK] * (len(used) - 1)) for row, condition in failed
    ]
    return Table(f"Latency by engine, dtype and batch ({results.machine})", headers, tuple(rows),
                 tuple(_notes(found)))  # fmt: skip


def _conditions(record: Latency) -> tuple[str, str, str]:
    return record.engine, record.dtype, str(record.batch)


def _failed(results: Results) -> Iterator[tuple[Row, tuple[str, str, str]]]:
    """Rows with conditions that did not work; the reason is under the first table."""
    for row in results.rows:
        for failure in row.failures:
            condition = _more(failure)
            if condition:
                yield row, condition


def _more(failure: Failure) -> tuple[str, str, str] | None:
    """Engine, dtype and batch of "latency@graphed-fp16-8"; None for other measures."""
    kind, _, more = failure.measure.partition("@")
    parts = more.split("-")
    return (parts[0], parts[1], parts[2]) if kind == "latency" and len(parts) == 3 else None


def _notes(found: list[Timing]) -> list[str]:
    notes = [
        "times the first row: under the first conditions of the same batch, round by round; times "
        "eager: the same row, dtype and batch run eagerly; [95 % interval], ~ where it includes 1."
    ]
    if not all(one.on_gpu for one in found):
        notes.append("Timed on a CPU: ratios only.")
    if any(one.record.floor for one in found):
        notes.append(
            "roofline: multiply-adds over the measured matmul rate or bytes over the measured copy "
            "rate of the same device and dtype, whichever takes longer."
        )
    notes += memory_notes([one.record for one in found])
    few = [one.row.label for one in found if one.on_gpu and one.record.rounds < _ROUNDS]
    if few:
        notes.append(f"Fewer than {_ROUNDS} rounds: {', '.join(dict.fromkeys(few))}.")
    if any(one.record.tf32 is not None and one.record.dtype == "tf32" for one in found):
        notes.append("tf32: float32 with TF32 for convs and matmuls; fp32: without for both.")
    for one in found:
        words = ", ".join(_conditions(one.record))
        notes += [f"{one.row.label} ({words}): {note}." for note in one.record.notes]
    flagged = sorted({one.row.label for one in found if one.record.flagged_rounds})
    if flagged:
        notes.append(f"Low clocks in some rounds, kept and flagged: {', '.join(flagged)}.")
    return notes


def memory_notes(records: Iterable[Latency]) -> list[str]:
    """Of which engines there is no peak, where others have one."""
    records = list(records)
    told = {one.engine for one in records if one.peak_bytes is not None}
    without = dict.fromkeys(one.engine for one in records if one.engine not in told)
    if not told or not without:
        return []
    engines = ", ".join(without)
    return [f"Peak memory is not told of {engines}: it is in a graph's pool, or not torch's own."]


# --- parts ------------------------------------------------------------------------------------


def split_rows(results: Results) -> list[tuple[Row, Latency]]:
    """Rows whose parts were timed, with the record that has them."""
    found = []
    for row in results.rows:
        records = [row.latency, *row.timings] if row.latency else list(row.timings)
        record = next((one for one in records if one and one.split), None)
        if record is not None:
            found.append((row, record))
    return found


def part_names(splits: Iterable[Split]) -> list[str]:
    """The names of all parts: in the order they run, and those of later rows after earlier ones."""
    chains = [[part.name for part in split.parts] for split in splits]
    left = list(dict.fromkeys(name for chain in chains for name in chain))
    names: list[str] = []
    while left:
        free = (n for n in left if not any(_waits(n, chain, names) for chain in chains))
        names.append(next(free, left[0]))  # rows that disagree: as they come
        left.remove(names[-1])
    return names


def _waits(name: str, chain: list[str], done: list[str]) -> bool:
    """Whether something runs before a part that has no place yet."""
    return name in chain and any(one not in done for one in chain[: chain.index(name)])


def parts_table(results: Results) -> Table | None:
    """What each part takes of the whole call; None where no parts were timed."""
    rows = split_rows(results)
    if not rows:
        return None
    names = part_names(record.split for _, record in rows if record.split)
    headers = ("row", *(f"{name}, % of the whole" for name in names), "sum, % of the whole")
    cells = []
    for row, record in rows:
        split = record.split
        if split is None:
            continue
        times = {part.name: part.median_s for part in split.parts}
        shares = [
            f"{100 * times[name] / split.whole_s:.1f}" if name in times else BLANK for name in names
        ]
        cells.append((row.label, *shares, f"{100 * split.sum_s / split.whole_s:.1f}"))
    first = rows[0][1]
    notes = [
        f"Parts one by one on inputs computed beforehand, in turns with the whole; engine "
        f"{first.engine}, {first.dtype}, batch {first.batch}."
    ]
    notes += parts_notes((row.label, record.split) for row, record in rows if record.split)
    return Table(f"Latency by part ({results.machine})", headers, tuple(cells), tuple(notes))


# Parts miss what overlaps and what is between them; further off than this something else ran.
SUM_TOLERANCE = 0.15


def parts_notes(splits: Iterable[tuple[str, Split]]) -> list[str]:
    """Which rows, by name, have parts that do not add up to the whole."""
    odd = [name for name, split in splits if not adds_up(split)]
    if not odd:
        return []
    return [
        f"More than {100 * SUM_TOLERANCE:.0f} % off the whole, so not to be trusted: "
        f"{', '.join(odd)}; time them again on a quiet machine."
    ]


def adds_up(split: Split) -> bool:
    """Whether the parts take about as long as the whole."""
    return abs(split.sum_s / split.whole_s - 1) <= SUM_TOLERANCE
