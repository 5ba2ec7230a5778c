"""`sepcbench report`: tables and plots from stored records, without torch."""

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
    fmt: options.Format = "table",
) -> None:
    """Draw tables and plots from stored records: of a suite by name, or of a results folder.

    Example: sepcbench report quick
    Example: sepcbench report results/appendix1 --format md
    """
    options.check_format(fmt)
    found = _find(what, results)
    for one, folder in found:
        target = folder if out is None else out / one.suite / folder.name
        files = write_report(one, target)
        print(f"sepcbench: wrote {', '.join(str(file) for file in files)}", file=sys.stderr)
    shown = [table for one, _ in found for table in tables(one)]
    options.emit(fmt, shown, [encode(one) for one, _ in found])


def _find(what: str, root: Path) -> list[tuple[Results, Path]]:
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
