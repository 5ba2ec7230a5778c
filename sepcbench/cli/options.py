"""Options that several commands share, and reading their values."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any

import typer

from sepcbench.errors import UsageError, unknown
from sepcbench.report.table import Table
from sepcbench.specs import VariantSpec
from sepcbench.suites import names as suite_names
from sepcbench.variants import VARIANTS, variant

Progress = Callable[[int, int, str], None]
FORMATS = ("table", "json", "csv", "md")

Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="FIELD=VALUE", help="Override a field of every variant."),
]
Format = Annotated[str, typer.Option("--format", help="table, json, csv or md.")]
Device = Annotated[str, typer.Option("--device", help="cpu, cuda or cuda:INDEX.")]
Referee = Annotated[
    bool, typer.Option("--referee", help="Score with pycocotools too; a difference is a failure.")
]
Shape = Annotated[str, typer.Option("--shape", help="Input size, HEIGHTxWIDTH in pixels.")]


def complete_variant(incomplete: str) -> list[str]:
    """Names of variants that start so, for the shell."""
    return [name for name in VARIANTS if name.startswith(incomplete)]


def complete_suite(incomplete: str) -> list[str]:
    """Names of suites that start so, for the shell."""
    return [name for name in suite_names() if name.startswith(incomplete)]


def parse_pairs(option: str, form: str, given: Iterable[str] | None) -> dict[str, str]:
    """Read options written as NAME=VALUE.

    Raises:
        UsageError: one has no "=" or no name.
    """
    found: dict[str, str] = {}
    for text in given or ():
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            raise UsageError(f"{option} '{text}' is not {form}")
        found[name.strip()] = value.strip()
    return found


def parse_sets(sets: Iterable[str] | None) -> dict[str, Any]:
    """Read `--set field=value` options as a mapping."""
    return dict(parse_pairs("--set", "FIELD=VALUE, such as necks.1.depth=6", sets))


def parse_variants(names: Iterable[str], sets: Iterable[str] | None) -> list[VariantSpec]:
    """Find variants by name and apply the `--set` options to each."""
    overrides = parse_sets(sets)
    return [variant(name, overrides) for name in names]


def check_choice(kind: str, value: str, known: Iterable[str]) -> str:
    """Check that a value is one of the known ones.

    Raises:
        UsageError: it is not; the line names the nearest.
    """
    names = list(known)
    if value not in names:
        raise unknown(kind, value, names)
    return value


def check_format(value: str) -> str:
    """Check `--format`."""
    return check_choice("format", value, FORMATS)


def check_device(value: str) -> str:
    """Check that a device is written right and is there. Imports torch only for CUDA.

    Raises:
        UsageError: another kind of device, or no such GPU on this machine.
    """
    kind, _, index = value.partition(":")
    if kind not in ("cpu", "cuda") or (index and not index.isdigit()) or (kind == "cpu" and index):
        raise unknown("device", value, ["cpu", "cuda", "cuda:0"])
    if kind == "cuda":
        import torch

        count = torch.cuda.device_count()
        if count == 0:
            raise UsageError(f"device '{value}': this machine has no CUDA device; use --device cpu")
        if index and int(index) >= count:
            raise UsageError(f"device '{value}': this machine has only cuda:0 to cuda:{count - 1}")
    return value


def print_json(value: Any) -> None:
    """Write JSON on stdout and nothing else."""
    json.dump(value, sys.stdout, indent=2, allow_nan=False)
    sys.stdout.write("\n")


def emit(fmt: str, tables: Sequence[Table], json_value: Any) -> None:
    """Write a command's result on stdout in the format asked for."""
    from sepcbench.report import terminal, text

    if fmt == "json":
        print_json(json_value)
    for table in tables if fmt != "json" else ():
        if fmt == "md":
            sys.stdout.write(text.markdown(table) + "\n")
        elif fmt == "csv":
            sys.stdout.write(text.to_csv(table))
        else:
            terminal.print_table(table)


def say_written(folder: Path, files: Iterable[Path]) -> None:
    """Say on stderr which files of a folder were written."""
    names = ", ".join(str(file.relative_to(folder)) for file in files)
    print(f"sepcbench: wrote to {folder}: {names}", file=sys.stderr)


@contextmanager
def progress_bar(title: str, announce: bool = False, every_s: float = 60.0) -> Iterator[Progress]:
    """Show a progress bar on stderr; yields a function of (done, total, label).

    Where stderr is no terminal there is no bar; `announce` prints the title there instead, and
    every so many seconds a line on how far it is.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[label]}"),
    )
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _lines(title, every_s) if announce else _nothing
        return
    with Bar(*columns, console=console, transient=True) as bar:
        task = bar.add_task(title, total=None, label="")

        def show(done: int, total: int, label: str = "") -> None:
            bar.update(task, completed=done, total=total, label=label)

        yield show


def _nothing(done: int, total: int, label: str = "") -> None:
    """Progress where no one looks."""


def _lines(title: str, every_s: float) -> Progress:
    """Progress as lines of a log."""
    last = time.monotonic()
    _log(f"{title} ...")

    def show(done: int, total: int, label: str = "") -> None:
        nonlocal last
        if time.monotonic() - last >= every_s:
            last = time.monotonic()
            _log(f"{title}: {done} of {total}{', ' if label else ''}{label}")

    return show


def _log(line: str) -> None:
    with suppress(BrokenPipeError):  # a measurement does not fail because no one reads the log
        print(line, file=sys.stderr, flush=True)
