"""What a process does when it fails among others, and which device is its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import pytest
import torch

from sepcbench import processes
from sepcbench.cli import app, worker_counts
from sepcbench.errors import DataError, UsageError


@pytest.fixture
def group(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Two processes that torchrun started, and what is done with their group."""
    done: list[str] = []
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(
        processes.dist, "init_process_group", lambda backend, timeout: done.append(backend)
    )
    monkeypatch.setattr(processes.dist, "destroy_process_group", lambda: done.append("destroyed"))
    return done


@pytest.fixture
def current(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The GPUs that became the current one."""
    found: list[str] = []

    @contextmanager
    def device(name: str) -> Iterator[None]:
        found.append(name)
        yield

    monkeypatch.setattr(torch.cuda, "device", device)
    return found


def test_a_group_is_left_after_success_alone(group: list[str]) -> None:
    with processes.joined("cpu"):
        pass
    assert group == ["gloo", "destroyed"]
    group.clear()
    with pytest.raises(DataError), processes.joined("cpu"):
        raise DataError("no such image")
    assert group == ["gloo"]


def test_the_device_is_the_current_one_of_one_process_too(
    group: list[str], current: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with processes.joined(processes.own_device("cuda")):
        assert current == ["cuda:1"]
    monkeypatch.delenv("RANK")
    with processes.joined(processes.own_device("cuda:2")):
        assert current == ["cuda:1", "cuda:2"]
    assert group == ["cpu:gloo,cuda:nccl", "destroyed"]


def test_one_gpu_for_several_processes_has_its_line(group: list[str]) -> None:
    with pytest.raises(
        UsageError, match=r"'cuda:0' is one GPU.* started 2 processes; use --device"
    ):
        processes.own_device("cuda:0")
    assert processes.own_device("cpu") == "cpu"


class _Gone(BaseException):
    pass


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (DataError("no such image"), 2, "sepcbench: no such image\n"),
        (ZeroDivisionError("by zero"), 1, "ZeroDivisionError: by zero\n"),
    ],
)
def test_a_command_that_fails_among_others_ends_at_once(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: Exception,
    code: int,
    line: str,
) -> None:
    """Not by the interpreter's end, which may wait for a collective that nobody joins."""
    ended: list[int] = []

    def leave(code: int) -> NoReturn:
        ended.append(code)
        raise _Gone

    def fail(**options: Any) -> NoReturn:
        raise error

    monkeypatch.setattr(app, "app", fail)
    monkeypatch.setattr(app.os, "_exit", leave)
    monkeypatch.setattr(processes, "job", lambda: processes.Job(1, 2))
    with pytest.raises(_Gone):
        app.main([])
    assert ended == [code]
    assert capsys.readouterr().err.endswith(line)
    monkeypatch.setattr(processes, "job", processes.Job)
    with pytest.raises((SystemExit, type(error))):
        app.main([])
    assert ended == [code]


def test_workers_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_counts.os, "sched_getaffinity", lambda pid: set(range(12)))
    for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert worker_counts.for_evaluation(None, 5000) == 8
    assert worker_counts.for_evaluation(None, 30) == 3
    assert worker_counts.for_evaluation(None, 7) == 0
    assert worker_counts.for_evaluation(5, 10) == 5
    assert worker_counts.for_training(None, "cuda") == 4
    assert worker_counts.for_training(None, "cuda:0", sharing=6) == 2
    assert worker_counts.for_training(None, "cuda:0", sharing=30) == 1
    assert worker_counts.for_training(None, "cpu") == 0
    assert worker_counts.for_training(3, "cpu") == 3
    monkeypatch.setenv("WORLD_SIZE", "8")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert worker_counts.for_evaluation(None, 5000) == 2
    assert worker_counts.for_evaluation(None, 8 * 8) == 1
    assert worker_counts.for_training(None, "cuda") == 3
