"""Drawings: pixels where they have to be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from PIL import Image

from sepcbench.errors import StoreError
from sepcbench.report.detection_drawings import Box, write_detections
from sepcbench.report.drawings import (
    Field,
    Panel,
    Picture,
    Scores,
    Taps,
    write_fields,
    write_scores,
    write_taps,
)
from sepcbench.report.figures import COLOURS

GREY = np.full((60, 90, 3), 128, dtype=np.uint8)


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB")).astype(int)


def near(colour: str, found: np.ndarray, tolerance: int = 12) -> np.ndarray:
    """Where pixels (h, w, 3) have a colour."""
    wanted = np.array([round(255 * part) for part in to_rgb(colour)])
    return (abs(found - wanted) <= tolerance).all(axis=-1)


def test_boxes_lie_where_they_are_in_the_image(tmp_path: Path) -> None:
    mask = np.zeros((60, 90), dtype=bool)
    mask[32:48, 12:30] = True
    found = [Box((10, 30, 40, 50), 0, "circle", 0.9, mask), Box((50, 10, 80, 40), 3, "", 0.5)]
    write_detections(tmp_path / "a.png", GREY, found, [Box((60, 20, 85, 55), 0, "circle")], "note")
    picture, scale = pixels(tmp_path / "a.png"), 720 / 90
    assert picture.shape[1] == 720
    assert picture.shape[0] > 480  # the note below
    for box in found:
        x1, y1, x2, y2 = (int(scale * side) for side in box.corners)
        own = near(COLOURS[box.label], picture)
        for row, column in ((y1 + 80, x1), (y1 + 80, x2), (y2, x1 + 80)):
            assert own[row - 2 : row + 3, column - 2 : column + 3].any()
        assert not own[y1 + 60 : y2 - 60, x1 - 40 : x1 - 8].any()
    # the mask tints what is inside it, and nothing beside it
    assert picture[int(40 * scale), int(20 * scale)].tolist() != [128, 128, 128]
    assert picture[int(40 * scale), int(35 * scale)].tolist() == [128, 128, 128]
    # the true box is dashed, white on black
    edge = picture[int(20 * scale) : int(55 * scale), int(85 * scale) - 1 : int(85 * scale) + 1]
    assert near("white", edge, 60).any()
    assert near("black", edge, 60).any()


def test_large_images_keep_their_size(tmp_path: Path) -> None:
    write_detections(tmp_path / "a.png", np.zeros((800, 1000, 3), dtype=np.uint8), [], [])
    assert pixels(tmp_path / "a.png").shape[1] == 1000


def test_the_hottest_cell_is_where_it_is_in_the_image(tmp_path: Path) -> None:
    values = np.zeros((4, 6))
    values[3, 1] = 0.5
    panels = [
        (Panel("circle", "P3", ""), Scores(values, 16, (8.0, 8.0))),
        (Panel("circle", "P4", ""), Scores(np.zeros((2, 3)), 32, (0.0, 0.0))),
    ]
    write_scores(
        tmp_path / "a.png", "title", Picture(np.zeros((64, 96, 3), np.uint8), (64, 96)), panels
    )
    picture = pixels(tmp_path / "a.png")
    half = int(0.47 * picture.shape[1])  # the first panel
    image = (abs(picture - 51) < 9).all(axis=-1)[:, :half]  # black, a little pale
    left, width = _extent(image.sum(axis=0) > 60)
    top, height = _extent(image.sum(axis=1) > 60)
    hot = near("#e6e7b1", picture, 8)[:, :half]  # over the image
    at, across = _extent(hot.sum(axis=0) > 5)
    above, down = _extent(hot.sum(axis=1) > 5)
    # cell (3, 1) of 4 x 6
    assert (at - left) / width == pytest.approx(1 / 6, abs=0.02)
    assert across / width == pytest.approx(1 / 6, abs=0.02)
    assert (above - top) / height == pytest.approx(3 / 4, abs=0.02)
    assert down / height == pytest.approx(1 / 4, abs=0.02)


def _extent(there: np.ndarray) -> tuple[int, int]:
    """The first place that is True, and how many it is to the last."""
    places = there.nonzero()[0]
    return int(places[0]), int(places[-1] - places[0] + 1)


def test_taps_and_fields_and_their_places(tmp_path: Path) -> None:
    plain = np.stack(np.meshgrid([8.0, 16, 24], [8.0, 16, 24]), axis=-1).reshape(9, 2)
    taps = Taps((16.0, 16.0), plain, plain + np.array([20, 5]))
    other = Taps((60.0, 40.0), plain + 40, plain + 42)
    panels = [
        (Panel("P4", "up", "reads P5"), [taps, other]),
        (Panel("P4", "same", "reads P4"), [taps, taps]),
        (Panel("P5", "same", "reads P5"), [other]),
    ]
    write_taps(
        tmp_path / "a.png", "x" * 50 + " and a long title" * 20, Picture(GREY, (60, 90)), panels
    )
    picture = pixels(tmp_path / "a.png")
    assert near(COLOURS[0], picture).sum() > 3 * 9 * 10
    assert near(COLOURS[1], picture).sum() > 9 * 10
    # no panel for up of P5: its corner stays empty
    height, width = picture.shape[:2]
    assert (
        picture[int(0.75 * height) : int(0.9 * height), int(0.15 * width) : int(0.45 * width)]
        == 255
    ).all()

    weights = np.zeros((300, 400))
    weights[100, 100] = 1  # one pixel must not get lost
    write_fields(
        tmp_path / "b.png", "title", [(Panel("fpn", "P3", "1 px"), Field(weights, (9, 9)))]
    )
    assert near("#fcfdbf", pixels(tmp_path / "b.png")).any()


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    path = tmp_path / "nowhere" / "a.png"
    with pytest.raises(StoreError, match="cannot be written"):
        write_detections(path, GREY, [], [])
    with pytest.raises(StoreError, match="cannot be written"):
        write_scores(
            path,
            "",
            Picture(GREY, (60, 90)),
            [(Panel("", "", ""), Scores(np.ones((1, 1)), 9, (0, 0)))],
        )
