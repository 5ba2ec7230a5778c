"""A suite's report as files beside its records: Markdown, CSV, LaTeX, HTML and pictures."""

from __future__ import annotations

from pathlib import Path

from sepcbench.errors import StoreError
from sepcbench.records import Results
from sepcbench.report.html import html_page
from sepcbench.report.latex import latex
from sepcbench.report.plots import write_plots
from sepcbench.report.suite_tables import tables
from sepcbench.report.text import markdown, to_csv


def write_report(results: Results, folder: Path) -> list[Path]:
    """Write `table.md`, `table.csv`, `claims.csv`, `table.tex`, `page.html` and the plots.

    Returns:
        The files written.

    Raises:
        StoreError: the folder does not take them.
    """
    found = tables(results)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        pictures = write_plots(results, folder)
        text = "\n".join(markdown(table) for table in found)
        links = "\n".join(f"![{path.stem.replace('_', ' ')}]({path.name})" for path in pictures)
        head = f"{results.about.strip()}\n\n" if results.about.strip() else ""
        files = {"table.md": f"{head}{text}\n{links}\n"}
        files |= {name: to_csv(table) for name, table in zip(("table.csv", "claims.csv"), found)}
        files |= {"table.tex": latex(results), "page.html": html_page(results)}
        for name, body in files.items():
            (folder / name).write_text(body, encoding="utf-8")
    except OSError as error:
        raise StoreError(f"{folder}: the report cannot be written: {error.strerror}") from None
    return [*(folder / name for name in files), *pictures]
