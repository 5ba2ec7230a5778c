"""`sepcbench invariance`: does shrinking an image by two shift a neck's output by one level?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sepcbench.cli import options
from sepcbench.cli.inspect import Trust
from sepcbench.codec import encode
from sepcbench.errors import UsageError
from sepcbench.report.table import Table
from sepcbench.units import format_shape, parse_shape
from sepcbench.variants import DETECTORS, parts_of

if TYPE_CHECKING:
    from sepcbench.detectors import Detector
    from sepcbench.measures.agreement import Agreement
    from sepcbench.measures.invariance import Invariance

HEADERS = ("levels", "cells", "before corr.", "before err.")
PCONV_HEADERS = ("plain corr.", "plain err.", "after corr.", "after err.", "ends")
LEVELS = "levels: of the whole image and of its half-size version, at the same places"
NUMBERS = (
    "err.: |a - b| relative to the spread of both, 0 for equal maps, 1.41 for unrelated ones; "
    "corr.: Pearson's; both over channels and cells"
)
PCONV_NOTES = (
    LEVELS,
    "before: maps that go into the PConvs; plain: what they give without deforming; after: as is, "
    "both branches together",
    NUMBERS,
    "ends: reached where kernels across scales meet the first or the last level of a pyramid, "
    "which has no further neighbour",
)


def invariance(
    variant: Annotated[str, typer.Argument(help="See `sepcbench list variants`.")],
    checkpoint: Annotated[
        Path | None, typer.Option("--checkpoint", help="Weights of the variant; else random.")
    ] = None,
    image: Annotated[
        Path | None, typer.Option("--image", help="An image file; else a generated one.")
    ] = None,
    shape: Annotated[
        str | None,
        typer.Option("--shape", help="Size of the generated image, HEIGHTxWIDTH in pixels."),
    ] = None,
    gaussian: Annotated[
        bool,
        typer.Option("--gaussian", help="Put a Gaussian pyramid in place of backbone and FPN."),
    ] = False,
    border: Annotated[int, typer.Option(help="Cells left out at each side.", min=0)] = 2,
    seed: Annotated[int, typer.Option(help="Of the generated image and random weights.")] = 0,
    plot: Annotated[
        Path | None, typer.Option("--plot", help="Draw the levels' correlations into a PNG file.")
    ] = None,
    sets: options.Set = None,
    trust: Trust = False,
    device: options.Device = "cpu",
    fmt: options.Format = "table",
) -> None:
    """Compare the neck's levels of an image with the finer ones of its half-size version.

    Example: sepcbench invariance retinanet_tiny_sepc --checkpoint runs/sepc/last.safetensors
    Example: sepcbench invariance retinanet_tiny_pconv --gaussian --plot levels.png
    """
    options.check_format(fmt)
    options.check_device(device)
    (spec,) = options.parse_variants([variant], sets)
    if len(spec.levels) == 1 and not gaussian:
        raise UsageError(
            f"variant '{variant}' has one level, P{spec.levels[0]}, and no finer one to compare it "
            f"with; try '{_with_pconvs(variant)}'"
        )
    size = _generated_size(image, shape, gaussian)
    if plot is not None and not plot.resolve().parent.is_dir():
        raise UsageError(f"--plot '{plot}': there is no such folder")
    from sepcbench.measures import invariance as measures
    from sepcbench.necks.lengthening import lengthened

    detector = _detector(variant, checkpoint, sets, trust, seed)
    pixels = _image(detector, image, size, seed, gaussian)
    with options.progress_bar(f"invariance {variant}", announce=True):
        if gaussian:
            drawn = seed if checkpoint is None else None
            found = measures.on_gaussian(
                detector, pixels, lengthened, seed=drawn, device=device, border=border
            )
        else:
            found = measures.on_network(detector, pixels, device=device, border=border)
    about = _about(found, checkpoint, image)
    if plot is not None:
        from sepcbench.report.invariance_plot import write_matrices

        matrices = [(matrix.name, matrix.levels, matrix.values) for matrix in found.matrices]
        write_matrices(plot, f"{variant}: correlation between levels\n{about}", matrices)
    value = {"checkpoint": checkpoint and str(checkpoint), "image": image and str(image)}
    told = table if any(pair.after for pair in found.pairs) else plain_table
    options.emit(fmt, [told(found, about)], {**encode(found), **value})


def _with_pconvs(name: str) -> str:
    """The variant with the same detector and backbone, where there is one, and PConvs."""
    detector, backbone, _ = parts_of(name) or ("retinanet", "r50", "fpn")
    necks = DETECTORS[detector].necks
    return f"{detector}_{backbone}_{'sepc' if 'sepc' in necks else 'pconv'}"


def plain_table(found: Invariance, about: str) -> Table:
    """One row per pair of levels of a variant without PConvs: there is nothing after them."""
    rows = tuple(
        (f"P{pair.level} / P{pair.level - 1}", format_shape(pair.cells), *_cells(pair.before))
        for pair in found.pairs
    )
    why = (
        "no PConvs, so only what the necks give is compared; "
        f"to see what PConvs change, try '{_with_pconvs(found.variant)}'"
    )
    return Table(_title(found), HEADERS, rows, (about, why, LEVELS, NUMBERS))


def _title(found: Invariance) -> str:
    return f"{found.variant}: agreement of an image's levels with its half-size version's"


def table(found: Invariance, about: str) -> Table:
    """One row per pair of levels, and the two shares below."""
    shares = (
        ("of the error before the PConvs, they remove", found.removed),
        ("of the error of plain PConvs, deforming removes", found.repaired),
    )
    lines = [f"{what} {100 * share:.1f} %" for what, share in shares if share is not None]
    rows = tuple(
        (
            f"P{pair.level} / P{pair.level - 1}",
            format_shape(pair.cells),
            *_cells(pair.before),
            *_cells(pair.plain),
            *_cells(pair.after),
            "" if pair.after is None else "out of reach" if pair.inside else "reached",
        )
        for pair in found.pairs
    )
    headers = (*HEADERS, *PCONV_HEADERS)
    return Table(_title(found), headers, rows, (about, *lines, *PCONV_NOTES))


def _cells(agreement: Agreement | None) -> tuple[str, str]:
    if agreement is None:
        return "-", "-"
    correlation, error = agreement.correlation, agreement.error
    return (
        "-" if correlation is None else f"{correlation:.4f}",
        "-" if error is None else f"{error:.4f}" if error > 1e-3 or not error else f"{error:.1e}",
    )


def _about(found: Invariance, checkpoint: Path | None, image: Path | None) -> str:
    pyramid = "Gaussian pyramid" if found.source == "gaussian" else "backbone and fusing necks"
    weights = f"weights of {checkpoint.name}" if checkpoint else "random weights"
    source = image.name if image else "generated image"
    return f"{pyramid}, {weights}, {source} of {format_shape(found.shape)}"


def _generated_size(
    image: Path | None, shape: str | None, gaussian: bool
) -> tuple[int, int] | None:
    if image is not None:
        if shape is not None:
            raise UsageError("--shape is for the generated image; leave it out with --image")
        return None
    size = parse_shape(shape or ("256x256" if gaussian else "512x512"))
    if min(size) < 64:
        raise UsageError(f"--shape {format_shape(size)} is too small to halve; 64x64 is the least")
    return size


def _detector(
    name: str, checkpoint: Path | None, sets: list[str] | None, trust: bool, seed: int
) -> Detector:
    if checkpoint is None:
        from sepcbench import detectors

        return detectors.build(options.parse_variants([name], sets)[0], seed=seed)
    from sepcbench.checkpoints import loading
    from sepcbench.checkpoints.matching import Wishes

    overrides = tuple(options.parse_sets(sets).items())
    return loading.load(checkpoint, Wishes(name, None, overrides), trust).detector


def _image(
    detector: Detector, path: Path | None, size: tuple[int, int] | None, seed: int, gaussian: bool
) -> Any:
    """The image as the variant's conventions say, padded so that its half is padded right, too."""
    from dataclasses import replace

    import numpy as np

    from sepcbench.data.drawing import draw
    from sepcbench.data.transforms import pad_stack, prepare, read_rgb

    how = detector.spec.conventions
    if path is not None:
        pixels = read_rgb(path)
    else:
        assert size is not None
        pixels, _ = draw(np.random.default_rng(seed), size)
        how = replace(how, short_side=min(size), long_side=max(size))
    divisor = 1 if gaussian else 2 * how.pad_divisor
    return pad_stack([prepare(pixels, how).image], divisor)
