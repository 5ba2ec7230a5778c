"""`sepcbench eval` by two real processes: the same numbers as by one, also after one was killed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from sepcbench.checkpoints import native
from sepcbench.cli.app import run
from sepcbench.data.coco import open_data
from sepcbench.data.shapes import generate
from sepcbench.detectors import build
from sepcbench.variants import variant

ROOT = Path(__file__).resolve().parents[2]
LOW = {"short_side": 64, "long_side": 64, "score_threshold": 0.008, "max_detections": 20}
IMAGES = 9

# `python -m sepcbench`, which kills itself before image DIE_AT of its own
_START = """
import os, signal, sys
import torch
torch.set_num_threads(1)
from sepcbench.measures import accuracy
real, seen = accuracy.detect, [0]
def detect(*args, **more):
    seen[0] += 1
    if seen[0] == int(os.environ.get("DIE_AT", 0)):
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*args, **more)
accuracy.detect = detect
from sepcbench.cli.app import run
sys.exit(run(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    generate(folder / "data", images=1, val_images=IMAGES, seed=0, size=(64, 64))
    detector = build(variant("retinanet_tiny_fpn", LOW), seed=0)
    classes = open_data(folder / "data", "val").classes
    native.save(folder / "run" / "last.safetensors", detector, classes)
    return folder


def _words(made: Path, keep: Path) -> list[str]:
    data = ["--data", str(made / "data"), "--keep", str(keep), "--format", "json"]
    return ["eval", str(made / "run"), *data]


def _both(words: list[str], die_at: int = 0) -> list[tuple[int, str, str]]:
    """Run as `torchrun --nproc-per-node 2` does; exit code, stdout and stderr of both."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    processes = []
    for rank in range(2):
        environment = os.environ | {
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": "2",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1",
            "DIE_AT": str(die_at if rank == 1 else 0),
        }
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        command = [sys.executable, "-c", _START, *words]
        processes.append(subprocess.Popen(command, env=environment, text=True, **pipes))
    said = [process.communicate(timeout=120) for process in processes]
    return [(process.returncode, *texts) for process, texts in zip(processes, said)]


def test_a_dying_process_ends_the_run_and_the_next_goes_on(
    made: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(_words(made, tmp_path / "alone")) == 0
    wanted = json.loads(capfd.readouterr().out)
    began = time.monotonic()
    (code, out, err), (killed, *_) = _both(_words(made, tmp_path / "kept"), die_at=3)
    assert time.monotonic() - began < 100, "no hang"
    assert killed == -signal.SIGKILL
    assert (code, out) == (2, "")
    assert "another process of this evaluation died; finished images are kept" in err
    assert "Traceback" not in err
    kept = (tmp_path / "kept").glob("*/*.jsonl")
    assert sum(path.read_bytes().count(b"\n") for path in kept) == 5 + 2
    # the first process has all of its five images, the second two of four to do
    (code, out, err), (other, silent, _) = _both(_words(made, tmp_path / "kept"), die_at=0)
    assert (code, other, silent) == (0, 0, ""), err
    assert json.loads(out) == wanted
    kept = (tmp_path / "kept").glob("*/*.jsonl")
    assert sum(path.read_bytes().count(b"\n") for path in kept) == IMAGES


def test_torchrun_ends_with_an_error_when_one_process_fails(made: Path, tmp_path: Path) -> None:
    """The command of the documentation, where one image, of the second process, is cut off."""
    data = tmp_path / "data"
    shutil.copytree(made / "data", data)
    image = data / "val" / open_data(data, "val").images[1].file_name
    image.write_bytes(image.read_bytes()[:100])
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    words = ["-m", "sepcbench", "eval", str(made / "run"), "--data", str(data), "--workers", "0"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        [sys.executable, *launcher, *words],
        cwd=tmp_path,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        try:
            out, err = process.communicate(timeout=60)
        finally:
            with suppress(ProcessLookupError):  # the launcher, and all that it has started
                os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode != 0
    assert out == "", "half a table"
    said = [line for line in err.splitlines() if line.startswith("sepcbench: ")]
    said.sort(key=lambda line: image.name not in line)
    assert [line for line in said if image.name in line] == said[:1], err
    # the first process, if it is not ended before it can say so
    assert all("another process of this evaluation died" in line for line in said[1:]), err
