"""A training that is killed at chosen moments, each time in a fork, for `test_kill_moments.py`.

The moments are those at which the most could be lost: before anything is kept, in the middle of a
step, of a file and of an evaluation, and between files that belong together.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import torch

from sepcbench.checkpoints import native
from sepcbench.data.coco import CocoData, open_data
from sepcbench.data.shapes import generate
from sepcbench.detectors import Detector
from sepcbench.specs import Recipe
from sepcbench.training import loop, state, step
from sepcbench.variants import variant

# candidates drawn at random, passes that add up, momentum, sizes drawn at random
SPEC = variant("rpn_tiny_fpn", {"short_side": 64, "long_side": 64})
RECIPE = Recipe(
    optimizer="sgd", learning_rate=0.01, iterations=9, batch=4, accumulate=2,
    warmup_iterations=2, short_sides=(48, 64),
)  # fmt: skip


def die(*given: object, **more: object) -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("alive")


def after(count: int, real: Callable[..., Any], end: Callable[..., Any] = die) -> Any:
    """A function as it is, until its call of number `count`, which another takes."""
    calls: list[int] = []

    def counted(*given: Any, **more: Any) -> Any:
        calls.append(1)
        return (end if len(calls) >= count else real)(*given, **more)

    return counted


def half(contents: Any, path: Path) -> None:
    """Write half of a state, and die."""
    real_save(contents, path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    die()


real_save = torch.save


def score(detector: Detector) -> float:
    """Draws from the generators too, as some evaluation may."""
    weights = torch.cat([p.detach().flatten() for p in detector.parameters()])
    return float(weights.double().abs().mean() + torch.rand(()) * 0)


def first_step() -> None:
    step._clip = after(1, step._clip)


def later_step() -> None:
    step._clip = after(4, step._clip)


def half_a_state() -> None:
    state.torch.save = after(2, torch.save, half)


def state_without_weights() -> None:
    native.save = after(3, native.save)


def evaluation() -> None:
    global score
    score = after(1, score)


def replacing() -> None:
    os.replace = after(2, os.replace)  # type: ignore[assignment]


MOMENTS = (first_step, later_step, half_a_state, evaluation, state_without_weights, replacing)


def train(data: CocoData, out: Path) -> None:
    _, record = loop.train(
        SPEC, data, RECIPE, out=out, resume=loop.resumable(out), save=native.save, workers=1,
        evaluate=lambda detector: score(detector), evaluate_every=3,
    )  # fmt: skip
    (out / "record.json").write_text(json.dumps([record.losses, record.scores]))


def forked(prepare: Callable[[], None], data: CocoData, out: Path) -> tuple[int, int]:
    """Train in a fork; how it ended, and the iteration that is kept."""
    child = os.fork()
    if not child:
        prepare()
        train(data, out)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    kept = 0
    with suppress(Exception):
        kept = int(state.read(out)["iteration"])
    return os.waitstatus_to_exitcode(status), kept


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    loop.SAVE_EVERY = 2
    generate(folder / "shapes", images=6, val_images=1, seed=0, size=(64, 64))
    data = open_data(folder / "shapes", "train")
    whole = forked(lambda: None, data, folder / "whole")
    killed = [forked(moment, data, folder / "killed") for moment in MOMENTS]
    last = forked(lambda: None, data, folder / "killed")
    print(json.dumps({"whole": whole, "killed": killed, "last": last}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
