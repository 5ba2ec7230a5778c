"""The options of `sepcbench run`, read and checked, and as words for the processes of `--jobs`."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from sepcbench import recipes
from sepcbench.cli import options
from sepcbench.cli.training_plan import recipe_fields
from sepcbench.cli.worker_counts import for_training
from sepcbench.errors import UsageError
from sepcbench.runner import RunOptions
from sepcbench.specs import MeasureName
from sepcbench.suites import Suite, load, twin

DEFAULT = "suite's"
SHAPES = "shapes"  # as --data: the generated set; a folder of that name is ./shapes
# How often the process of a row says where it is, in seconds.
_OFTEN, _SELDOM = 2.0, 60.0


@dataclass(frozen=True)
class Given:
    """The options of one command, as they were given."""

    only: tuple[str, ...]
    measures: str
    resume: bool
    device: str
    data: str | None
    train: bool
    recipe: tuple[str, ...]
    seeds: int
    jobs: str | None
    workers: int | None
    proposals: Path | None
    checkpoint: tuple[str, ...]
    referee: bool
    results: Path
    work: Path
    part: bool
    seed: int | None = None


def choose(name: str, given: Given) -> tuple[Suite, RunOptions]:
    """A suite by name or file, and what to run of it.

    Raises:
        UsageError: an option is wrong, or two do not go together.
    """
    suite, data = load(name), given.data
    if data == SHAPES:
        suite, data = twin(suite), None
    elif given.train and data is None:
        raise UsageError("--train needs --data DIR, or --data shapes for the suite's small twin")
    recipe, changes = recipes.told(recipe_fields(given.recipe))
    jobs = _devices(given.jobs, given.device) if given.jobs is not None else ()
    device = jobs[0] if jobs else options.check_device(given.device)
    workers = for_training(given.workers, device, len(jobs) or None)
    return suite, RunOptions(
        measures=_measures(given.measures),
        only=given.only,
        fresh=not given.resume,
        device=device,
        data=Path(data) if data is not None else None,
        proposals=given.proposals,
        checkpoints=_checkpoints(given.checkpoint),
        referee=given.referee,
        seeds=_seeds(given, suite),
        train=given.train,
        recipe=recipe,
        recipe_fields=changes,
        jobs=jobs,
        command=_words(name, given, workers) if jobs else (),
        part=given.part,
        workers=workers,
        results=given.results,
        work=given.work,
    )


def _measures(text: str) -> tuple[MeasureName, ...]:
    if text == DEFAULT:
        return ()
    names = [name.strip() for name in text.split(",")]
    known = get_args(MeasureName)
    return tuple(options.check_choice("measure", name, known) for name in names)  # type: ignore[misc]


def _seeds(given: Given, suite: Suite) -> tuple[int, ...]:
    """The seeds of `--seeds`, or the one of `--seed`.

    Raises:
        UsageError: both are given, or nothing that is asked for has seeds.
    """
    if given.seed is None:
        return tuple(range(given.seeds))
    if given.seeds > 1:
        raise UsageError("give --seeds or --seed, not both: --seeds 3 is --seed 0, 1 and 2")
    if given.seed and "accuracy" not in (_measures(given.measures) or suite.file.measures):
        raise UsageError(
            f"--seed {given.seed} is for accuracy; cost and latency are measured with --seed 0"
        )
    return (given.seed,)


def _checkpoints(given: tuple[str, ...]) -> dict[str, Path]:
    pairs = options.parse_pairs("--checkpoint", "ROW=FILE", given)
    return {row: Path(file) for row, file in pairs.items()}


# --- for --jobs ------------------------------------------------------------------------------


def _devices(text: str, device: str) -> tuple[str, ...]:
    """The device of each job; numbers of GPUs go round where there are fewer."""
    if text.isdigit() and int(text) > 0:
        options.check_device(device)
        return tuple(_nth(device, i) for i in range(int(text)))
    names = tuple(name.strip() for name in text.split(","))
    if not all(name.partition(":")[0] in ("cpu", "cuda") for name in names):
        raise UsageError(f"--jobs '{text}' is no number of jobs and no devices like cuda:0,cuda:1")
    for name in names:
        options.check_device(name)
    if len({_model(name) for name in names}) > 1:
        raise UsageError(
            f"--jobs '{text}': these devices differ, and a table is of one kind; "
            "run their rows apart with --row, and `sepcbench report` joins them"
        )
    return names


def _nth(device: str, i: int) -> str:
    if device != "cuda":
        return device
    import torch

    return f"cuda:{i % torch.cuda.device_count()}"


def _model(device: str) -> str:
    if device == "cpu":
        return device
    import torch

    return torch.cuda.get_device_name(device)


def _words(name: str, given: Given, workers: int) -> tuple[str, ...]:
    """The command of one row's process, without its row, seed, device and measures."""
    often = _OFTEN if sys.stderr.isatty() else _SELDOM
    words = ["run", name, "--part", str(often)]
    words += ["--results", str(given.results), "--work", str(given.work)]
    words += ["--workers", str(workers)]
    words += [] if given.resume else ["--fresh"]
    words += ["--train"] if given.train else []
    words += ["--referee"] if given.referee else []
    words += ["--data", given.data] if given.data is not None else []
    words += ["--proposals", str(given.proposals)] if given.proposals is not None else []
    for recipe in given.recipe:
        words += ["--recipe", recipe]
    for checkpoint in given.checkpoint:
        words += ["--checkpoint", checkpoint]
    return tuple(words)
