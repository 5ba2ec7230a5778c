"""Hands the rows and seeds of a run to several devices, each a process: `run --row NAME --seed K`.

Each process stores its records itself, so that nothing is lost when one of them, or all, are
killed. Their standard input is a pipe from here: when it closes, they end.
"""

from __future__ import annotations

import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from sepcbench.errors import SepcbenchError, UsageError
from sepcbench.records import Failure
from sepcbench.runner.accuracy import has_seeds
from sepcbench.runner.places import named, rows_locked
from sepcbench.runner.scoring import kinds
from sepcbench.runner.state import Run, keep
from sepcbench.specs import MeasureName
from sepcbench.store import now, seed_of, seeded_kind
from sepcbench.suites import SuiteRow

Say = Callable[[str], None]

# Python that runs the command line, also where the package is not installed but only found.
_START = (
    "import sys; sys.path.append({!r}); from sepcbench.cli.app import run; "
    "sys.exit(run(sys.argv[1:]))"
)
_PATIENCE_S = 60.0  # for processes that were told to end


@dataclass(frozen=True)
class _Part:
    """What one process does: some measures of one row, with one seed."""

    row: SuiteRow
    seed: int
    measures: tuple[MeasureName, ...]

    @property
    def name(self) -> str:
        return f"{self.row.name}, seed {self.seed}" if self.seed else self.row.name


@dataclass
class _Ended:
    """A process that has ended, and the last line it said."""

    part: _Part
    code: int
    last: str


@dataclass
class _Jobs:
    """Parts to do, processes at work and what they say, shared by a thread per device."""

    run: Run
    todo: queue.SimpleQueue[_Part]
    said: queue.SimpleQueue[tuple[str, str] | _Ended] = field(default_factory=queue.SimpleQueue)
    alive: dict[str, subprocess.Popen[str]] = field(default_factory=dict)
    stopped: threading.Event = field(default_factory=threading.Event)


def run_jobs(run: Run, measures: Sequence[MeasureName], say: Say) -> None:
    """Run some measures of all rows and seeds of a run, as many at once as it has devices.

    Failures, also of processes that crashed, are added to those of the run.

    Args:
        run: with `jobs` and `command` in its options.
        measures: which; times are not among them, since they need a device for themselves.
        say: takes what the processes print, a line with the name of its row and seed.
    """
    jobs, parts = _Jobs(run, queue.SimpleQueue()), _parts(run, measures)
    for part in parts:
        jobs.todo.put(part)
    started = now()
    with run.bar(f"{run.suite.name}: rows") as progress, _at_work(jobs):
        latest: dict[str, str] = {}
        done = 0
        while done < len(parts):
            progress(done, len(parts), " | ".join(latest.values()))
            item = jobs.said.get()
            if isinstance(item, _Ended):
                done += 1
                latest.pop(item.part.name, None)
                _collect(run, item, started)
            else:
                name, line = item
                latest[name] = line
                say(f"[{name}] {line}")


def _parts(run: Run, measures: Sequence[MeasureName]) -> list[_Part]:
    """Every row with the first seed, then with the next: a table is whole as early as can be."""
    found = []
    for seed in run.options.seeds:
        own = tuple(name for name in measures if name == "accuracy" or not seed)
        rows = [row for row in run.rows if not seed or has_seeds(run, row)]
        found += [_Part(row, seed, own) for row in rows if own]
    return found


@contextmanager
def _at_work(jobs: _Jobs) -> Iterator[None]:
    """A thread per device; whatever ends this, no process is left behind."""
    threads = [
        threading.Thread(target=_work, args=(jobs, device), daemon=True)
        for device in jobs.run.options.jobs
    ]
    try:
        for thread in threads:
            thread.start()
        yield
    finally:
        jobs.stopped.set()
        for process in list(jobs.alive.values()):
            _end(process)
        for thread in threads:
            thread.join()


def _end(process: subprocess.Popen[str]) -> None:
    with suppress(OSError):
        process.stdin.close()  # type: ignore[union-attr]
    try:
        process.wait(_PATIENCE_S)
    except subprocess.TimeoutExpired:
        process.kill()


def _work(jobs: _Jobs, device: str) -> None:
    """Do one part after the other on a device, until there are none."""
    while not jobs.stopped.is_set():
        try:
            part = jobs.todo.get_nowait()
        except queue.Empty:
            return
        code, last = -1, "it could not be started"
        try:
            code, last = _run_part(jobs, part, device)
        except OSError as error:
            last = str(error)
        finally:
            jobs.said.put(_Ended(part, code, last))


def _run_part(jobs: _Jobs, part: _Part, device: str) -> tuple[int, str]:
    options, last = jobs.run.options, ""
    words = [*options.command, "--row", part.row.name, "--seed", str(part.seed)]
    words += ["--device", device, "--measures", ",".join(part.measures)]
    package_parent = str(Path(__file__).resolve().parents[2])
    with subprocess.Popen(
        [sys.executable, "-c", _START.format(package_parent), *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        env=os.environ | _threads(options.jobs),
    ) as process:
        jobs.alive[part.name] = process
        if jobs.stopped.is_set():
            _end(process)
        assert process.stderr is not None
        for line in process.stderr:
            if line.strip():
                last = line.strip()
                jobs.said.put((part.name, last))
    del jobs.alive[part.name]
    return process.returncode, last


def _threads(devices: Sequence[str]) -> dict[str, str]:
    """The cores of a machine are divided among processes, unless the user says how."""
    from sepcbench.measures.environment import usable_cores

    if "OMP_NUM_THREADS" in os.environ:
        return {}
    return {"OMP_NUM_THREADS": str(max(1, usable_cores() // len(devices)))}


# --- what they leave behind ------------------------------------------------------------------


def _collect(run: Run, ended: _Ended, started: str) -> None:
    """Take over the failures that a process stored, or its own failure."""
    if ended.code == 0:
        return
    found = _stored_failures(run, ended.part, started)
    run.failures += found
    if ended.code != 1 or not found:
        _crashed(run, ended)


def _stored_failures(run: Run, part: _Part, started: str) -> list[Failure]:
    try:
        stored = [item for item in run.store.records() if item.row == part.row.name]
    except UsageError:  # a damaged record is for the report to tell, the other rows go on
        return []
    own = [item for item in stored if seed_of(item.kind) == part.seed]
    fresh = [item.record for item in own if item.created >= started]
    return [record for record in fresh if isinstance(record, Failure)]


def _crashed(run: Run, ended: _Ended) -> None:
    """Note why a process ended; where it was killed, in the place of the records it owes."""
    how = f"was killed by signal {-ended.code}" if ended.code < 0 else f"ended with {ended.code}"
    reason = f"its process {how}; it last said: {ended.last.removeprefix('sepcbench: ')}"
    row, seed = ended.part.row, ended.part.seed
    run.notes.append(f"{named(row.name, seed)}: {reason}")
    run.failures.append(Failure(row.spec.name, "run", reason))
    if ended.code >= 0:  # it could tell itself: the row is another's, or the disk is full
        return
    owed = {"cost": "cost", "accuracy": kinds(row.spec.head)[0]}
    with suppress(SepcbenchError), rows_locked(run.store, [row.name], seeds=[seed]):
        for measure in ended.part.measures:
            kind = seeded_kind(owed[measure], seed)
            if run.store.read(row.name, kind) is None:
                keep(run, row, kind, "crashed", Failure(row.spec.name, kind, reason))
