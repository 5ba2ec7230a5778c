"""`sepcbench data`: making data sets."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sepcbench.cli import options
from sepcbench.units import parse_shape

data_app = typer.Typer(help="Make a data set.", no_args_is_help=True)


@data_app.callback()
def _group() -> None:
    pass


@data_app.command("shapes")
def shapes(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where to write it.")],
    images: Annotated[int, typer.Option(help="Training images.", min=1)] = 300,
    val_images: Annotated[int, typer.Option(help="Validation images.", min=1)] = 100,
    seed: Annotated[int, typer.Option(help="Of everything random.", min=0)] = 0,
    size: Annotated[str, typer.Option(help="Image size, HEIGHTxWIDTH in pixels.")] = "128x128",
) -> None:
    """Make a COCO-format set of coloured shapes over textured backgrounds.

    Example: sepcbench data shapes shapes/
    Example: sepcbench data shapes shapes/ --images 1000 --val-images 200 --seed 1 --size 256x256
    """
    pixels = parse_shape(size)
    from sepcbench.data.shapes import generate

    with options.progress_bar("shapes") as progress:
        generate(
            folder,
            images=images,
            val_images=val_images,
            seed=seed,
            size=pixels,
            progress=progress,
        )
    typer.echo(f"{images} training and {val_images} validation images in {folder}")
