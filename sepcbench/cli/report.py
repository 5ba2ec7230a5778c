"""`sepcbench report`: tables, plots and a page from stored records, without torch."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from sepcbench.cli import options
from sepcbench.codec import encode
from sepcbench.errors import UsageError
from sepcbench.records import Results
from sepcbench.report.cells import find_cell, find_row, row_cells
from sepcbench.report.columns import used_columns
from sepcbench.report.files import write_report
from sepcbench.report.plots import PAPER_FORMATS
from sepcbench.report.provenance import Provenance, provenance, provenance_tables
from sepcbench.report.suite_tables import tables
from sepcbench.results import assemble, kept_suite
from sepcbench.store import Store, result_folders
from sepcbench.suites import Suite, load, names

RESULTS, MERGED = Path("results"), Path("merged")


def report(
    what: Annotated[str, typer.Argument(metavar="SUITE|RESULTS", help="A suite, or a folder.")],
    results: Annotated[
        list[Path] | None,
        typer.Option(metavar="DIR", help="Where records are; several are joined into one table."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write files here, not beside the records or to merged."),
    ] = None,
    why: Annotated[
        str | None,
        typer.Option(
            metavar="ROW[.COLUMN]", help="Only say where this cell comes from; ROW: which it has."
        ),
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
    Example: sepcbench report quick --why sepc
    Example: sepcbench report quick --why sepc.latency_ratio
    Example: sepcbench report quick --plots svg,pdf
    Example: sepcbench report quick --results node1/results --results node2/results
    """
    options.check_format(fmt)
    plot_formats = _plot_formats(plots)
    roots = results or [RESULTS]
    if len(roots) > 1:
        found = _merged(what, roots, out or MERGED)
    else:
        found = find_results(what, roots[0])
    if why is not None:
        _explain(why, found, fmt)
        return
    for one, folder in found:
        beside = out is None or len(roots) > 1
        _write(one, folder if beside else out / one.suite / folder.name, plot_formats)  # type: ignore[operator]
    shown = [table for one, _ in found for table in tables(one)]
    options.emit(fmt, shown, [encode(one) for one, _ in found])
    if fmt == "table":
        _say_why(what, roots, found[0][0])


def _say_why(what: str, roots: Sequence[Path], one: Results) -> None:
    """How to ask for a cell of what was just printed."""
    where = "".join(f" --results {root}" for root in roots if roots != [RESULTS])
    row, columns = one.rows[-1].name, used_columns(one)
    if columns:
        ask = f"sepcbench report {what}{where} --why"
        print(
            f"sepcbench: where a cell comes from: {ask} {row}.{columns[-1]}; "
            f"which cells a row has: {ask} {row}",
            file=sys.stderr,
        )


def _write(one: Results, target: Path, plot_formats: tuple[str, ...]) -> None:
    from sepcbench.runner.places import shared_files

    with shared_files(target):
        files = write_report(one, target, plot_formats)
    options.say_written(target, files)


def _plot_formats(text: str | None) -> tuple[str, ...]:
    names = [name.strip().lower() for name in text.split(",")] if text is not None else []
    return tuple(options.check_choice("plot format", name, PAPER_FORMATS) for name in names)


def _explain(cell: str, found: list[tuple[Results, Path]], fmt: str) -> None:
    """Print the provenance of a cell, or the cells of a row, once for every machine that has it."""
    rows = [(one, row) for one, _ in found if (row := find_row(one, cell)) is not None]
    if rows:
        listed = [row_cells(one, row) for one, row in rows]
        data = [dict(zip(table.headers, line)) for table in listed for line in table.rows]
        options.emit(fmt, listed, data)
        return
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
    suite, folders = _find_suite(what, [root])
    return [(assemble(suite or kept_suite(Store(path)), Store(path)), path) for path in folders]


def _find_suite(what: str, roots: Sequence[Path]) -> tuple[Suite | None, list[Path]]:
    """A suite by name or file, or by the name that its results have, and its folders.

    The suite is None where it is to be read from the folders, such as that of a twin.
    """
    suite, name = None, what
    try:
        suite = load(what)
        name = suite.name
    except UsageError as error:
        if not any(result_folders(root, what) for root in roots):
            raise _no_twin(what, roots) or error from None
    folders = [folder for root in roots for folder in result_folders(root, name)]
    if not folders:
        places = ", ".join(f"'{root}'" for root in roots)
        raise UsageError(f"suite '{name}' has no results under {places}; run it first")
    return suite, folders


def _no_twin(what: str, roots: Sequence[Path]) -> UsageError | None:
    """What to say of a twin that was not run."""
    base = what.removesuffix("_twin")
    if base == what or base not in names():
        return None
    return UsageError(
        f"suite '{what}' has no results under '{roots[0]}'; run it first: "
        f"sepcbench run {base} --data shapes"
    )


def _say_empty(name: str, roots: Sequence[Path]) -> None:
    """One line on stderr for every place that adds nothing."""
    for root in roots:
        if not result_folders(root, name):
            why = f"has nothing of suite '{name}'" if root.is_dir() else "is no folder"
            print(f"sepcbench: warning: --results '{root}' {why}", file=sys.stderr)


def _merged(what: str, roots: Sequence[Path], out: Path) -> list[tuple[Results, Path]]:
    """One table of the results of a suite under several folders, kept as a folder of its own."""
    from sepcbench.merging import merge

    suite, folders = _find_suite(what, roots)
    _say_empty(suite.name if suite else what, roots)
    found, store = merge(suite, folders, out)
    if store.folder.resolve() in [folder.resolve() for folder in folders]:
        raise UsageError(f"'{out}' holds what is to be merged; choose another --out")
    store.write_all(suite or kept_suite(Store(folders[0])))
    return [(found, store.folder)]
