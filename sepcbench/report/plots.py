"""Plots of a suite's results, from records alone: one line in `PLOTS` each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from sepcbench.records import Results
from sepcbench.report.bands_plot import bands_plot
from sepcbench.report.cost_plot import cost_plot
from sepcbench.report.engines_plot import engines_plot
from sepcbench.report.figures import FORMATS, STYLE, Sheet, heading, save
from sepcbench.report.latency_plot import latency_plot
from sepcbench.report.loss_plot import loss_plot
from sepcbench.report.parts_plot import parts_plot
from sepcbench.report.price_plot import price_plot
from sepcbench.report.seeds import seeds_plot
from sepcbench.report.size_plot import size_plot

# A plot draws results under a title, or gives None where records give nothing for it.
Plot = Callable[[Results, str], Sheet | None]
PLOTS: dict[str, Plot] = {
    "macs": cost_plot,
    "latency": latency_plot,
    "latency_by_part": parts_plot,
    "latency_by_engine": engines_plot,
    "ap_over_macs": partial(price_plot, quality="ap", price="macs"),
    "ap_over_latency": partial(price_plot, quality="ap", price="latency"),
    "mask_ap_over_macs": partial(price_plot, quality="mask_ap", price="macs"),
    "mask_ap_over_latency": partial(price_plot, quality="mask_ap", price="latency"),
    "ar_over_macs": partial(price_plot, quality="ar", price="macs"),
    "ar_over_latency": partial(price_plot, quality="ar", price="latency"),
    "ap_by_size": partial(size_plot, quality="ap"),
    "mask_ap_by_size": partial(size_plot, quality="mask_ap"),
    "ar_by_size": partial(size_plot, quality="ar"),
    "ap_by_finer_size": bands_plot,
    "ap_over_seeds": partial(seeds_plot, kind="accuracy"),
    "mask_ap_over_seeds": partial(seeds_plot, kind="masks"),
    "ar_over_seeds": partial(seeds_plot, kind="recall"),
    "losses": loss_plot,
}
# For papers, besides PNG: without a heading, since there the caption says what it says.
PAPER_FORMATS = FORMATS[1:]


def write_plots(results: Results, folder: Path, formats: Sequence[str] = ()) -> list[Path]:
    """Draw every plot that the records give something for.

    The same records and versions give the same files, byte for byte.

    Args:
        results: what to draw.
        folder: where to write; it must be there.
        formats: of `PAPER_FORMATS`, to write besides PNG.

    Returns:
        The files written, plot by plot.
    """
    from matplotlib import style

    title = heading(results)
    written: list[Path] = []
    with style.context(["default", STYLE]):
        for name, draw in PLOTS.items():
            made = draw(results, title)
            if made is None:
                continue
            written.append(save(made, folder / f"{name}.png", title))
            bare = draw(results, "") if formats else None
            if bare is not None:
                written += [save(bare, folder / f"{name}.{form}", title) for form in formats]
    return written
