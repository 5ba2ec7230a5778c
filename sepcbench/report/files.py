"""A suite's report as files beside its records: Markdown, CSV, LaTeX, HTML and pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sepcbench.errors import StoreError
from sepcbench.records import Results
from sepcbench.report.flat_rows import records_json
from sepcbench.report.html import html_page
from sepcbench.report.latex import latex
from sepcbench.report.plots import write_plots
from sepcbench.report.suite_tables import claim_table, row_table, tables
from sepcbench.report.text import markdown, to_csv
from sepcbench.whole_files import write_whole


def write_report(results: Results, folder: Path, plot_formats: Sequence[str] = ()) -> list[Path]:
    """Write tables, `page.html`, `records.json` and the plots.

    The tables are `table.md`, `table.csv`, `claims.csv` and `table.tex`. Plots are written as
    PNG, and in `plot_formats` (of `plots.PAPER_FORMATS`) besides.

    Returns:
        The files written.

    Raises:
        StoreError: the folder does not take them.
    """
    found = tables(results)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        pictures = write_plots(results, folder, plot_formats)
        text = "\n".join(markdown(table) for table in found)
        links = "\n".join(
            f"![{path.stem.replace('_', ' ')}]({path.name})"
            for path in pictures
            if path.suffix == ".png"
        )
        head = f"{results.about.strip()}\n\n" if results.about.strip() else ""
        files = {"table.md": f"{head}{text}\n{links}\n"}
        files |= {"table.csv": to_csv(row_table(results))}
        files |= {"claims.csv": to_csv(claim_table(results))} if results.claims else {}
        files |= {"table.tex": latex(results), "page.html": html_page(results)}
        files |= {"records.json": records_json(results)}
        for name, body in files.items():
            write_whole(folder / name, body)
    except OSError as error:
        raise StoreError(
            f"{folder}: the report cannot be written: {error.strerror or error}"
        ) from None
    return [*(folder / name for name in files), *pictures]
