"""The table of `sepcbench latency`: a row per case, and what is to be doubted below it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from sepcbench.records import Failure, Latency, Ratio
from sepcbench.report.table import Table
from sepcbench.report.timing_tables import memory_notes, part_names, parts_notes
from sepcbench.specs import PROTOCOLS
from sepcbench.units import format_shape, milliseconds

# Below this share of the time the GPU waits for launches from the host.
BUSY = 0.8
# Rounds that ratios of a GPU are to come from.
THOROUGH = PROTOCOLS["thorough"].min_rounds

# Header to cell, of conditions that differ from case to case; the same ones are in the title.
CONDITIONS: dict[str, Callable[[Latency], str]] = {
    "engine": lambda record: record.engine,
    "dtype": lambda record: record.dtype,
    "batch": lambda record: str(record.batch),
    "shape": lambda record: format_shape(record.shape),
}


def interval(low: float, high: float) -> str:
    """Two times in milliseconds."""
    return f"{milliseconds(low)}-{milliseconds(high)}"


def ratio_cell(found: Ratio | None) -> str:
    """A ratio with its 95 % interval; "~" where that includes 1."""
    if found is None:
        return ""
    low, high = found.ci95
    return f"{found.median:.3f} [{low:.3f}, {high:.3f}]{'' if found.resolved else ' ~'}"


def _shown(value: float | None, digits: int, scale: float = 1.0) -> str:
    return "" if value is None else f"{value * scale:,.{digits}f}"


# Header to cell; a column of `OPTIONAL` is left out where it is empty in all rows.
COLUMNS: dict[str, Callable[[Latency], str]] = {
    "median, ms (lower is better)": lambda r: milliseconds(r.median_s),
    "mean, ms": lambda r: milliseconds(r.mean_s) if r.protocol == "paper" and r.mean_s else "",
    "p10-p90, ms": lambda r: interval(r.p10_s, r.p90_s),
    "95 % interval, ms": lambda r: interval(*r.ci95_s),
    "times the first (lower is better)": lambda r: ratio_cell(r.ratio),
    "times eager": lambda r: ratio_cell(r.eager_ratio),
    "times its roofline": lambda r: f"{r.median_s / r.floor.seconds:.2f}" if r.floor else "",
    "error to eager": lambda r: "" if r.engine_error is None else f"{r.engine_error:.1e}",
    "launches": lambda r: _shown(r.launches, 0),
    "GPU busy, %": lambda r: _shown(r.busy_share, 0, 100),
    "peak, MiB": lambda r: _shown(r.peak_bytes, 0, 2**-20),
    "mJ per image": lambda r: _shown(r.energy_j, 1, 1e3),
    "rounds": lambda r: str(r.rounds),
}
ALWAYS = (
    "median, ms (lower is better)",
    "p10-p90, ms",
    "95 % interval, ms",
    "times the first (lower is better)",
    "rounds",
)


def latency_table(records: dict[str, Latency | Failure], further: Sequence[str] = ()) -> Table:
    """One row per record, failures with their reason in the notes, and `further` notes."""
    timed = [record for record in records.values() if isinstance(record, Latency)]
    notes = [
        f"{_worded(name)} failed: {record.reason}"
        for name, record in records.items()
        if isinstance(record, Failure)
    ]
    known = {name: _conditions(name, record) for name, record in records.items()}
    seen = {key: {words[key] for words in known.values() if key in words} for key in CONDITIONS}
    varying = [key for key, values in seen.items() if len(values) > 1]
    columns = {
        key: cell
        for key, cell in COLUMNS.items()
        if key in ALWAYS or any(cell(record) for record in timed)
    }
    rows = []
    for name, record in records.items():
        cells = [cell(record) if isinstance(record, Latency) else "" for cell in columns.values()]
        cells[0] = cells[0] or "failed"
        row = (name.rpartition("@")[0] or name) if varying else name
        rows.append((row, *(known[name].get(key, "") for key in varying), *cells))
    if timed:
        notes = [*latency_notes(timed), *further, *notes]
    headers = ("variant", *varying, *columns)
    return Table(
        _title(timed, varying), headers, tuple(rows), tuple(notes), keys=1 + len(varying)
    )  # fmt: skip


def _conditions(name: str, record: Latency | Failure) -> dict[str, str]:
    """Engine, dtype, batch and shape; of a failure those that its name has."""
    if isinstance(record, Latency):
        return {key: cell(record) for key, cell in CONDITIONS.items()}
    return dict(zip(CONDITIONS, name.rpartition("@")[2].split("-", 3))) if "@" in name else {}


def _worded(name: str) -> str:
    """The name of a case in words: "row (engine, dtype, batch 1)"."""
    row, _, conditions = name.rpartition("@")
    words = conditions.split("-", 3)
    if not row or len(words) < 3:
        return name
    words[2] = f"batch {words[2]}"
    return f"{row} ({', '.join(words)})"


def _title(timed: list[Latency], varying: Iterable[str]) -> str:
    title = "Latency per call"
    if not timed:
        return title
    first = timed[0]
    title += f" of {first.scope}" + (", L2 cache emptied" if first.flushed_l2 else "")
    size = [CONDITIONS[key](first) for key in ("batch", "shape") if key not in varying]
    if "shape" in varying and size:
        size = [f"batch {first.batch}"]
    words = [" x ".join(size), *([] if "dtype" in varying else [first.dtype])]
    return ", ".join([title, *(word for word in words if word)])


def latency_notes(timed: list[Latency]) -> list[str]:
    """What the times hold for, and what is to be doubted."""
    from sepcbench.stats import MIN_ROUNDS

    first = timed[0]
    engines = ", ".join(dict.fromkeys(record.engine for record in timed))
    notes = [
        f"Device: {first.device_name}; engine {engines}; {first.samples_per_round} samples "
        f"of each variant per round, in random order; stopped by: {first.stopped}.",
        "times the first: median of the ratios per round, with its 95 % interval; ~: that includes "
        f"1, or comes from fewer than {MIN_ROUNDS} rounds.",
    ]
    if len({(record.batch, record.shape) for record in timed}) > 1:
        notes.append("The first is that of the same batch and shape.")
    if first.device == "cpu":
        notes.append("Absolute times are of this machine only; compare the ratios.")
    notes += _rooflines(timed)
    return [*notes, *_boxes(timed), *memory_notes(timed), *_doubts(timed), *_told(timed)]


def _rooflines(timed: list[Latency]) -> list[str]:
    """What the floors come from: the rates of each dtype, and every floor."""
    found = [(record.dtype, record.floor) for record in timed if record.floor]
    if not found:
        return []
    rates = {(dtype, floor.macs_per_s, floor.bytes_per_s) for dtype, floor in found}
    used = ", ".join(f"{dtype} {m:.3g} MAC/s and {b:.3g} bytes/s" for dtype, m, b in sorted(rates))
    floors = ", ".join(milliseconds(floor.seconds) for _, floor in found)
    return [
        f"Roofline: multiply-adds or bytes over the rates measured here, whichever takes longer: "
        f"{used}; floor, row by row, ms: {floors}."
    ]


def _named(records: Iterable[Latency]) -> str:
    return ", ".join(f"{record.variant} ({_condition(record)})" for record in records)


def _condition(record: Latency) -> str:
    return f"{record.engine}, {record.dtype}, batch {record.batch}"


def _boxes(timed: list[Latency]) -> list[str]:
    """How many boxes went in and came out, where they are decoded."""
    notes = []
    found = [f"{row.detections}" for row in timed if row.detections is not None]
    if found:
        notes.append(f"Detections per call, row by row: {', '.join(found)} (random weights).")
    given = [f"{row.candidates}" for row in timed if row.candidates is not None]
    if given:
        notes.append(f"Candidates per image before NMS, row by row: {', '.join(given)}.")
    if "0" in found:
        notes.append("Without detections decoding and NMS cost next to nothing: not a full price.")
    return notes


def _doubts(timed: list[Latency]) -> list[str]:
    found = {
        "Warm-up did not settle": [row for row in timed if not row.warmup_settled],
        f"Limited by launches (GPU busy less than {BUSY:.0%} of the time)": [
            row for row in timed if row.busy_share is not None and row.busy_share < BUSY
        ],
        f"Fewer than {THOROUGH} rounds": [
            row for row in timed if row.device.startswith("cuda") and row.rounds < THOROUGH
        ],
        "Low clocks in some rounds": [row for row in timed if row.flagged_rounds],
        "Other processes on the card": [
            row for row in timed if any(state.other_processes for state in row.states)
        ],
    }
    return [f"{what}: {_named(rows)}." for what, rows in found.items() if rows]


def _told(timed: list[Latency]) -> list[str]:
    """What each record says of itself, once for all cases of the same words."""
    words = dict.fromkeys(note for record in timed for note in record.notes)
    found = {note: [record for record in timed if note in record.notes] for note in words}
    return [f"{note[0].upper()}{note[1:]}: {_named(rows)}." for note, rows in found.items()]


def parts_tables(records: dict[str, Latency | Failure]) -> list[Table]:
    """What the parts of each call take, and their sum over the whole; none if not timed."""
    timed = [one for one in records.values() if isinstance(one, Latency)]
    split = [(one, one.split) for one in timed if one.split is not None]
    if not split:
        return []
    names = part_names([parts for _, parts in split])
    varying = [key for key, cell in CONDITIONS.items() if len({cell(one) for one, _ in split}) > 1]
    rows = []
    for record, parts in split:
        times = {part.name: milliseconds(part.median_s) for part in parts.parts}
        words = [CONDITIONS[key](record) for key in varying]
        cells = [times.get(name, "") for name in names]
        rows.append((record.variant, *words, *cells, f"{parts.sum_s / parts.whole_s:.2f}"))
    headers = ("variant", *varying, *(f"{name}, ms" for name in names), "sum over the whole")
    notes = [
        "Parts one by one on inputs computed before, in turns with the whole, in another pass."
    ]
    notes += parts_notes((_named([one]) if varying else one.variant, parts) for one, parts in split)
    return [
        Table("Latency of the parts", headers, tuple(rows), tuple(notes), keys=1 + len(varying))
    ]
