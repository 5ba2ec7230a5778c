"""The Slurm script of the docs is valid, and every task of its array takes another row."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sepcbench.suites import load

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "docs" / "slurm" / "rows.sh"
# Stands in for Python: it finds the rows with the real one, and shows the command instead of it.
PYTHON = '#!/bin/bash\nif [ "$1" = -c ]; then exec {python} "$@"; fi\necho "$@"\n'


@pytest.fixture
def task(tmp_path):
    """Run one task of the array; the command that it would have run."""
    stand_in = tmp_path / "python"
    stand_in.write_text(PYTHON.format(python=sys.executable))
    stand_in.chmod(0o755)

    def run_task(number, **settings):
        environment = os.environ | settings | {
            "SLURM_ARRAY_TASK_ID": str(number),
            "PYTHON": str(stand_in),
            "PYTHONPATH": str(ROOT),
        }  # fmt: skip
        return subprocess.run(
            ["bash", SCRIPT], env=environment, cwd=tmp_path, capture_output=True, text=True
        )

    return run_task


def test_the_script_is_valid_bash():
    done = subprocess.run(["bash", "-n", SCRIPT], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_task_takes_the_row_of_its_number(task):
    names = [row.name for row in load("components").rows]
    for number in (0, len(names) - 1):
        done = task(number)
        assert done.returncode == 0, done.stderr
        words = done.stdout.split()
        assert words[:5] == ["-m", "sepcbench", "run", "components", "--row"]
        assert words[5] == names[number]
    assert task(len(names)).stdout == ""
    assert "has only" in task(len(names)).stderr


def test_the_array_of_the_script_has_a_task_for_every_row():
    count = len(load("components").rows)
    assert f"#SBATCH --array=0-{count - 1}\n" in SCRIPT.read_text()


def test_the_command_of_a_task_is_understood(task, monkeypatch, tmp_path, capsys):
    """All of it but the GPU: on a suite of the tiny backbone and a folder without data."""
    from sepcbench.cli import options
    from sepcbench.cli.app import run

    words = task(0, SUITE="quick", DATA="nowhere", SEEDS="2").stdout.split()[2:]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(options, "check_device", lambda device: "cpu")
    assert run(words) == 2
    assert "'nowhere'" in capsys.readouterr().err


def test_a_suite_that_is_not_there_ends_the_task(task):
    assert task(0, SUITE="componets").returncode != 0
