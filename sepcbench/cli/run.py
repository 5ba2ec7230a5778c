"""`sepcbench run`: measure suites and write their tables."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from sepcbench.cli import options, run_parts
from sepcbench.cli.run_choices import DEFAULT, Given, choose
from sepcbench.runner import Run, RunOptions, run_suite
from sepcbench.suites import Suite

Suites = Annotated[
    list[str],
    typer.Argument(
        metavar="SUITE...", help="Names or TOML files.", autocompletion=options.complete_suite
    ),
]
Rows = Annotated[
    list[str] | None,
    typer.Option("--row", "--only", metavar="ROW", help="Run only this row."),
]
Measures = Annotated[
    str, typer.Option(help="Some of cost,latency,accuracy; or what the suite says.")
]
Resume = Annotated[
    bool, typer.Option("--resume/--fresh", help="Keep what is measured, or measure all again.")
]
Data = Annotated[
    str | None,
    typer.Option(
        metavar="DIR|shapes",
        help="COCO-format data to score on; or train each suite's small twin on shapes.",
    ),
]
Train = Annotated[
    bool, typer.Option("--train", help="Train the rows without a checkpoint on --data first.")
]
Recipes = Annotated[
    list[str] | None,
    typer.Option(
        "--recipe", metavar="NAME|FIELD=VALUE", help="How to train; 1x where the suite says not."
    ),
]
Seeds = Annotated[
    int, typer.Option(metavar="N", min=1, help="Train and score every row with N seeds.")
]
Seed = Annotated[
    int | None,
    typer.Option(metavar="K", min=0, help="Only this one of the seeds, counted from 0."),
]
Jobs = Annotated[
    str | None,
    typer.Option(
        metavar="N|DEVICES", help="Rows and seeds at once: cuda:0,cuda:1, or so many on --device."
    ),
]
Proposals = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Fixed proposals on --data, for Fast R-CNN rows."),
]
Checkpoints = Annotated[
    list[str] | None,
    typer.Option("--checkpoint", metavar="ROW=FILE", help="Score this row's checkpoint."),
]
Results = Annotated[Path, typer.Option(help="Where records and reports go.")]
Work = Annotated[Path, typer.Option(help="Where data and checkpoints go.")]
Workers = Annotated[
    int | None, typer.Option(min=0, help="Threads that read images; else by the device.")
]
Part = Annotated[float | None, typer.Option("--part", hidden=True)]


def run(
    suites: Suites,
    only: Rows = None,
    measures: Measures = DEFAULT,
    resume: Resume = True,
    device: options.Device = "cpu",
    data: Data = None,
    train: Train = False,
    recipe: Recipes = None,
    seeds: Seeds = 1,
    seed: Seed = None,
    jobs: Jobs = None,
    workers: Workers = None,
    proposals: Proposals = None,
    checkpoint: Checkpoints = None,
    referee: options.Referee = False,
    results: Results = Path("results"),
    work: Work = Path("runs"),
    part: Part = None,
) -> None:
    """Measure the rows of suites: cost, latency and accuracy; store, then write the tables.

    `--data shapes` runs the small twin of a suite: the same rows on the tiny backbone, trained
    here on a generated set. What is stored is not measured again; rows may run at once.

    Example: sepcbench run quick
    Example: sepcbench run fusion --data shapes --seeds 3
    Example: sepcbench run components --measures cost --row sepc
    Example: sepcbench run components --train --data coco/ --jobs cuda:0,cuda:1
    """
    given = Given(
        tuple(only or ()), measures, resume, device, data, train, tuple(recipe or ()), seeds, jobs,
        workers, proposals, tuple(checkpoint or ()), referee, results, work, part is not None, seed,
    )  # fmt: skip
    chosen = [choose(name, given) for name in suites]
    if part is not None:
        run_parts.end_with_input()
        done = [run_suite(*one, run_parts.log(part)) for one in chosen]
    else:
        with _told_what_is_kept([results / suite.name for suite, _ in chosen]):
            done = [_run_one(*one) for one in chosen]
    if any(one.failures for one in done):
        raise typer.Exit(1)


@contextmanager
def _told_what_is_kept(folders: list[Path]) -> Iterator[None]:
    """On Ctrl-C say that records stay, if there are any."""
    try:
        yield
    except KeyboardInterrupt:
        if any(True for folder in folders for _ in folder.glob("*/records/*.json")):
            print("sepcbench: what was measured is kept", file=sys.stderr)
        raise


def _run_one(suite: Suite, choice: RunOptions) -> Run:
    from sepcbench.report.files import write_report
    from sepcbench.report.suite_tables import tables
    from sepcbench.results import assemble
    from sepcbench.runner.places import shared_files

    bar = partial(options.progress_bar, announce=True)
    done = run_suite(suite, choice, bar, None if sys.stderr.isatty() else run_parts.say)
    with shared_files(done.store.folder):
        results = assemble(suite, done.store)
        files = write_report(results, done.store.folder)
    options.emit("table", tables(results), None)
    for note in done.notes:
        print(f"sepcbench: {note}", file=sys.stderr)
    options.say_written(done.store.folder, files)
    return done
