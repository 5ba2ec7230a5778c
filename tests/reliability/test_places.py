"""A disk that is full, a folder that is taken or read-only, a clock that jumps."""

import builtins
import datetime
import errno
import io
import json
import os
import time
from pathlib import Path

import pytest
from killing import measured, records

from sepcbench import store
from sepcbench.cli.app import run
from sepcbench.locks import locked
from sepcbench.runner.places import rows_locked
from sepcbench.store import Store

SUITE = """
title = "Small"
measures = ["cost", "accuracy"]
[cost]
shape = "64x64"
[shapes]
images = 4
val_images = 2
size = "64x64"
[train]
iterations = 2
batch = 2
warmup_iterations = 1
[[row]]
name = "fpn"
variant = "retinanet_tiny_fpn"
[[row]]
name = "pafpn"
variant = "retinanet_tiny_pafpn"
"""
COMMAND = ["run", "small.toml"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.toml").write_text(SUITE)
    return tmp_path


def refused(capsys, arguments, words, code=2):
    """The command ends with one line that has these words."""
    capsys.readouterr()
    assert run(arguments) == code
    err = capsys.readouterr().err
    lines = [line for line in err.splitlines() if line.startswith("sepcbench: ")]
    assert len(lines) == 1, err
    assert "Traceback" not in err
    assert words in lines[0]


def test_two_runs_at_once_are_refused_and_another_suite_is_not(folder, capsys):
    assert run([*COMMAND, "--measures", "cost", "--only", "fpn"]) == 0
    (taken,) = folder.glob("results/small/*")
    words = f"another sepcbench (process {os.getpid()}) is at work there; wait"
    with rows_locked(Store(taken), ["fpn"]):
        refused(capsys, [*COMMAND, "--measures", "cost"], words)
        assert list(records(folder)) == ["fpn.cost.json"]
        (folder / "other.toml").write_text(SUITE)
        assert run(["run", "other.toml", "--measures", "cost"]) == 0
        assert run(["report", "small.toml"]) == 0  # reading is for everyone
    assert run([*COMMAND, "--measures", "cost"]) == 0


def test_a_set_or_a_checkpoint_that_another_process_is_making_is_left_to_it(
    folder, capsys, monkeypatch
):
    from sepcbench.runner import sets
    from sepcbench.suites import load

    monkeypatch.setattr(sets, "WAIT_S", 0.1)

    made = folder / "runs" / "shapes" / store.key_of(load("small.toml").file.shapes)
    with locked(made, ""):
        refused(capsys, COMMAND, "is at work there; wait for it to end, or choose another --work")
    assert run([*COMMAND, "--only", "fpn"]) == 0
    (out,) = folder.glob("runs/trained/retinanet_tiny_fpn-*")
    with locked(out, ""):
        refused(capsys, [*COMMAND, "--fresh"], "is at work there")
        command = ["train", "retinanet_tiny_fpn", "--data", str(made), "--out", str(out)]
        refused(capsys, [*command, "--overwrite"], "choose another folder")


WRITES = "wxa+"


class _Disk:
    """A disk that takes files until it is full, as the programs here see it."""

    def __init__(self, monkeypatch, room, inside, code=errno.ENOSPC):
        self.left, self.inside, self.code, self.refused = room, str(inside), code, 0
        opened, low = io.open, os.open

        def open_(file, mode="r", *args, **kwargs):
            if set(mode) & set(WRITES):
                self.check(file)
            return opened(file, mode, *args, **kwargs)

        def low_open(path, flags, *args, **kwargs):
            if flags & (os.O_WRONLY | os.O_RDWR):
                self.check(path)
            return low(path, flags, *args, **kwargs)

        monkeypatch.setattr(io, "open", open_)
        monkeypatch.setattr(builtins, "open", open_)
        monkeypatch.setattr(os, "open", low_open)

    def check(self, path):
        if not isinstance(path, (str, Path)) or not str(Path(path).absolute()).startswith(
            self.inside
        ):
            return
        self.left -= 1
        if self.left < 0:
            self.refused += 1
            raise OSError(self.code, os.strerror(self.code), str(path))


@pytest.fixture(scope="module")
def wanted(tmp_path_factory):
    """What an undisturbed run measures."""
    folder = tmp_path_factory.mktemp("undisturbed")
    (folder / "small.toml").write_text(SUITE)
    arguments = ["--results", str(folder / "results"), "--work", str(folder / "runs")]
    assert run(["run", str(folder / "small.toml"), *arguments]) == 0
    return measured(folder)


@pytest.mark.parametrize(
    "room",
    [
        *(0, 3, 9, 15, 25),
        *(pytest.param(room, marks=pytest.mark.slow) for room in (1, 6, 12, 18, 21, 30, 36)),
    ],
)
def test_a_disk_that_fills_up_loses_nothing_and_a_rerun_ends_as_if_it_had_not(
    folder, monkeypatch, capsys, wanted, room
):
    with monkeypatch.context() as patch:
        disk = _Disk(patch, room, folder)
        code = run(COMMAND)
    err = capsys.readouterr().err
    assert disk.refused, "it was never full"
    assert "Traceback" not in err
    assert code in (1, 2)
    kept = {name: body for name, body in records(folder).items() if not body["failed"]}
    assert {name: measured(folder)[name] for name in kept}.items() <= wanted.items()
    assert run(COMMAND) == 0
    after = records(folder)
    assert all(after[name] == body for name, body in kept.items())
    assert measured(folder) == wanted


@pytest.mark.parametrize("limit", [600, 5_000, 60_000])
def test_files_that_cannot_grow_are_refused_below_python_too(folder, capsys, wanted, limit):
    """The system's own limit on the size of a file: it also stops what is written in C++."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        code = run(COMMAND)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert code in (1, 2)
    assert "Traceback" not in capsys.readouterr().err
    assert run(COMMAND) == 0
    assert measured(folder) == wanted


def test_a_training_record_is_not_written_again_for_the_score_that_is_missing(folder):
    """As after a kill between the two."""
    assert run(COMMAND) == 0
    before = records(folder)
    (score,) = folder.glob("results/*/*/records/pafpn.accuracy.json")
    (training,) = folder.glob("results/*/*/records/pafpn.training.json")
    score.unlink()
    written = training.stat().st_mtime_ns
    assert run(COMMAND) == 0
    assert training.stat().st_mtime_ns == written
    assert records(folder)[score.name]["record"] == before[score.name]["record"]


@pytest.mark.parametrize("place", ["results", "runs"])
def test_a_read_only_folder_is_one_line(folder, monkeypatch, capsys, place):
    (folder / place).mkdir()
    with monkeypatch.context() as patch:
        disk = _Disk(patch, 0, folder / place, errno.EROFS)
        refused(capsys, COMMAND, "cannot")
    assert disk.refused == 1  # nothing is computed only to be thrown away
    assert run(COMMAND) == 0


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write")
def test_a_folder_without_permission_is_one_line(folder, capsys):
    (folder / "results").mkdir(mode=0o500)
    refused(capsys, COMMAND, "Permission denied")


def test_output_that_cannot_be_written_is_one_line(folder, monkeypatch, capsys):
    class Full(io.StringIO):
        def flush(self):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr("sys.stdout", Full())
        assert run(["list", "norms", "--format", "json"]) == 2
    assert capsys.readouterr().err == "sepcbench: No space left on device\n"


def test_a_clock_that_jumps_changes_no_measurement_and_no_resuming(
    folder, monkeypatch, capsys, wanted
):
    """Years back, years ahead, back: as after a lost battery, or a first contact to a server."""
    jumps = iter([1, 60 * 365, -50 * 365, 3, -2] * 100)
    shift = [0.0]

    class Jumping(datetime.datetime):
        @classmethod
        def now(cls, tz=None):
            shift[0] += next(jumps) * 86400.0
            return datetime.datetime.fromtimestamp(1_700_000_000 + shift[0] % 1e9, tz)

    real = time.time
    monkeypatch.setattr(store.datetime, "datetime", Jumping)
    monkeypatch.setattr(time, "time", lambda: real() + shift[0])
    monkeypatch.setattr(time, "time_ns", lambda: int((real() + shift[0]) * 1e9))
    text = SUITE.replace(
        "[shapes]",
        '[latency]\nshape = "64x64"\n[latency.protocol]\nrounds = 2\nsamples_per_round = 2\n'
        "warmup_iterations = 2\nwarmup_seconds = 0.01\n[shapes]",
    )
    (folder / "small.toml").write_text(text.replace('"accuracy"]', '"accuracy", "latency"]'))
    assert run(COMMAND) == 0
    before = records(folder)
    assert len({body["created"] for body in before.values()}) > 2
    timed = before["fpn.latency.json"]["record"]
    assert all(0 < value < 60 for taken in timed["samples_s"] for value in taken)
    assert {name: measured(folder)[name] for name in wanted} == wanted
    assert run(COMMAND) == 0
    assert records(folder) == before
    capsys.readouterr()
    assert run(["report", "results", "--format", "json"]) == 0
    (value,) = json.loads(capsys.readouterr().out)
    assert len(value["origins"]) == len(before)
