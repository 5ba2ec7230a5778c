"""`sepcbench run`: measure suites and write their tables."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Annotated, get_args

import typer

from sepcbench.cli import options
from sepcbench.runner import Run, RunOptions, run_suite
from sepcbench.specs import MeasureName
from sepcbench.suites import Suite, load, twin

DEFAULT = "suite's"
SHAPES = "shapes"  # as --data: the generated set; a folder of that name is ./shapes


def run(
    suites: Annotated[
        list[str],
        typer.Argument(
            metavar="SUITE...",
            help="Names or TOML files.",
            autocompletion=options.complete_suite,
        ),
    ],
    only: Annotated[
        list[str] | None, typer.Option("--only", metavar="ROW", help="Run only this row.")
    ] = None,
    measures: Annotated[
        str, typer.Option(help="Some of cost,latency,accuracy; or what the suite says.")
    ] = DEFAULT,
    resume: Annotated[
        bool, typer.Option("--resume/--fresh", help="Keep what is measured, or measure all again.")
    ] = True,
    device: options.Device = "cpu",
    data: Annotated[
        str | None,
        typer.Option(
            metavar="DIR|shapes",
            help="COCO-format data to score on; or train each suite's small twin on shapes.",
        ),
    ] = None,
    proposals: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Fixed proposals on --data, for Fast R-CNN rows."),
    ] = None,
    checkpoint: Annotated[
        list[str] | None,
        typer.Option("--checkpoint", metavar="ROW=FILE", help="Score this row's checkpoint."),
    ] = None,
    referee: options.Referee = False,
    results: Annotated[Path, typer.Option(help="Where records and reports go.")] = Path("results"),
    work: Annotated[Path, typer.Option(help="Where data and checkpoints go.")] = Path("runs"),
) -> None:
    """Measure the rows of suites: cost, latency and accuracy; store, then write the tables.

    `--data shapes` runs the small twin of a suite: the same rows on the tiny backbone, trained
    here on a generated set.

    Example: sepcbench run quick
    Example: sepcbench run fusion --data shapes
    Example: sepcbench run components --measures cost --only sepc
    """
    loaded = [load(name) for name in suites]
    if data == SHAPES:
        loaded, data = [twin(suite) for suite in loaded], None
    choice = RunOptions(
        measures=_measures(measures),
        only=tuple(only or ()),
        fresh=not resume,
        device=options.check_device(device),
        data=Path(data) if data is not None else None,
        proposals=proposals,
        checkpoints=_checkpoints(checkpoint),
        referee=referee,
        results=results,
        work=work,
    )
    runs = [_run_one(suite, choice) for suite in loaded]
    if any(one.failures for one in runs):
        raise typer.Exit(1)


def _measures(text: str) -> tuple[MeasureName, ...]:
    if text == DEFAULT:
        return ()
    names = [name.strip() for name in text.split(",")]
    known = get_args(MeasureName)
    return tuple(options.check_choice("measure", name, known) for name in names)  # type: ignore[misc]


def _checkpoints(given: list[str] | None) -> dict[str, Path]:
    pairs = options.parse_pairs("--checkpoint", "ROW=FILE", given)
    return {row: Path(file) for row, file in pairs.items()}


def _run_one(suite: Suite, choice: RunOptions) -> Run:
    from sepcbench.report.files import write_report
    from sepcbench.report.suite_tables import tables
    from sepcbench.results import assemble

    done = run_suite(suite, choice, partial(options.progress_bar, announce=True))
    results = assemble(suite, done.store)
    files = write_report(results, done.store.folder)
    options.emit("table", tables(results), None)
    for note in done.notes:
        print(f"sepcbench: {note}", file=sys.stderr)
    print(f"sepcbench: wrote {', '.join(str(file) for file in files)}", file=sys.stderr)
    return done
