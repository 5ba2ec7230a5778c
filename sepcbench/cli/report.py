"""`sepcbench report`: tables, plots and a page from stored records, without torch."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from sepcbench.cli import options
from sepcbench.codec import encode
from sepcbench.errors import UsageError
from sepcbench.records import Results
from sepcbench.report.files import write_report
from sepcbench.report.plots import PAPER_FORMATS
from sepcbench.report.provenance import Provenance, find_cell, provenance, provenance_tables
from sepcbench.report.suite_tables import tables
from sepcbench.results import assemble, kept_suite
from sepcbench.store import Store, result_folders
from sepcbench.suites import load


def report(
    what: Annotated[str, typer.Argument(metavar="SUITE|RESULTS", help="A suite, or a folder.")],
    results: Annotated[Path, typer.Option(help="Where records are.")] = Path("results"),
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write files here instead of beside them.")
    ] = None,
    why: Annotated[
        str | None,
        typer.Option(metavar="ROW.COLUMN", help="Only say where this cell comes from."),
    ] = None,
    plots: Annotated[
        str | None,
        typer.Option(metavar="svg,pdf", help="Write plots in these formats too, for papers."),
    ] = None,
    fmt: options.Format = "table",
) -> None:
    """Draw tables, plots and a page from stored records: of a suite, or of a results folder.

    Example: sepcbench report quick
    Example: sepcbench report results/appendix1 --format md
    Example: sepcbench report quick --why sepc.latency_ratio
    Example: sepcbench report quick --plots svg,pdf
    """
    options.check_format(fmt)
    plot_formats = _plot_formats(plots)
    found = find_results(what, results)
    if why is not None:
        _explain(why, found, fmt)
        return
    for one, folder in found:
        target = folder if out is None else out / one.suite / folder.name
        files = write_report(one, target, plot_formats)
        print(f"sepcbench: wrote {', '.join(str(file) for file in files)}", file=sys.stderr)
    shown = [table for one, _ in found for table in tables(one)]
    options.emit(fmt, shown, [encode(one) for one, _ in found])


def _plot_formats(text: str | None) -> tuple[str, ...]:
    names = [name.strip().lower() for name in text.split(",")] if text is not None else []
    return tuple(options.check_choice("plot format", name, PAPER_FORMATS) for name in names)


def _explain(cell: str, found: list[tuple[Results, Path]], fmt: str) -> None:
    """Print the provenance of a cell, once for every machine that has it."""
    cells: list[tuple[Provenance, Path]] = []
    missing: list[UsageError] = []
    for one, folder in found:
        try:
            row, column = find_cell(one, cell)
        except UsageError as error:
            missing.append(error)
        else:
            cells.append((provenance(one, row, column), folder))
    if not cells:
        raise missing[0]
    shown = [table for one, folder in cells for table in provenance_tables(one, str(folder))]
    options.emit(fmt, shown, [{"folder": str(folder), **encode(one)} for one, folder in cells])


def find_results(what: str, root: Path) -> list[tuple[Results, Path]]:
    """The results that are meant, with the folder of each."""
    folder = Path(what)
    if folder.is_dir() and folder.suffix != ".toml":
        folders = (
            [folder]
            if (folder / "suite.json").is_file()
            else sorted(path.parent for path in folder.rglob("suite.json"))
        )
        if not folders:
            raise UsageError(f"'{what}' holds no results; run a suite first: sepcbench run quick")
        return [(assemble(kept_suite(Store(path)), Store(path)), path) for path in folders]
    suite = load(what)
    folders = result_folders(root, suite.name)
    if not folders:
        raise UsageError(f"suite '{suite.name}' has no results under '{root}'; run it first")
    return [(assemble(suite, Store(path)), path) for path in folders]
