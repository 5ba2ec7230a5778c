"""Who may write where: one process per row, and one at a time for what rows share.

Rows of a suite may run at once, in several processes and on several machines with a common disk,
and so may the seeds of a row: each has a lock of its own, held while it runs. `suite.json` and the
report, which all of them write, have one that is held for a moment.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from sepcbench.locks import locked
from sepcbench.results import keep_suite
from sepcbench.store import MORE, Store, seed_of
from sepcbench.suites import Suite
from sepcbench.whole_files import sweep

OTHER_RESULTS = "choose another --results folder"
# Drawing a report takes seconds, and as many processes may wait for it as a suite has rows.
WAIT_S = 900.0


@contextmanager
def rows_locked(
    store: Store, rows: Iterable[str], wait_s: float = 0.0, seeds: Iterable[int] = (0,)
) -> Iterator[None]:
    """Keep other processes away from rows, and clear what killed ones left of them.

    Args:
        store: of the suite.
        rows: their names.
        wait_s: how long to wait for a process that is just ending.
        seeds: which of the rows' seeds; cost and times are the first one's, 0.

    Raises:
        StoreError: another process is running one of them, or the folder cannot be written.
    """
    pairs = [(row, seed) for row in rows for seed in seeds]
    with ExitStack() as held:
        for row, seed in pairs:
            what = f"{named(row, seed)} of {store.folder}"
            name = f".{row}{MORE}{seed}.lock" if seed else f".{row}.lock"
            lock = locked(store.folder, OTHER_RESULTS, name=name, what=what, wait_s=wait_s)
            held.enter_context(lock)
            _sweep(store.folder / "records", row, seed)
        yield


def named(row: str, seed: int) -> str:
    """A row with one of its seeds, in words."""
    return f"row '{row}', seed {seed}" if seed else f"row '{row}'"


def _sweep(folder: Path, row: str, seed: int) -> None:
    """Remove half-written records of one seed: another process may be writing those of others."""
    start = f".{row}."
    for part in folder.glob(f"{start}*.part"):
        if seed_of(part.name.removeprefix(start).partition(".json.")[0]) == seed:
            with suppress(OSError):
                part.unlink()


@contextmanager
def shared_files(folder: Path) -> Iterator[None]:
    """Write `suite.json` or a report; other processes wait.

    Raises:
        StoreError: the folder cannot be written, or another process did not end writing.
    """
    with locked(folder, OTHER_RESULTS, wait_s=WAIT_S):
        yield


def prepare(store: Store, suite: Suite) -> None:
    """Keep the suite beside its records, and clear what killed processes left of shared files."""
    with shared_files(store.folder):
        sweep(store.folder)
        keep_suite(store, suite)
