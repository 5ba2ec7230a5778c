"""`sepcbench` alone, and completion by the shell."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from sepcbench.cli.app import COMMANDS, run
from sepcbench.cli.first_steps import STEPS, first_steps

START = "import sys; sys.argv[0] = 'sepcbench'; from sepcbench.cli.app import main; main()"


def in_shell(**environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", START],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done.stdout


def test_alone_it_says_what_to_do_next(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run([]) == 0
    text = capsys.readouterr().out
    assert "sepcbench flops retinanet_r50_fpn" in text
    assert "sepcbench --help" in text
    assert "sepcbench report" not in text


def test_every_step_is_a_command() -> None:
    for command, _ in STEPS:
        assert shlex.split(command)[1] in COMMANDS


def test_with_results_it_names_the_report(tmp_path: Path) -> None:
    (tmp_path / "quick" / "some-machine").mkdir(parents=True)
    (tmp_path / "quick" / "some-machine" / "suite.json").write_text("{}")
    assert "sepcbench report quick" in first_steps(tmp_path)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_its_script(shell: str) -> None:
    script = in_shell(_SEPCBENCH_COMPLETE=f"source_{shell}")
    assert "_SEPCBENCH_COMPLETE" in script
    assert f"complete_{shell}" in script


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("sepcbench fl", "flops"),
        ("sepcbench flops retinanet_tiny_sepc_", "retinanet_tiny_sepc_lite"),
        ("sepcbench run qu", "quick"),
    ],
)
def test_names_are_completed(words: str, found: str) -> None:
    at = str(len(words.split()) - 1)
    out = in_shell(_SEPCBENCH_COMPLETE="complete_bash", COMP_WORDS=words, COMP_CWORD=at)
    assert out.split() == [found]
