"""Results of one suite from several folders, such as those of several machines, joined into one.

Cost and accuracy of different machines go into one table; times do not, so that those of one
machine are taken. Whatever is left out is said.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sepcbench.errors import UsageError
from sepcbench.records import Accuracy, Recall, Results
from sepcbench.results import assemble, keep_suite, kept_suite
from sepcbench.store import Store, Stored, plain_kind, write_json
from sepcbench.suites import RowEntry, Suite, SuiteFile

# What of a suite says what its records are; titles and published values may differ.
_SETTINGS = ("cost", "latency", "shapes", "train", "proposals", "twin")
SEVERAL = "several-machines"
_MARK = "merged.json"  # in a folder that a merge has written, and may write anew


@dataclass(frozen=True)
class _Part:
    """One record and the folder it is from."""

    folder: Path
    stored: Stored

    @property
    def machine(self) -> str:
        return self.stored.environment.machine


class MergedStore(Store):
    """Records of several folders as if they were of one."""

    def __init__(self, folder: Path, records: Sequence[Stored]) -> None:
        """Hold records; `folder` is where `write_all` puts them."""
        super().__init__(folder)
        self._records = tuple(records)

    def records(self) -> Iterator[Stored]:
        """All records, by row and kind."""
        return iter(self._records)

    def write_all(self, suite: Suite) -> None:
        """Write the suite and every record, as a results folder of its own.

        What an earlier merge left there goes.

        Raises:
            UsageError: there are records that no merge has written.
            StoreError: the folder cannot be written.
        """
        folder = self.folder / "records"
        old = {path.name: path for path in folder.glob("*.json")}
        if old and not (self.folder / _MARK).is_file():
            raise UsageError(
                f"'{self.folder}' holds records that were measured, not merged; choose another "
                "--out"
            )
        write_json(self.folder / _MARK, {"rows": sorted({one.row for one in self._records})})
        keep_suite(self, suite)
        for stored in self._records:
            old.pop(f"{stored.row}.{stored.kind}.json", None)
            self.write(stored)
        for path in old.values():
            path.unlink(missing_ok=True)


def merge(suite: Suite | None, folders: Sequence[Path], out: Path) -> tuple[Results, MergedStore]:
    """Join the records of folders of one suite.

    Args:
        suite: as it is now; None for that of the first folder.
        folders: machines' folders, each with a `suite.json`.
        out: where the joined folder would go; it is not written.

    Returns:
        The results, with notes on what was left out, and the records behind them.

    Raises:
        UsageError: the folders are of different suites, or one cannot be read.
    """
    suites = [kept_suite(Store(folder)) for folder in folders]
    for other, folder in zip(suites[1:], folders[1:]):
        _check_same(suites[0].file, other.file, folders[0], folder)
    notes: list[str] = []
    parts = [_Part(folder, one) for folder in folders for one in Store(folder).records()]
    kept = _one_machine_of_times(_newest(parts, notes), notes)
    machines = sorted({part.machine for part in kept})
    notes += _set_notes(kept)
    if len(machines) > 1:
        notes.append(f"Cost and accuracy are of {' and '.join(machines)}, as each row was run.")
    name = machines[0] if len(machines) == 1 else SEVERAL
    chosen = suite or suites[0]
    store = MergedStore(out / chosen.name / name, [part.stored for part in kept])
    found = assemble(chosen, store)
    shown = " and ".join(machines) or found.machine
    return replace(found, machine=shown, notes=(*found.notes, *notes)), store


def _check_same(ours: SuiteFile, theirs: SuiteFile, here: Path, there: Path) -> None:
    """See to it that records of two suite files may stand in one table.

    Raises:
        UsageError: their settings differ, or a row of both is of different variants.
    """
    different = [name for name in _SETTINGS if getattr(ours, name) != getattr(theirs, name)]
    rows = {row.name: _setting(row) for row in ours.row}
    for row in theirs.row:
        if rows.get(row.name, _setting(row)) != _setting(row):
            different.append(f"row '{row.name}'")
    if different:
        raise UsageError(
            f"{here} and {there} are of different suites of one name: {different[0]} differs; "
            "report them apart"
        )


def _setting(row: RowEntry) -> tuple[object, ...]:
    """What of a row says what its records are."""
    return row.variant, row.set, row.train, row.test_time


def _newest(parts: Sequence[_Part], notes: list[str]) -> list[_Part]:
    """Of records of the same row and kind on one machine, or of different ones, the newest."""
    found: dict[tuple[str, ...], _Part] = {}
    for part in parts:
        stored = part.stored
        times = plain_kind(stored.kind) == "latency"  # those of machines are compared as wholes
        place = (stored.row, stored.kind, part.machine if times else "")
        before = found.get(place)
        if before is None:
            found[place] = part
            continue
        newer = part if stored.created >= before.stored.created else before
        older = before if newer is part else part
        found[place] = newer
        if older.stored != newer.stored:
            notes.append(
                f"{stored.row}.{stored.kind} is of {newer.folder} ({newer.stored.created}); that "
                f"of {older.folder} is older ({older.stored.created}) and left out."
            )
    return sorted(found.values(), key=lambda part: (part.stored.row, part.stored.kind))


def _one_machine_of_times(parts: Sequence[_Part], notes: list[str]) -> list[_Part]:
    """Leave out latencies of all machines but the one that timed the most rows."""
    times = [part for part in parts if plain_kind(part.stored.kind) == "latency"]
    rows: dict[str, int] = {}
    for part in times:
        rows[part.machine] = rows.get(part.machine, 0) + (not part.stored.failed)
    if len(rows) < 2:
        return list(parts)
    newest = {part.machine: part.stored.created for part in times}
    best = max(rows, key=lambda machine: (rows[machine], newest[machine]))
    others = ", ".join(f"{machine} ({n} rows)" for machine, n in rows.items() if machine != best)
    notes.append(
        f"Latency is of {best} alone; left out, since times of different machines do not "
        f"compare: {others}."
    )
    return [part for part in parts if part not in times or part.machine == best]


def _set_notes(parts: Sequence[_Part]) -> list[str]:
    """A warning where rows were not scored on the same images."""
    records = [part.stored.record for part in parts]
    scored = [record for record in records if isinstance(record, (Accuracy, Recall))]
    sets = sorted({f"{record.dataset} ({record.images} images)" for record in scored})
    if len(sets) < 2:
        return []
    return [f"AP is of different sets and does not compare: {', '.join(sets)}."]
