"""Drawing one image of the generated set: coloured shapes over a textured background."""

from __future__ import annotations

import colorsys
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

Size = tuple[int, int]

CLASSES: tuple[str, ...] = ("circle", "square", "triangle")
CATEGORY_IDS: tuple[int, ...] = (1, 3, 7)
# sizes as fractions of the image's short side: 5 to 113 pixels at 128
SMALLEST, LARGEST = 0.04, 0.88
# the large ones come more often (1 would spread the sizes evenly over the octaves), but for a share
# of shapes that is spread evenly, so that every set has very small ones
SIZE_SKEW, EVEN_SIZE_SHARE = 0.35, 0.12
EMPTY_SHARE, CROWD_SHARE = 0.08, 0.1
MOST_OBJECTS = 4
# share of the shapes that have the hue of their class; the others have any hue
TRUE_HUE_SHARE = 0.95
# a shape may not hide more than this share of another one
MOST_HIDDEN = 0.3
_SUPERSAMPLING = 4


@dataclass(frozen=True)
class Shape:
    """One drawn shape: class index, outline (n, 2) xy in pixels, and its colour."""

    label: int
    outline: np.ndarray
    colour: np.ndarray

    @property
    def bbox(self) -> list[float]:
        """The box around the outline, [x, y, width, height] in pixels."""
        low, high = self.outline.min(axis=0), self.outline.max(axis=0)
        return [round(float(v), 2) for v in (*low, *(high - low))]

    @property
    def area(self) -> float:
        """Area inside the outline in square pixels, hidden parts included."""
        x, y = self.outline.T
        return round(float(abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))) / 2), 2)


def draw(rng: np.random.Generator, size: Size) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """Draw one image.

    Returns:
        The image (H, W, 3) uint8, and its annotations without ids.
    """
    canvas = _background(rng, size)
    if rng.random() < EMPTY_SHARE:
        return _as_bytes(canvas), []
    annotations = []
    taken = np.zeros(size, dtype=bool)
    if rng.random() < CROWD_SHARE:
        cluster, taken = _crowd(rng, size)
        for shape in cluster:
            _paint(canvas, shape)
        annotations.append(_crowd_annotation(cluster))
    for shape in _place(rng, size, taken):
        _paint(canvas, shape)
        annotations.append(_annotation(shape))
    return _as_bytes(canvas), annotations


def _place(rng: np.random.Generator, size: Size, taken: np.ndarray) -> list[Shape]:
    """Shapes that overlap a little, the large ones behind; none on `taken` pixels."""
    wanted = int(rng.integers(1, MOST_OBJECTS + 1))
    extents = sorted((_extent(rng, size) for _ in range(wanted)), reverse=True)
    shapes: list[Shape] = []
    visible: list[np.ndarray] = []  # what is still to be seen of each shape, (H, W) bool
    for extent in extents:
        for _ in range(20):
            shape = _shape(rng, int(rng.integers(len(CLASSES))), extent, size)
            mask = _mask(shape.outline, size) > 0.5
            left = [old & ~mask for old in visible]
            hides = any(m.sum() < (1 - MOST_HIDDEN) * s.area for m, s in zip(left, shapes))
            if not hides and not (mask & taken).any():
                shapes.append(shape)
                visible = [*left, mask]
                break
    return shapes


def _extent(rng: np.random.Generator, size: Size) -> float:
    """The longer side of a shape in pixels: all sizes, the smallest less often."""
    share = rng.uniform() ** (1.0 if rng.random() < EVEN_SIZE_SHARE else SIZE_SKEW)
    return min(size) * SMALLEST * (LARGEST / SMALLEST) ** share


def _shape(rng: np.random.Generator, label: int, extent: float, size: Size) -> Shape:
    """A shape at a random place, wholly inside the image."""
    outline = _outline(rng, label)
    outline = (outline - outline.min(axis=0)) / np.ptp(outline, axis=0).max() * extent
    room = np.array([size[1], size[0]]) - outline.max(axis=0)
    return Shape(label, outline + rng.uniform(0, 1, 2) * room, _colour(rng, label))


def _outline(rng: np.random.Generator, label: int) -> np.ndarray:
    """Corners (n, 2) of a circle (as a polygon), square or triangle, slightly turned."""
    corners = (40, 4, 3)[label]
    start = (0.0, math.pi / 4, -math.pi / 2)[label] + rng.uniform(-0.2, 0.2)
    angles = start + np.arange(corners) * 2 * math.pi / corners
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def _colour(rng: np.random.Generator, label: int) -> np.ndarray:
    """RGB in 0..1; the hue is a hint of the class and no more."""
    hue = rng.uniform()
    if rng.random() < TRUE_HUE_SHARE:
        hue = label / len(CLASSES) + rng.uniform(-0.08, 0.08)
    return np.array(colorsys.hsv_to_rgb(hue % 1.0, rng.uniform(0.7, 1.0), rng.uniform(0.7, 1.0)))


def _crowd(rng: np.random.Generator, size: Size) -> tuple[list[Shape], np.ndarray]:
    """A dense cluster of tiny shapes of one class, and the pixels it takes."""
    label = int(rng.integers(len(CLASSES)))
    extent = SMALLEST * min(size) * 1.4
    spread = rng.uniform(0.2, 0.35) * min(size)
    corner = rng.uniform(0, 1, 2) * (np.array([size[1], size[0]]) - spread)
    cluster = []
    for _ in range(int(rng.integers(12, 25))):
        shape = _shape(rng, label, extent * rng.uniform(0.8, 1.2), size)
        place = corner + rng.uniform(0, 1, 2) * (spread - np.ptp(shape.outline, axis=0))
        outline = shape.outline - shape.outline.min(axis=0) + place
        cluster.append(Shape(label, outline, shape.colour))
    taken = np.zeros(size, dtype=bool)
    x, y, width, height = _around(cluster)
    taken[int(y) : math.ceil(y + height), int(x) : math.ceil(x + width)] = True
    return cluster, taken


def _around(cluster: list[Shape]) -> list[float]:
    points = np.concatenate([shape.outline for shape in cluster])
    low, high = points.min(axis=0), points.max(axis=0)
    return [round(float(v), 2) for v in (*low, *(high - low))]


def _annotation(shape: Shape) -> dict[str, Any]:
    """Box, area and segmentation are of the whole shape, hidden parts included."""
    return {
        "category_id": CATEGORY_IDS[shape.label],
        "bbox": shape.bbox,
        "area": shape.area,
        "iscrowd": 0,
        "segmentation": [[round(float(v), 2) for v in shape.outline.ravel()]],
    }


def _crowd_annotation(cluster: list[Shape]) -> dict[str, Any]:
    """One region for the whole cluster: its area is that of the box around it."""
    x, y, width, height = _around(cluster)
    corners = [x, y, x + width, y, x + width, y + height, x, y + height]
    return {
        "category_id": CATEGORY_IDS[cluster[0].label],
        "bbox": [x, y, width, height],
        "area": round(width * height, 2),
        "iscrowd": 1,
        "segmentation": [[round(v, 2) for v in corners]],
    }


# --- pixels --------------------------------------------------------------------------------


def _mask(outline: np.ndarray, size: Size) -> np.ndarray:
    """How much of each pixel is inside the outline, (H, W) float32 in 0..1."""
    low = np.floor(outline.min(axis=0)).astype(int).clip(0)
    high = np.ceil(outline.max(axis=0)).astype(int).clip(None, [size[1], size[0]])
    (x1, y1), (width, height) = low, high - low
    picture = Image.new("L", (int(width) * _SUPERSAMPLING, int(height) * _SUPERSAMPLING))
    # PIL draws pixel centres: half a fine pixel back
    points = [tuple(point) for point in (outline - low) * _SUPERSAMPLING - 0.5]
    ImageDraw.Draw(picture).polygon(points, fill=255)
    fine = np.asarray(picture, dtype=np.float32) / 255
    mask = np.zeros(size, dtype=np.float32)
    mask[y1 : y1 + height, x1 : x1 + width] = fine.reshape(
        height, _SUPERSAMPLING, width, _SUPERSAMPLING
    ).mean(axis=(1, 3))
    return mask


def _paint(canvas: np.ndarray, shape: Shape) -> None:
    alpha = _mask(shape.outline, (canvas.shape[0], canvas.shape[1]))[:, :, None]
    canvas += alpha * (shape.colour - canvas)


def _background(rng: np.random.Generator, size: Size) -> np.ndarray:
    """Soft blotches, stripes and grain, (H, W, 3) in 0..1, greyer than the shapes."""
    height, width = size
    canvas = np.full((height, width, 3), rng.uniform(0.25, 0.7))
    for cells, grey, tint in ((4, 0.12, 0.04), (12, 0.06, 0.02)):
        coarse = grey * rng.uniform(-1, 1, (cells, cells, 1))
        coarse = (coarse + tint * rng.uniform(-1, 1, (cells, cells, 3))).astype(np.float32)
        for channel in range(3):
            blotches = Image.fromarray(coarse[:, :, channel]).resize(
                (width, height), Image.Resampling.BICUBIC
            )
            canvas[:, :, channel] += np.asarray(blotches)
    angle, period = rng.uniform(0, math.pi), rng.uniform(0.05, 0.3) * min(size)
    y, x = np.mgrid[:height, :width]
    phase = (x * math.cos(angle) + y * math.sin(angle)) * 2 * math.pi / period
    canvas += 0.06 * np.sin(phase)[:, :, None]
    return canvas + rng.normal(0, 0.03, (height, width, 1))


def _as_bytes(canvas: np.ndarray) -> np.ndarray:
    return (canvas.clip(0, 1) * 255 + 0.5).astype(np.uint8)
