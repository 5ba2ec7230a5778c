"""gpu.sh without a GPU: its steps, its time limit, and that nothing measured is lost."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "gpu.sh"

pytestmark = pytest.mark.skipif(
    not SCRIPT.is_file() or sys.platform != "linux", reason="the script is for Linux checkouts"
)

TINY = """
title = "Tiny"
measures = ["cost", "latency"]
[cost]
shape = "64x64"
[latency]
shape = "64x64"
[latency.protocol]
rounds = 2
samples_per_round = 1
warmup_seconds = 0.0
warmup_iterations = 1
max_seconds = 5.0
[[row]]
name = "fpn"
variant = "retinanet_tiny_fpn"
"""

# Stands in for Python: says what it was called with, and does what the step is told to.
STAND_IN = """#!/usr/bin/env bash
case "$1 $2" in "-c "*) exit 0 ;; esac
echo "$*" >> "$CALLS"
case "$*" in
  "-m sepcbench run slow "*)
    mkdir -p "$RESULTS/slow" && echo kept > "$RESULTS/slow/one.json" && exec sleep 60 ;;
  "-m sepcbench run broken "*) exit 1 ;;
  "-m pytest "*) ;;
  *) mkdir -p "$RESULTS/made" && echo kept > "$RESULTS/made/one.json" ;;
esac
"""


def gpu(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(SCRIPT), *arguments],
        env={**os.environ, "PYTHON": sys.executable, **environment},
        capture_output=True,
        text=True,
        timeout=280,
    )


@pytest.fixture
def stand_in(tmp_path: Path) -> dict[str, str]:
    """Environment of a run that calls the stand-in for Python."""
    python = tmp_path / "python"
    python.write_text(STAND_IN)
    python.chmod(0o755)
    places = {name: str(tmp_path / name.lower()) for name in ("CALLS", "RESULTS", "OUT")}
    return {"PYTHON": str(python), **places}


def calls(stand_in: dict[str, str]) -> list[str]:
    return Path(stand_in["CALLS"]).read_text().splitlines()


def test_every_suite_that_times_is_a_step() -> None:
    steps = gpu("--list").stdout.split()
    assert (steps[:3], steps[-1]) == (["tests", "trust", "paper"], "blocks")
    files = (ROOT / "suites").glob("*.toml")
    timed = {path.stem for path in files if "latency" in tomllib.loads(path.read_text())}
    assert sorted(steps[3:-1]) == sorted(timed)


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_gpu_nothing_is_run() -> None:
    done = gpu("tests")
    assert done.returncode == 1
    assert "no CUDA device here: nothing was run" in done.stderr


@pytest.mark.parametrize("arguments", [["--fast"], ["--seconds", "soon"]])
def test_wrong_options(arguments: list[str]) -> None:
    done = gpu(*arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("gpu.sh: ")


def test_correctness_comes_first_then_the_timers_then_the_suites(stand_in: dict[str, str]) -> None:
    done = gpu(**stand_in)
    assert done.returncode == 0, done.stderr
    found = calls(stand_in)
    assert found[0].startswith("-m pytest -p no:cacheprovider -m gpu and not slow tests/gpu ")
    assert found[1].startswith("-m sepcbench doctor --trust --device cuda")
    assert found[2].startswith("-m sepcbench latency --suite components --protocol paper --device")
    assert all("--measures cost,latency" in call for call in found[3:-1])
    assert [call.split()[3] for call in found[3:-1]] == gpu("--list").stdout.split()[3:-1]
    assert found[-1].startswith("-m pytest -p no:cacheprovider -m gpu and slow tests/gpu/")


def test_every_test_that_is_marked_gpu_is_in_a_folder_that_is_run() -> None:
    tested = re.search(r"^TESTED=\((.*)\)", SCRIPT.read_text(), re.MULTILINE)
    assert tested is not None
    mark = re.compile(r"^(@|pytestmark = )pytest\.mark\.gpu$", re.MULTILINE)
    marked = [file for file in (ROOT / "tests").rglob("*.py") if mark.search(file.read_text())]
    folders = [ROOT / name for name in tested[1].split()]
    assert marked
    assert [file for file in marked if not any(file.is_relative_to(one) for one in folders)] == []


def test_a_failed_step_does_not_stop_the_others(stand_in: dict[str, str]) -> None:
    done = gpu("broken", "quick", **stand_in)
    assert done.returncode == 1
    assert len(calls(stand_in)) == 2
    assert "failed: broken" in done.stderr


@pytest.mark.parametrize(("code", "kept"), [(0, True), (1, True), (130, False)])
def test_the_papers_protocol_is_kept_beside_the_records(
    stand_in: dict[str, str], code: int, kept: bool
) -> None:
    """Whole, or not at all: rows that failed are in it, one that was broken off is not."""
    python = Path(stand_in["PYTHON"])
    python.write_text(
        "#!/usr/bin/env bash\n"
        'case "$*" in *environment*) echo a-card ;; "-m sepcbench latency "*) echo "[]" &&'
        f" exit {code} ;; esac\n"
    )
    assert gpu("paper", **stand_in).returncode == code
    for place in (stand_in["RESULTS"], stand_in["OUT"] + "/results"):
        found = [path for path in Path(place).rglob("*") if path.is_file()]
        names = [str(path.relative_to(place)) for path in found]
        assert names == ["paper_protocol/a-card/latency.json"] * kept
        assert all(path.read_text() == "[]\n" for path in found)


def test_at_the_end_of_the_time_everything_is_kept_and_the_rest_is_named(
    stand_in: dict[str, str],
) -> None:
    done = gpu("--seconds", "2", "quick", "slow", "bn", **stand_in)
    assert done.returncode == 75
    assert "to go on: ./gpu.sh --seconds 2 slow bn" in done.stderr
    assert len(calls(stand_in)) == 2
    out = Path(stand_in["OUT"]) / "results"
    assert sorted(str(path.relative_to(out)) for path in out.rglob("*.json")) == [
        "made/one.json",
        "slow/one.json",
    ]


def test_only_what_is_new_is_copied(stand_in: dict[str, str]) -> None:
    old = Path(stand_in["RESULTS"]) / "old" / "one.json"
    old.parent.mkdir(parents=True)
    old.write_text("before")
    os.utime(old, (1, 1))
    assert gpu("quick", **stand_in).returncode == 0
    out = Path(stand_in["OUT"]) / "results"
    assert [path.name for path in out.iterdir()] == ["made"]


@pytest.mark.slow
def test_a_tiny_suite_on_a_cpu(tmp_path: Path) -> None:
    suite = tmp_path / "tiny.toml"
    suite.write_text(TINY)
    places = {"RESULTS": str(tmp_path / "results"), "OUT": str(tmp_path / "out")}
    done = gpu("--seconds", "250", "tests", str(suite), DEVICE="cpu", **places)
    assert done.returncode == 0, done.stderr
    assert "tests: those marked gpu need a GPU" in done.stderr
    written = [path.name for path in (tmp_path / "results" / "tiny").rglob("fpn.*.json")]
    assert {"fpn.cost.json", "fpn.latency.json"} <= set(written)
    assert list((tmp_path / "out" / "results" / "tiny").rglob("fpn.latency.json"))
