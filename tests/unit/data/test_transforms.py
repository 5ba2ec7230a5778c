from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sepcbench.data.transforms import (
    flip,
    pad_stack,
    padded_size,
    prepare,
    read_rgb,
    scale_boxes,
    scaled_size,
)
from sepcbench.errors import DataError
from sepcbench.specs import CONVENTIONS


def _noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("name", "size", "wanted"),
    [
        ("mmdet1", (480, 640), (800, 1067)),
        ("torchvision", (480, 640), (800, 1066)),
        ("mmdet2", (640, 480), (1067, 800)),
        ("mmdet2", (427, 640), (800, 1199)),
        ("mmdet2", (300, 1000), (400, 1333)),
        ("torchvision", (300, 1000), (399, 1333)),
    ],
)
def test_sizes_are_those_of_the_published_pipelines(
    name: str, size: tuple[int, int], wanted: tuple[int, int]
) -> None:
    assert scaled_size(size, CONVENTIONS[name])[0] == wanted


def test_a_sliver_keeps_a_pixel() -> None:
    assert scaled_size((1, 5000), CONVENTIONS["mmdet2"])[0] == (1, 1333)


def test_scale_factors_are_one_number_or_one_per_axis() -> None:
    image = _noise(48, 64)
    small = {"short_side": 80, "long_side": 133}
    single = prepare(image, replace(CONVENTIONS["mmdet1"], **small))
    assert single.scale == (80 / 48, 80 / 48)
    per_axis = prepare(image, replace(CONVENTIONS["mmdet2"], **small))
    assert per_axis.size == (80, 107)
    assert per_axis.scale == (107 / 64, 80 / 48)


def test_uint8_resizing_is_bilinear_without_antialias_and_rounds_to_grey_levels() -> None:
    image = _noise(64, 64)
    conventions = replace(
        CONVENTIONS["mmdet2"], short_side=32, long_side=32, mean=(0.0,) * 3, std=(1.0,) * 3
    )
    resized = prepare(image, conventions).image
    # half size, half-pixel centres: the mean of 2x2 pixels
    mean = image.reshape(32, 2, 32, 2, 3).mean(axis=(1, 3)).transpose(2, 0, 1)
    assert np.abs(resized.numpy() - mean).max() <= 1.0
    assert torch.equal(resized, resized.round())
    # a quarter: still only the 2x2 pixels around the centre, where antialiasing takes all 16
    quarter = replace(conventions, short_side=16, long_side=16)
    centre = image.reshape(16, 4, 16, 4, 3)[:, 1:3, :, 1:3].mean(axis=(1, 3)).transpose(2, 0, 1)
    assert np.abs(prepare(image, quarter).image.numpy() - centre).max() <= 1.0


def test_normalising_and_channel_order() -> None:
    image = _noise(32, 32)
    same = {"short_side": 32, "long_side": 32}
    rgb = prepare(image, replace(CONVENTIONS["mmdet2"], **same)).image
    expected = (image[0, 0] - np.array([123.675, 116.28, 103.53])) / [58.395, 57.12, 57.375]
    np.testing.assert_allclose(rgb[:, 0, 0].numpy(), expected, rtol=1e-5)
    bgr = prepare(image, replace(CONVENTIONS["detectron2"], **same)).image
    expected = image[0, 0, ::-1] - np.array([103.53, 116.28, 123.675])
    np.testing.assert_allclose(bgr[:, 0, 0].numpy(), expected, rtol=1e-5)


def test_padding_is_zeros_on_the_right_and_below() -> None:
    batch = pad_stack([torch.ones(3, 40, 33), torch.ones(3, 10, 64)], 32)
    assert batch.shape == (2, 3, 64, 64)
    assert batch.sum(dim=(1, 2, 3)).tolist() == [3 * 40 * 33, 3 * 10 * 64]
    assert batch[0, :, :40, :33].min() == 1
    assert padded_size((64, 65), 32) == (64, 96)


def test_flipping_twice_is_nothing_and_boxes_follow_their_pixels() -> None:
    image = torch.zeros(3, 20, 30)
    image[:, 5:9, 2:12] = 1
    boxes = torch.tensor([[2.0, 5.0, 12.0, 9.0]])
    mirrored, moved = flip(image, boxes)
    x1, y1, x2, y2 = moved[0].int().tolist()
    assert mirrored[:, y1:y2, x1:x2].min() == 1
    assert mirrored.sum() == image.sum()
    again, back = flip(mirrored, moved)
    assert torch.equal(again, image)
    assert torch.equal(back, boxes)


def test_boxes_scale_per_axis() -> None:
    boxes = scale_boxes(torch.tensor([[1.0, 2.0, 3.0, 4.0]]), (2.0, 10.0))
    assert boxes.tolist() == [[2.0, 20.0, 6.0, 40.0]]


# --- reading -------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "CMYK", "RGBA", "LA", "1"])
def test_every_mode_becomes_rgb_bytes(tmp_path: Path, mode: str) -> None:
    path = tmp_path / ("image.tif" if mode == "CMYK" else "image.png")
    Image.new("RGB", (7, 5), (255, 255, 255)).convert(mode).save(path)
    rgb = read_rgb(path)
    assert rgb.shape == (5, 7, 3)
    assert rgb.dtype == np.uint8
    assert rgb.min() >= 254


def test_16_bit_grey_keeps_its_upper_byte(tmp_path: Path) -> None:
    grey = np.array([[0, 256, 0x8000, 0xFFFF]], dtype=np.uint16)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    assert read_rgb(tmp_path / "grey.png")[0].tolist() == [[v] * 3 for v in (0, 1, 128, 255)]


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
@pytest.mark.parametrize("progressive", [False, True])
def test_jpegs_are_read_as_pillow_reads_them(
    tmp_path: Path, mode: str, subsampling: str, progressive: bool
) -> None:
    coarse = np.random.default_rng(0).integers(0, 256, (12, 15, 3), dtype=np.uint8)
    picture = Image.fromarray(coarse).resize((61, 47), Image.Resampling.BICUBIC).convert(mode)
    path = tmp_path / "a.jpg"
    options = {} if mode == "L" else {"subsampling": subsampling}
    picture.save(path, quality=80, progressive=progressive, **options)
    with Image.open(path) as image:
        assert np.array_equal(read_rgb(path), np.array(image.convert("RGB")))


def test_a_jpeg_cut_off_anywhere_is_named(tmp_path: Path) -> None:
    path = tmp_path / "cut.jpg"
    Image.linear_gradient("L").convert("RGB").save(path)
    whole = path.read_bytes()
    for size in (0, 20, 200, len(whole) // 2, len(whole) - 10):
        path.write_bytes(whole[:size])
        with pytest.raises(DataError, match=r"cut\.jpg' is corrupt or truncated"):
            read_rgb(path)


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 90 degrees to look at it
    Image.new("RGB", (40, 20)).save(tmp_path / "turned.jpg", exif=exif)
    assert read_rgb(tmp_path / "turned.jpg").shape == (40, 20, 3)


@pytest.mark.parametrize("suffix", ["png", "jpg"])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.9])
def test_a_truncated_image_is_named(tmp_path: Path, suffix: str, share: float) -> None:
    path = tmp_path / f"image.{suffix}"
    Image.fromarray(_noise(64, 64)).save(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(DataError, match=rf"image\.{suffix}' is corrupt or truncated"):
        read_rgb(path)


def test_corrupt_and_missing_images_are_named(tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    Image.fromarray(_noise(64, 64)).save(path)
    content = bytearray(path.read_bytes())
    content[60:200] = bytes(140)
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"image\.png' is corrupt"):
        read_rgb(path)
    with pytest.raises(DataError, match=r"none\.png' is not there"):
        read_rgb(tmp_path / "none.png")
