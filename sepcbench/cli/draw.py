"""`sepcbench draw`: pictures of what a network does with an image."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sepcbench.cli import options
from sepcbench.cli.detection_pictures import make_folder
from sepcbench.cli.inspect import Conventions, Trust
from sepcbench.cli.network_pictures import (
    Made,
    Point,
    Scene,
    draw_fields,
    draw_offsets,
    draw_scores,
)
from sepcbench.errors import UsageError
from sepcbench.report.table import Table
from sepcbench.units import format_shape, parse_shape

if TYPE_CHECKING:
    from sepcbench.data.transforms import Prepared
    from sepcbench.detectors import Detector

PICTURES: dict[str, Callable[[Scene, Path], Made]] = {
    "offsets": draw_offsets,
    "receptive-field": draw_fields,
    "heatmaps": draw_scores,
}
_LARGEST = 512  # sides of a generated image, unless they are given
_MOST_POINTS, _SURE = 3, 0.3


def draw(
    network: Annotated[
        str, typer.Argument(metavar="VARIANT|CHECKPOINT", help="A name, or a file with weights.")
    ],
    what: Annotated[
        list[str] | None,
        typer.Option("--what", help="offsets, receptive-field or heatmaps; else all there are."),
    ] = None,
    image: Annotated[
        Path | None, typer.Option("--image", help="An image file; else a generated one.")
    ] = None,
    out: Annotated[Path, typer.Option("--out", help="Folder for the pictures.")] = Path("pictures"),
    at: Annotated[
        list[str] | None,
        typer.Option("--at", metavar="X,Y", help="Pixel to look at; else the best detections'."),
    ] = None,
    noise: Annotated[
        int,
        typer.Option(
            "--noise", help="Noise images for the receptive field; 0: the image itself.", min=0
        ),
    ] = 8,
    shape: Annotated[
        str | None,
        typer.Option("--shape", help="Size of noise and of a generated image, HEIGHTxWIDTH."),
    ] = None,
    variant: Annotated[
        str | None, typer.Option("--variant", help="Build this variant for the checkpoint.")
    ] = None,
    conventions: Conventions = None,
    sets: options.Set = None,
    seed: Annotated[int, typer.Option(help="Of generated images and random weights.")] = 0,
    trust: Trust = False,
    device: options.Device = "cpu",
    fmt: options.Format = "table",
) -> None:
    """Draw learnt offsets of deformable kernels, effective receptive fields, and score maps.

    Example: sepcbench draw runs/sepc/last.safetensors --image photo.jpg --out pictures/
    Example: sepcbench draw retinanet_tiny_sepc --what receptive-field --noise 4 --shape 256x256
    """
    options.check_format(fmt)
    options.check_device(device)
    wanted = [options.check_choice("picture", name, PICTURES) for name in dict.fromkeys(what or ())]
    places, size = [_point(text) for text in at or ()], _size(shape)
    detector, classes, weights = _detector(network, variant, conventions, sets, trust, seed)
    with options.progress_bar(f"draw {detector.spec.name}") as progress:
        scene = _scene(detector, classes, weights, image, places, noise, size, seed, device)
        with _folder(out):
            made, skipped = _draw(replace(scene, progress=progress), wanted, out)
    if weights.startswith("random"):
        print(
            "sepcbench: random weights: nothing has been learnt in these pictures", file=sys.stderr
        )
    value = {
        "variant": detector.spec.name,
        "weights": weights,
        "image": str(image) if image else None,
        "pictures": _values(made),
    }
    options.emit(fmt, [*(one.table for one in made.values()), _files(made, skipped)], value)


def _size(shape: str | None) -> tuple[int, int] | None:
    size = parse_shape(shape) if shape else None
    if size and min(size) < 32:
        raise UsageError(f"--shape {format_shape(size)} is too small; 32x32 is the least")
    return size


def _values(made: dict[str, Made]) -> dict[str, Any]:
    return {
        name: {"files": [str(path) for path in one.files], "values": one.values}
        for name, one in made.items()
    }


def _files(made: dict[str, Made], skipped: list[str]) -> Table:
    """Where every picture is, and below it what there is none of."""
    rows = tuple((name, str(path)) for name, one in made.items() for path in one.files)
    return Table("Pictures", ("picture", "file"), rows, tuple(skipped))


@contextmanager
def _folder(out: Path) -> Iterator[None]:
    """Make the folder before anything is computed; if nothing comes of it, it goes again."""
    there = out.is_dir()
    make_folder(out, "--out")
    try:
        yield
    finally:
        if not there and not any(out.iterdir()):
            out.rmdir()


def _draw(scene: Scene, wanted: list[str], out: Path) -> tuple[dict[str, Made], list[str]]:
    """The pictures asked for, or all that this network has something for, and what it has not."""
    made: dict[str, Made] = {}
    skipped: list[str] = []
    for name in wanted or PICTURES:
        try:
            made[name] = PICTURES[name](scene, out)
        except UsageError as error:
            if wanted:
                raise
            skipped.append(f"no {name}: {error}")
    return made, skipped


def _detector(
    network: str,
    variant: str | None,
    conventions: str | None,
    sets: list[str] | None,
    trust: bool,
    seed: int,
) -> tuple[Detector, tuple[str, ...], str]:
    """The detector in eval mode, its class names, and where its weights are from."""
    path = Path(network)
    if not path.is_file() and path.name == network and not path.suffix:
        if variant or conventions:
            raise UsageError("--variant and --conventions are for a checkpoint; use --set instead")
        spec = options.parse_variants([network], sets)[0]
        from sepcbench import detectors

        return detectors.build(spec, seed=seed).eval(), (), f"random weights of seed {seed}"
    from sepcbench.checkpoints import loading
    from sepcbench.checkpoints.matching import Wishes

    wishes = Wishes(variant, conventions, tuple(options.parse_sets(sets).items()))
    loaded = loading.load(path, wishes, trust)
    return loaded.detector, loaded.classes, f"weights of {path.parent.name}/{path.name}"


def _scene(
    detector: Detector,
    classes: tuple[str, ...],
    weights: str,
    path: Path | None,
    places: list[Point],
    noise: int,
    size: tuple[int, int] | None,
    seed: int,
    device: str,
) -> Scene:
    import torch

    from sepcbench.data.transforms import pad_stack

    pixels, prepared = _image(detector, path, size, seed)
    image = pad_stack([prepared.image], detector.spec.conventions.pad_divisor)
    points = tuple((x * prepared.scale[0], y * prepared.scale[1]) for x, y in places)
    chance = torch.Generator().manual_seed(seed)
    shape = size or (_LARGEST, _LARGEST)
    one = pad_stack([torch.zeros(3, *shape)], detector.spec.conventions.pad_divisor).shape
    return Scene(
        detector=detector,
        classes=classes,
        weights=weights,
        pixels=pixels,
        image=image,
        size=prepared.size,
        about=path.name if path else f"a generated image of {format_shape(prepared.size)}",
        points=points or _found_points(detector, image, prepared.size, device),
        noise=tuple(torch.randn(one, generator=chance) for _ in range(noise)),
        device=device,
        seed=seed,
    )


def _image(
    detector: Detector, path: Path | None, size: tuple[int, int] | None, seed: int
) -> tuple[Any, Prepared]:
    """The image's pixels, and what the network gets of them, not padded yet."""
    import numpy as np

    from sepcbench.data.drawing import draw as draw_shapes
    from sepcbench.data.transforms import prepare, read_rgb

    how = detector.spec.conventions
    if path is not None:
        pixels = read_rgb(path)
        return pixels, prepare(pixels, how)
    side = min(how.short_side, _LARGEST)
    chance = np.random.default_rng(seed)
    objects: list[Any] = []
    while not objects:  # some images of the generated set have none
        pixels, objects = draw_shapes(chance, size or (side, side))
    how = replace(how, short_side=min(pixels.shape[:2]), long_side=max(pixels.shape[:2]))
    return pixels, prepare(pixels, how)


def _found_points(
    detector: Detector, image: Any, size: tuple[int, int], device: str
) -> tuple[Point, ...]:
    """The centres of the best detections, apart from each other; else the image's centre."""
    found = detector.to(device).detect(image.to(device), [size])[0]
    order = found.scores.argsort(descending=True).tolist()
    points: list[Point] = []
    for i in order:
        if float(found.scores[i]) < _SURE or len(points) == _MOST_POINTS:
            break
        x1, y1, x2, y2 = found.boxes[i].tolist()
        point = ((x1 + x2) / 2, (y1 + y2) / 2)
        apart = 0.1 * max(size)
        if all(abs(point[0] - x) + abs(point[1] - y) > apart for x, y in points):
            points.append(point)
    return tuple(points) or ((size[1] / 2, size[0] / 2),)


def _point(text: str) -> Point:
    try:
        x, y = (float(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"--at '{text}' is not X,Y in pixels, such as 320,240") from None
    return x, y
