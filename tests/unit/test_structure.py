"""What the layout promises: no torch at import, and a command line that starts at once."""

import json
import subprocess
import sys
import time

import pytest

HEAVY = ("torch", "torchvision", "fvcore", "pandas", "matplotlib", "pycocotools")
LIGHT = (
    "sepcbench.cli.app",
    "sepcbench.runner",
    "sepcbench.results",
    "sepcbench.report.files",
    "sepcbench.store",
    "sepcbench.suites",
    "sepcbench.conventions",
    "sepcbench.specs",
    "sepcbench.variants",
    "sepcbench.records",
    "sepcbench.stats",
    "sepcbench.units",
    "sepcbench.errors",
)


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("module", LIGHT)
def test_importing_does_not_bring_torch(module):
    code = f"import {module}, sys, json; print(json.dumps(sorted(sys.modules)))"
    loaded = set(json.loads(python(code)))
    assert module in loaded
    assert not loaded & set(HEAVY)


@pytest.mark.parametrize("arguments", [["--help"], ["list", "variants"], ["list", "suites"]])
def test_commands_without_measuring_bring_no_torch(arguments):
    code = (
        "import sys, json, io, contextlib\n"
        "from sepcbench.cli.app import run\n"
        "with contextlib.redirect_stdout(io.StringIO()):\n"
        f"    code = run({arguments!r})\n"
        "print(json.dumps([code, sorted(sys.modules)]))"
    )
    code, loaded = json.loads(python(code))
    assert code == 0
    assert not set(loaded) & set(HEAVY)


def test_help_starts_in_a_fraction_of_importing_torch():
    """The promise is 0.3 s on an idle machine; a ratio holds on a busy one too."""

    def seconds(code: str) -> float:
        times = []
        for _ in range(2):
            start = time.perf_counter()
            subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
            times.append(time.perf_counter() - start)
        return min(times)

    start_up = seconds("import sys; from sepcbench.cli.app import run; sys.exit(run(['--help']))")
    assert start_up < seconds("import torch") / 2
