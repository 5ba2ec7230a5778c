"""kill -9 at the worst moments of a training: it ends with the same losses and weights.

And of one of several processes: the others end with an error, not in waiting.
"""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from killing import litter
from several_processes import together

from sepcbench.data.shapes import generate

ROOT = Path(__file__).parents[2]
SCRIPT = Path(__file__).with_name("killed_training.py")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked")
def test_a_training_killed_at_the_worst_moments_is_the_undisturbed_one_bit_for_bit(tmp_path):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, SCRIPT, tmp_path],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["whole"] == found["last"] == [0, 9]
    assert [code for code, _ in found["killed"]] == [-signal.SIGKILL] * 6
    # saved after iterations 2, 4, 6, 8 and, where it is scored, 3, 6 and 9
    assert [kept for _, kept in found["killed"]] == [0, 3, 4, 4, 8, 8]
    for name in ("record.json", "last.safetensors", "best.safetensors"):
        whole, killed = ((tmp_path / run / name).read_bytes() for run in ("whole", "killed"))
        assert killed == whole, name
    assert litter(tmp_path) == []


# `python -m sepcbench`, whose second process kills itself in its third pass
DYING = """
import os, signal, sys
import torch
torch.set_num_threads(1)
from sepcbench.training import loop, step
loop.SAVE_EVERY = 2
real, seen = step._pass, []
def dying(*given):
    seen.append(1)
    if os.environ["RANK"] == "1" and len(seen) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*given)
step._pass = dying
from sepcbench.cli.app import main
main(sys.argv[1:])
"""


def test_a_process_that_dies_ends_the_training_of_the_others(tmp_path):
    generate(tmp_path / "shapes", images=4, val_images=1, seed=0, size=(64, 64))
    words = ["train", "retinanet_tiny_fpn", "--data", "shapes", "--out", "out"]
    words += ["--iterations", "4", "--batch", "2", "--set", "short_side=64"]
    (code, out, err), (killed, *_) = together(["-c", DYING, *words], tmp_path, timeout=100)
    assert killed == -signal.SIGKILL
    assert (code, out) == (2, "")
    assert "another process of this training died at iteration 3; iteration 2 is kept" in err
    assert "Traceback" not in err
    assert (tmp_path / "out" / "last.safetensors").is_file()
