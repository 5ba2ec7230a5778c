"""Image files of every kind through `eval`: each gives the detections of its plain RGB picture."""

from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile

from sepcbench.checkpoints.native import save
from sepcbench.cli.app import run
from sepcbench.data.transforms import read_rgb
from sepcbench.detectors import build
from sepcbench.variants import variant

HEIGHT, WIDTH = 40, 56
RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (HEIGHT, WIDTH), dtype=np.uint8)
COLOUR = RNG.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
ALPHA = RNG.integers(0, 256, (HEIGHT, WIDTH), dtype=np.uint8)
INDEX = RNG.integers(0, 200, (HEIGHT, WIDTH), dtype=np.uint8)
PALETTE = RNG.integers(0, 256, (200, 3), dtype=np.uint8)
BITS = GREY > 127


def three(grey: np.ndarray) -> np.ndarray:
    return np.repeat(grey[:, :, None], 3, axis=2)


def save_palette(path: Path, **options: Any) -> None:
    image = Image.fromarray(INDEX, mode="P")
    image.putpalette(PALETTE.tobytes())
    image.save(path, **options)


def save_deep_png(path: Path) -> None:
    """A PNG of three 16-bit channels, which Pillow reads but does not write."""
    deep = COLOUR.astype(">u2") * 256 + 77
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in deep)
    header = struct.pack(">IIBBBBB", WIDTH, HEIGHT, 16, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + b"".join(
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
            for kind, data in chunks
        )
    )


def save_cmyk(path: Path, **options: Any) -> None:
    cmyk = np.concatenate([255 - COLOUR, np.zeros((HEIGHT, WIDTH, 1), np.uint8)], axis=2)
    Image.fromarray(cmyk, mode="CMYK").save(path, **options)


# file name: how it is written, and its picture
KINDS: dict[str, tuple[Any, np.ndarray]] = {
    "rgb.bmp": (lambda p: Image.fromarray(COLOUR).save(p), COLOUR),
    "rgb.webp": (lambda p: Image.fromarray(COLOUR).save(p, lossless=True, exact=True), COLOUR),
    "rgba.png": (lambda p: Image.fromarray(np.dstack([COLOUR, ALPHA])).save(p), COLOUR),
    "rgb16.png": (save_deep_png, COLOUR),
    "cmyk.tif": (save_cmyk, COLOUR),
    "grey.png": (lambda p: Image.fromarray(GREY).save(p), three(GREY)),
    "grey_alpha.png": (
        lambda p: Image.fromarray(np.dstack([GREY, ALPHA]), mode="LA").save(p),
        three(GREY),
    ),
    "grey16.png": (
        lambda p: Image.fromarray(GREY.astype(np.uint16) * 256 + 77).save(p),
        three(GREY),
    ),
    "grey16.tif": (
        lambda p: Image.fromarray(GREY.astype(np.uint16) * 256 + 77).save(p),
        three(GREY),
    ),
    "bits.png": (
        lambda p: Image.fromarray(BITS).save(p),
        three(BITS.astype(np.uint8) * 255),
    ),
    "palette.png": (save_palette, PALETTE[INDEX]),
    "palette_clear.png": (lambda p: save_palette(p, transparency=3), PALETTE[INDEX]),
    "palette.gif": (save_palette, PALETTE[INDEX]),
}
# EXIF orientation: what was done to the upright picture before it was stored
TURNED = {
    1: lambda upright: upright,
    2: lambda upright: upright[:, ::-1],
    3: lambda upright: upright[::-1, ::-1],
    4: lambda upright: upright[::-1],
    5: lambda upright: upright.transpose(1, 0, 2),
    6: lambda upright: np.rot90(upright, 1),
    7: lambda upright: upright[::-1, ::-1].transpose(1, 0, 2),
    8: lambda upright: np.rot90(upright, -1),
}


def save_turned(path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = np.ascontiguousarray(TURNED[orientation](COLOUR))
    Image.fromarray(stored).save(path, exif=exif)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    small = {"score_threshold": 0.0, "max_detections": 20, "short_side": 64, "long_side": 128}
    detector = build(variant("retinanet_tiny_fpn", small))
    torch.nn.init.normal_(detector.head.cls_pred.weight, std=0.3)
    path = tmp_path_factory.mktemp("checkpoint") / "tiny.safetensors"
    save(path, detector, ("a", "b", "c"), None)
    return path


def detections(checkpoint: Path, folder: Path) -> dict[str, list[Any]]:
    """What `eval` writes about every image file of a folder, by file name."""
    names = sorted(path.name for path in (folder / "val").iterdir())
    document = {
        "images": [
            {"id": i, "file_name": name, "width": WIDTH, "height": HEIGHT}
            for i, name in enumerate(names)
        ],
        "categories": [{"id": i, "name": name} for i, name in enumerate("abc", start=1)],
        "annotations": [],
    }
    (folder / "annotations").mkdir()
    (folder / "annotations" / "instances_val.json").write_text(json.dumps(document))
    out = folder / "detections.json"
    call = ["eval", str(checkpoint), "--data", str(folder), "--save-detections", str(out)]
    assert run([*call, "--format", "json"]) == 0
    found: dict[str, list[Any]] = {name: [] for name in names}
    for item in json.loads(out.read_text()):
        name = names[item.pop("image_id")]
        found[name].append(item)
    return found


@pytest.fixture(scope="module")
def found(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    folder = tmp_path_factory.mktemp("modes")
    (folder / "val").mkdir()
    for name, (write, picture) in KINDS.items():
        write(folder / "val" / name)
        Image.fromarray(picture).save(folder / "val" / f"plain_{name}.png")
    for orientation in TURNED:
        save_turned(folder / "val" / f"turned_{orientation}.png", orientation)
    return detections(checkpoint, folder)


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_file_is_its_picture(found: dict[str, list[Any]], name: str) -> None:
    assert len(found[name]) == 20
    assert found[name] == found[f"plain_{name}.png"]


@pytest.mark.parametrize("orientation", TURNED)
def test_turned_files_are_set_upright(found: dict[str, list[Any]], orientation: int) -> None:
    assert found[f"turned_{orientation}.png"] == found["plain_rgb.bmp.png"]


def test_other_pictures_are_told_apart(found: dict[str, list[Any]]) -> None:
    assert found["grey.png"] != found["rgb.bmp"] != found["palette.png"]


def test_cmyk_jpeg_and_its_inverted_ink(tmp_path: Path) -> None:
    """Photoshop stores ink inverted; a wrong guess gives the negative, far from the JPEG's loss."""
    smooth = np.linspace(0, 255, HEIGHT * WIDTH).reshape(HEIGHT, WIDTH).astype(np.uint8)
    cmyk = np.dstack([255 - smooth, smooth, 255 - smooth, np.zeros_like(smooth)])
    path = tmp_path / "cmyk.jpg"
    Image.fromarray(cmyk, mode="CMYK").save(path, quality=100)
    wanted = np.dstack([smooth, 255 - smooth, smooth])
    assert np.abs(read_rgb(path).astype(int) - wanted).max() <= 8


def test_a_truncated_file_among_good_ones_is_named(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert not ImageFile.LOAD_TRUNCATED_IMAGES
    (tmp_path / "val").mkdir()
    Image.fromarray(COLOUR).save(tmp_path / "val" / "a.jpg")
    cut = (tmp_path / "val" / "a.jpg").read_bytes()[:-300]
    (tmp_path / "val" / "b.jpg").write_bytes(cut)
    with pytest.raises(AssertionError):
        detections(checkpoint, tmp_path)
    assert "b.jpg' is corrupt or truncated" in capsys.readouterr().err
