"""Commands in processes of their own, killed without warning at moments of our choosing."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# saves often, so that a training of seconds has states to go on from, and is slowed down a little,
# so that a kill has something to hit
_START = (
    "import sys, time\n"
    "import torch\n"
    "torch.set_num_threads(1)\n"
    "from sepcbench.training import loop\n"
    "loop.SAVE_EVERY = 2\n"
    "from sepcbench.cli.app import run\n"
    "print('ready', flush=True)\n"
    "code = run(sys.argv[1:])\n"
    "print('done', code, flush=True)\n"
    "sys.exit(code)\n"
)


def start(arguments, folder):
    """Start `sepcbench ARGUMENTS` in `folder`; it is ready to work when this returns."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-c", _START, *arguments],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "ready\n"
    return process


def finish(arguments, folder):
    """Run to the end; returns the exit code, stdout and stderr."""
    process = start(arguments, folder)
    out, err = process.communicate(timeout=120)
    assert "Traceback" not in err, err
    return process.returncode, out, err


def killed(arguments, folder, seconds):
    """Start and kill -9 after a time; whether it was still at work."""
    process = start(arguments, folder)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(seconds)
    alive = process.poll() is None
    if alive:
        process.send_signal(signal.SIGKILL)
    _, err = process.communicate(timeout=60)
    assert "Traceback" not in err, err
    return alive


def duration(arguments, folder):
    """Seconds that an undisturbed command works, from when it is ready."""
    process = start(arguments, folder)
    begin = time.monotonic()
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return time.monotonic() - begin


def records(folder):
    """Every record under a folder by file name; each file is whole."""
    found = {}
    for path in sorted(Path(folder).glob("results/*/*/records/*")):
        if path.name.startswith("."):
            continue  # half written when the process was killed
        assert path.name not in found
        found[path.name] = json.loads(path.read_text())
    return found


def measured(folder):
    """What does not depend on the clock: the records, without their time, place and speed."""
    return {
        name: {
            key: {**value, "speed": None} if key == "record" else value
            for key, value in body.items()
            if key not in ("created", "environment")
        }
        for name, body in records(folder).items()
    }


def table(folder):
    """The rows of the results table, without columns that are times."""
    (path,) = Path(folder).glob("results/*/*/table.csv")
    return path.read_text()


def litter(folder):
    """Hidden files left behind: locks, and parts of files."""
    return [p.name for p in Path(folder).rglob(".*") if re.search(r"\.(part|lock)$", p.name)]
