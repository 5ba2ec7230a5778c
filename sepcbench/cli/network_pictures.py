"""From what is measured inside a network to its pictures, tables and values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from sepcbench.report.table import Table

if TYPE_CHECKING:
    from sepcbench.detectors import Detector
    from sepcbench.measures.offsets import KernelOffsets
    from sepcbench.measures.receptive_field import ReceptiveField
    from sepcbench.measures.score_maps import ScoreMap
    from sepcbench.report.drawings import Picture

Point = tuple[float, float]
_MOST_CLASSES = 3


@dataclass(frozen=True, eq=False)
class Scene:
    """What pictures are made of.

    Attributes:
        detector: the network.
        classes: its class names; empty if not known.
        weights: in words, where its weights are from.
        pixels: (H, W, 3) uint8, the image as its file has it.
        image: (1, 3, h, w), normalised and padded.
        size: (h, w) of the image without padding, in pixels of the network.
        about: the image, in words.
        points: (x, y) in pixels of the network, to look at.
        noise: (1, 3, h, w) each, for receptive fields; empty to take the image itself.
        device: where to run.
        seed: of what is drawn by chance.
        progress: called with (done, total, label).
    """

    detector: Detector
    classes: tuple[str, ...]
    weights: str
    pixels: Any
    image: Any
    size: tuple[int, int]
    about: str
    points: tuple[Point, ...]
    noise: tuple[Any, ...]
    device: str
    seed: int
    progress: Callable[[int, int, str], None] | None = None

    def title(self, what: str) -> str:
        """The line above a picture."""
        return f"{self.detector.spec.name}, {self.weights}: {what}"

    @property
    def picture(self) -> Picture:
        """The image as drawings take it."""
        from sepcbench.report.drawings import Picture

        return Picture(self.pixels, self.size)


class Made(NamedTuple):
    """The files written, their numbers as a table, and as values."""

    files: list[Path]
    table: Table
    values: list[dict[str, Any]]


def draw_offsets(scene: Scene, folder: Path) -> Made:
    """One picture per layer: its kernels across, the levels they work for downwards."""
    from sepcbench.measures.offsets import kernel_offsets
    from sepcbench.report.drawings import Panel, Taps, write_taps

    found = kernel_offsets(scene.detector, scene.image, device=scene.device)
    files = []
    for number, layer in enumerate(dict.fromkeys(entry.layer for entry in found), start=1):
        panels = [
            (
                Panel(
                    f"P{entry.level}",
                    entry.kernel,
                    f"reads P{entry.reads}, moved by {entry.length:.1f} cells",
                ),
                [Taps(point, *entry.at(point)) for point in scene.points],
            )
            for entry in found
            if entry.layer == layer
        ]
        files.append(folder / f"offsets_{number}_{layer.lower().replace(' ', '_')}.png")
        what = f"where the kernels of {layer} read\n{scene.about}; hollow: plain taps, filled: "
        what += "moved by the offsets, of the cells at the crosses; above: mean over all cells"
        write_taps(files[-1], scene.title(what), scene.picture, panels)
    return Made(files, _offset_table(scene, found), [_offset_value(entry) for entry in found])


def _offset_table(scene: Scene, found: Sequence[KernelOffsets]) -> Table:
    levels = sorted({entry.level for entry in found})
    cells = {(entry.layer, entry.kernel, entry.level): f"{entry.length:.3f}" for entry in found}
    rows = tuple(
        (layer, kernel, *(cells.get((layer, kernel, level), "-") for level in levels))
        for layer, kernel in dict.fromkeys((entry.layer, entry.kernel) for entry in found)
    )
    return Table(
        f"{scene.detector.spec.name}: mean length of the offsets of deformable kernels",
        ("layer", "kernel", *(f"P{level}" for level in levels)),
        rows,
        (f"in cells of the map that is read; {scene.weights}, {scene.about}",),
    )


def _offset_value(entry: KernelOffsets) -> dict[str, Any]:
    return {
        "layer": entry.layer,
        "kernel": entry.kernel,
        "level": entry.level,
        "reads": entry.reads,
        "mean_cells": entry.length,
    }


def draw_fields(scene: Scene, folder: Path) -> Made:
    """One picture: the levels across, the stages of the network downwards."""
    from sepcbench.measures.receptive_field import receptive_fields
    from sepcbench.report.drawings import Field, Panel, write_fields

    images = scene.noise or (scene.image,)
    height, width = images[0].shape[2:]
    point = (width / 2, height / 2) if scene.noise else scene.points[0]
    found = receptive_fields(
        scene.detector,
        images,
        point,
        seed=scene.seed,
        device=scene.device,
        progress=scene.progress,
    )
    noise = f"noise of {height}x{width}, {len(images)} times"
    over = noise if scene.noise else scene.about
    panels = [
        (
            Panel(entry.stage.replace(", ", "\n"), f"P{entry.level}", _field_size(entry)),
            Field(entry.weights, entry.centre),
        )
        for entry in found
    ]
    path = folder / "receptive_field.png"
    what = f"effective receptive field of one cell per level\n{over}; in pixels: square root of "
    what += "the area with at least 4.55 % of the largest weight"
    write_fields(path, scene.title(what), panels)
    return Made([path], _field_table(scene, found, over), [_field_value(entry) for entry in found])


def _field_size(entry: ReceptiveField) -> str:
    return f"{'at least ' if entry.cut_off else ''}{entry.size:.0f} px"


def _field_table(scene: Scene, found: Sequence[ReceptiveField], over: str) -> Table:
    levels = sorted({entry.level for entry in found})
    cells = {(entry.stage, entry.level): entry for entry in found}
    rows = tuple(
        (
            stage,
            *(
                f"{'>= ' if cells[stage, level].cut_off else ''}{cells[stage, level].size:.0f}"
                for level in levels
            ),
        )
        for stage in dict.fromkeys(entry.stage for entry in found)
    )
    notes = (
        "square root of the number of pixels with at least 4.55 % of the largest weight "
        "(arXiv 1701.04128); >=: it reaches the border of the image",
        f"{scene.weights}, {over}",
    )
    title = f"{scene.detector.spec.name}: effective receptive field, pixels"
    return Table(title, ("after", *(f"P{level}" for level in levels)), rows, notes)


def _field_value(entry: ReceptiveField) -> dict[str, Any]:
    return {
        "stage": entry.stage,
        "level": entry.level,
        "size_px": entry.size,
        "cut_off": entry.cut_off,
    }


def draw_scores(scene: Scene, folder: Path) -> Made:
    """One picture: the levels across, the classes with the highest scores downwards."""
    from sepcbench.measures.score_maps import score_maps
    from sepcbench.report.drawings import Panel, Scores, write_scores

    found = score_maps(scene.detector, scene.image, device=scene.device)
    names = _class_names(scene, len(found[0].scores))
    best = [max(float(entry.scores[k].max()) for entry in found) for k in range(len(names))]
    shown = sorted(sorted(range(len(names)), key=lambda k: -best[k])[:_MOST_CLASSES])
    panels = [
        (
            Panel(names[k], f"P{entry.level}", f"at most {float(entry.scores[k].max()):.2f}"),
            Scores(entry.scores[k], entry.stride, entry.first),
        )
        for k in shown
        for entry in found
    ]
    path = folder / "heatmaps.png"
    what = f"class scores per cell, level by level\nover {scene.about}"
    write_scores(path, scene.title(what), scene.picture, panels)
    values = [
        {"level": entry.level, "class": names[k], "highest": float(entry.scores[k].max())}
        for k in range(len(names))
        for entry in found
    ]
    return Made([path], _score_table(scene, found, [(k, names[k]) for k in shown]), values)


def _class_names(scene: Scene, count: int) -> list[str]:
    if count == 1 and len(scene.classes) != 1:
        return ["object"]
    if len(scene.classes) == count:
        return list(scene.classes)
    return [f"class {k}" for k in range(count)]


def _score_table(
    scene: Scene, found: Sequence[ScoreMap], shown: Sequence[tuple[int, str]]
) -> Table:
    rows = tuple(
        (name, *(f"{float(entry.scores[k].max()):.3f}" for entry in found)) for k, name in shown
    )
    return Table(
        f"{scene.detector.spec.name}: highest class score per level",
        ("class", *(f"P{entry.level}" for entry in found)),
        rows,
        (f"{scene.weights}, {scene.about}",),
    )
