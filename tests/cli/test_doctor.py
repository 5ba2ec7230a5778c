"""`sepcbench doctor` on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import coco_sets
import pytest
import torch

from sepcbench.cli.app import run
from sepcbench.doctor.finding import Finding
from sepcbench.measures import trust
from sepcbench.measures.environment import environment


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_machine_without_problems(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["doctor", "--device", "cpu", "--format", "json"]) == 0
    found = [Finding(**item) for item in json.loads(capsys.readouterr().out)]
    topics = {finding.topic for finding in found}
    assert {"Python", "torch", "torchvision", "CPU", "load", "folder results"} <= topics
    assert not any(finding.topic == "GPU" for finding in found)
    assert list(here.iterdir()) == []  # looking changes nothing


def test_a_problem_is_exit_code_1(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["doctor", "--device", "cpu", "--data", "nowhere", "--format", "csv"]) == 1
    output = capsys.readouterr().out
    assert "problem,data,nowhere: not there,make a set: sepcbench data shapes DIR" in output


def test_a_data_set_is_checked(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    coco_sets.write(here / "coco")
    assert run(["doctor", "--device", "cpu", "--data", "coco", "--format", "md"]) == 0
    assert "3 images, 4 boxes, 2 categories" in capsys.readouterr().out


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_gpu_that_is_asked_for_and_missing(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["doctor", "--device", "cuda"]) == 1
    assert "CUDA sees no GPU" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("arguments", [["--device", "gpu"], ["--format", "xml"]])
def test_wrong_options(arguments: list[str], here: Path) -> None:
    assert run(["doctor", *arguments]) == 2


@pytest.mark.parametrize("found", [1.0, 1.5])
def test_trials_are_kept(
    found: float, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trial = trust.agreement("known: 1 s", "a call of known length", found, 1.0)
    made = trust.Trust("cpu", "made up", (trial,))
    monkeypatch.setattr(trust, "trust", lambda device, progress: made)
    code = run(["doctor", "--device", "cpu", "--trust", "--format", "json"])
    assert code == (0 if found == 1 else 1)
    file = here / "results" / "trust" / environment("cpu").machine / "trust.json"
    kept = json.loads(file.read_text())
    assert kept["passed"] == (found == 1)
    assert kept["trust"]["trials"][0]["found"] == found
    assert kept["environment"]["machine"] == environment("cpu").machine
    lines = {item["topic"]: item for item in json.loads(capsys.readouterr().out)}
    assert lines["timer, known: 1 s"]["status"] == ("ok" if found == 1 else "problem")
    assert str(file.relative_to(here)) in lines["timer"]["text"]
