"""Cores, load, disk and the GPU, as they could be."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from fake_nvml import FUNCTIONS, FakeGpu, FakeNvml

from sepcbench.doctor import machine
from sepcbench.doctor.gpu import check_gpu, state
from sepcbench.measures.nvml import Gpu


@pytest.mark.parametrize(
    ("average", "cores", "status"), [(0.1, 2, "ok"), (0.6, 2, "warning"), (3.0, 16, "ok")]
)
def test_load(average: float, cores: int, status: str) -> None:
    assert machine.load(cores, average).status == status


@pytest.mark.parametrize(
    ("text", "cores"),
    [("max 100000", None), ("150000 100000", 1.5), ("", None), ("a b", None), ("1 0", None)],
)
def test_quota(text: str, cores: float | None, tmp_path: Path) -> None:
    (tmp_path / "cpu.max").write_text(text)
    assert machine._quota(tmp_path / "cpu.max") == cores
    assert machine._quota(tmp_path / "none") is None


def test_a_quota_below_the_cores_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cpu.max").write_text("50000 100000")
    monkeypatch.setattr(machine, "_QUOTA", tmp_path / "cpu.max")
    (found,) = [finding for finding in machine.processor() if finding.topic == "CPU quota"]
    assert (found.status, found.advice) == ("warning", "OMP_NUM_THREADS=1")


def test_more_threads_than_cores_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    assert machine._threads(2).status == "warning"
    assert machine._threads(8).status == "ok"


@pytest.mark.parametrize(
    ("free", "status"), [(2**40, "ok"), (2**30, "warning"), (2**20, "problem")]
)
def test_room(free: int, status: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=free))
    assert machine.room(tmp_path / "not" / "there" / "yet").status == status
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_takes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_writable", lambda folder: False)
    assert machine.room(tmp_path).status == "problem"
    assert machine.cache("Triton", tmp_path).status == "warning"
    monkeypatch.undo()
    (tmp_path / "file").write_text("")
    assert not machine._writable(tmp_path / "file")


# --- the GPU -------------------------------------------------------------------------------


def findings(made: FakeGpu, **kwargs: Any) -> dict[str, tuple[str, str]]:
    found = state(Gpu(FakeNvml(made, **kwargs), made))
    return {finding.topic: (finding.status, finding.text) for finding in found}


def test_a_gpu_in_good_order() -> None:
    made = FakeGpu(compute=[os.getpid()], free=139 * 2**30)
    found = findings(made)
    assert {status for status, _ in found.values()} == {"ok"}
    assert found["clocks"][1].startswith("SM 1900 MHz now")
    assert "1980 by default, 1980 at most, memory 2600 MHz" in found["clocks"][1]
    assert "limit 700 W of 700 W" in found["power"][1]


@pytest.mark.parametrize(
    ("change", "topic", "status", "text"),
    [
        ({"compute": [1, 2]}, "tenants", "warning", "2 other processes"),
        ({"compute": [1]}, "tenants", "warning", "1 other process uses"),
        ({"free": 70 * 2**30}, "GPU memory", "warning", "70.0 of 140.0 GiB free"),
        ({"reasons": 0x24}, "throttling", "warning", "power cap, software thermal slowdown"),
        ({"limits": (400_000, 700_000)}, "power", "warning", "limit 400 W of 700 W"),
        ({"temperature": 85}, "power", "warning", "85 degrees C"),
        ({"persistence": 0}, "persistence", "info", "off"),
        ({"mig": 1}, "MIG", "warning", "a MIG slice"),
    ],
)
def test_what_is_not_in_order(change: dict[str, Any], topic: str, status: str, text: str) -> None:
    found = findings(FakeGpu(**change))
    assert found[topic][0] == status
    assert text in found[topic][1]


def test_a_driver_that_tells_nothing() -> None:
    found = findings(FakeGpu(), broken=FUNCTIONS)
    assert {status for status, _ in found.values()} <= {"info", "ok"}


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_no_gpu_is_a_problem_only_where_one_is_asked_for() -> None:
    assert [finding.status for finding in check_gpu(None)] == ["info"]
    assert [finding.status for finding in check_gpu("cpu")] == []
    (found,) = check_gpu("cuda:1")
    assert found.status == "problem"
    assert "--device cpu" in found.advice


def test_a_gpu_whose_driver_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA Made-up")
    monkeypatch.setattr("sepcbench.measures.nvml.library", lambda: None)
    found = list(check_gpu("cuda"))
    assert [(finding.topic, finding.status) for finding in found] == [
        ("GPU", "ok"),
        ("NVML", "warning"),
    ]
    assert "driver unknown" in found[0].text


def test_a_gpu_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(device: str) -> str:
        raise RuntimeError("invalid device ordinal\nmore")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", fail)
    (found,) = check_gpu("cuda:7")
    assert found.status == "problem"
    assert found.advice == "the GPUs are cuda:0 to cuda:1"
