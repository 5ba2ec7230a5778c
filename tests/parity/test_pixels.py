"""Network input against the published pipelines: sizes, grey levels, normalising, padding."""

from __future__ import annotations

import zlib
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from sepcbench.conventions import CONVENTIONS, Conventions
from sepcbench.data.transforms import pad_stack, prepare, scaled_size

SIZES = [(480, 640), (640, 480), (427, 640), (333, 500), (612, 612), (300, 1000), (1200, 900)]
SMALL = [(48, 64), (64, 48), (33, 100), (37, 53), (150, 211), (80, 80), (1, 50), (5, 1)]


def picture(height: int, width: int) -> np.ndarray:
    """Noise over a slope: both coarse and fine detail."""
    rng = np.random.default_rng(height * 10_000 + width)
    slope = np.linspace(0, 200, width)[None, :, None] + np.linspace(0, 40, height)[:, None, None]
    noise = rng.integers(-60, 60, (height, width, 3))
    return (slope + noise).clip(0, 255).astype(np.uint8)


def small(name: str, **changes: Any) -> Conventions:
    return replace(CONVENTIONS[name], short_side=80, long_side=133, **changes)


def grey_levels(name: str, rgb: np.ndarray) -> np.ndarray:
    """The resized image before it is normalised, (h, w, 3)."""
    plain = small(name, mean=(0.0,) * 3, std=(1.0,) * 3, channels="rgb", value_range="255")
    return prepare(rgb, plain).image.permute(1, 2, 0).numpy()


# --- sizes ---------------------------------------------------------------------------------


def mmcv_size(height: int, width: int) -> tuple[int, int]:
    """mmcv.imrescale to (1333, 800): one scale, half rounded up."""
    scale = min(1333 / max(height, width), 800 / min(height, width))
    return int(height * float(scale) + 0.5), int(width * float(scale) + 0.5)


def detectron2_size(height: int, width: int) -> tuple[int, int]:
    """detectron2's ResizeShortestEdge: the short side first, then shrunk if too long."""
    scale = 800.0 / min(height, width)
    new = (800.0, scale * width) if height < width else (scale * height, 800.0)
    if max(new) > 1333:
        shrink = 1333.0 / max(new)
        new = (new[0] * shrink, new[1] * shrink)
    return int(new[0] + 0.5), int(new[1] + 0.5)


def test_sizes_are_mmcvs_and_detectron2s() -> None:
    rng = np.random.default_rng(0)
    sizes = [*SIZES, *(tuple(int(v) for v in rng.integers(20, 2000, 2)) for _ in range(300))]
    for size in sizes:
        for name in ("native", "mmdet1", "mmdet2"):
            assert scaled_size(size, CONVENTIONS[name])[0] == mmcv_size(*size), size
        assert scaled_size(size, CONVENTIONS["detectron2"])[0] == detectron2_size(*size), size


@pytest.mark.parametrize("size", [(480, 640), (427, 640), (333, 500), (300, 1000)])
def test_full_sizes_are_torchvisions(size: tuple[int, int]) -> None:
    """1066 where mmdetection and detectron2 have 1067."""
    theirs = GeneralizedRCNNTransform(800, 1333, [0.0] * 3, [1.0] * 3).eval()
    batch, _ = theirs([torch.zeros(3, *size)])
    assert scaled_size(size, CONVENTIONS["torchvision"])[0] == tuple(batch.image_sizes[0])


# --- grey levels ---------------------------------------------------------------------------

# of `cv2.resize(picture(*size), (width, height), interpolation=cv2.INTER_LINEAR)`, OpenCV 5.0.0
OPENCV_CRC32 = {
    (48, 64): 0xE7DE6533,
    (64, 48): 0x05D36DA9,
    (33, 100): 0xB1C9D627,
    (37, 53): 0x23F02065,
    (150, 211): 0x65017A05,
    (80, 80): 0x1408E436,
    (1, 50): 0x1A88F1E0,
    (5, 1): 0x41871669,
}


def opencv_resize(rgb: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """cv2.resize with INTER_LINEAR of uint8: 11-bit weights, rows first, bits cut off."""
    (height, width), pixels = rgb.shape[:2], rgb.astype(np.int64)
    x = ((np.arange(size[1]) + 0.5) * (width / size[1]) - 0.5).astype(np.float32)
    x = x.clip(0, width - 1)
    left = np.floor(x).astype(int)
    along = np.rint((x - left) * 2048).astype(int)[None, :, None]
    right = (left + 1).clip(max=width - 1)
    rows = pixels[:, left] * (2048 - along) + pixels[:, right] * along
    y = ((np.arange(size[0]) + 0.5) * (height / size[0]) - 0.5).astype(np.float32)
    top = np.floor(y).astype(int)
    down = np.rint((y - top) * 2048).astype(int)[:, None, None]
    top, bottom = top.clip(0, height - 1), (top + 1).clip(0, height - 1)
    upper, lower = (2048 - down) * (rows[top] >> 4), down * (rows[bottom] >> 4)
    return ((upper >> 16) + (lower >> 16) + 2) >> 2


@pytest.mark.parametrize("size", SMALL)
@pytest.mark.parametrize("name", ["native", "mmdet1", "mmdet2"])
def test_mmdetection_grey_levels_are_opencvs(name: str, size: tuple[int, int]) -> None:
    rgb = picture(*size)
    ours = grey_levels(name, rgb)
    wanted = opencv_resize(rgb, scaled_size(size, small(name))[0])
    assert np.array_equal(ours, wanted)
    assert zlib.crc32(ours.astype(np.uint8).tobytes()) == OPENCV_CRC32[size]


def test_mmdetection_at_full_size_is_opencvs() -> None:
    rgb = picture(480, 640)
    image = prepare(rgb, CONVENTIONS["mmdet1"]).image
    mean, std = np.array([123.675, 116.28, 103.53]), np.array([58.395, 57.12, 57.375])
    wanted = (opencv_resize(rgb, (800, 1067)) - mean) / std
    assert image.shape == (3, 800, 1067)
    np.testing.assert_allclose(image.permute(1, 2, 0).numpy(), wanted, atol=1e-5)


@pytest.mark.parametrize("size", SMALL)
def test_detectron2_grey_levels_are_pillows(size: tuple[int, int]) -> None:
    """detectron2 resizes with Pillow, which antialiases where it shrinks."""
    rgb = picture(*size)
    height, width = scaled_size(size, small("detectron2"))[0]
    wanted = np.asarray(Image.fromarray(rgb).resize((width, height), Image.Resampling.BILINEAR))
    assert np.abs(grey_levels("detectron2", rgb) - wanted.astype(float)).max() <= 1
    bgr = prepare(rgb, small("detectron2")).image.permute(1, 2, 0).numpy()
    normalised = wanted[:, :, ::-1] - np.array([103.53, 116.28, 123.675])
    assert np.abs(bgr - normalised).max() <= 1 + 1e-4


@pytest.mark.parametrize("size", SMALL)
def test_torchvision_input_is_its_transforms(size: tuple[int, int]) -> None:
    rgb, how = picture(*size), small("torchvision")
    theirs = GeneralizedRCNNTransform(80, 133, list(how.mean), list(how.std)).eval()
    batch, _ = theirs([torch.from_numpy(rgb).permute(2, 0, 1) / 255])
    ours = prepare(rgb, how)
    assert ours.size == tuple(batch.image_sizes[0])
    torch.testing.assert_close(pad_stack([ours.image], 32), batch.tensors, atol=0, rtol=0)


def test_shrinking_tells_the_pipelines_apart() -> None:
    """Not one of the three on the same picture passes for another."""
    rgb = picture(150, 211)
    opencv, pillow = grey_levels("mmdet2", rgb), grey_levels("detectron2", rgb)
    floats = grey_levels("torchvision", rgb)
    assert np.abs(opencv - pillow).max() > 5
    assert not np.array_equal(floats, np.rint(floats))
    assert np.abs(opencv[: len(floats), : floats.shape[1]] - floats).max() > 0.2


# --- padding -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CONVENTIONS)
def test_padding_is_zeros_after_normalising(name: str) -> None:
    """To the next multiple of 32, on the right and below; black pixels would not be zeros."""
    images = [prepare(picture(*size), small(name)).image for size in ((48, 64), (64, 48))]
    batch = pad_stack(images, CONVENTIONS[name].pad_divisor)
    assert batch.shape == (2, 3, 128, 128)
    for padded, image in zip(batch, images):
        height, width = image.shape[1:]
        assert torch.equal(padded[:, :height, :width], image)
        assert not padded[:, height:].any()
        assert not padded[:, :, width:].any()
