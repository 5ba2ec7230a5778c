"""Images to network input as `Conventions` say: reading, resizing, normalising, padding."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps
from torch import Tensor
from torch.nn import functional as F
from torchvision.io import ImageReadMode, decode_jpeg, read_file

from sepcbench.data import opencv
from sepcbench.errors import DataError
from sepcbench.specs import Conventions

_BAD_IMAGE = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    struct.error,
    Image.DecompressionBombError,
)


class Raw(NamedTuple):
    """One image before it is normalised: small enough to keep, and to load ahead.

    `pixels` (3, h, w) uint8 RGB, resized already where conventions resize bytes, else as in the
    file; `size`, `scale` and `original` as of `Prepared`.
    """

    pixels: Tensor
    size: tuple[int, int]
    scale: tuple[float, float]
    original: tuple[int, int]


class Prepared(NamedTuple):
    """One image as network input, not padded yet.

    `image` (3, h, w) float32; `size` (h, w) in pixels; `scale` (x, y) from the file's pixels;
    `original` (h, w) of the file.
    """

    image: Tensor
    size: tuple[int, int]
    scale: tuple[float, float]
    original: tuple[int, int]


def read_rgb(path: Path) -> np.ndarray:
    """Read an image file as (H, W, 3) uint8 RGB, turned as its EXIF orientation says.

    Grey, palette, CMYK and 16-bit images are converted; an alpha channel is dropped.

    Raises:
        DataError: the file is missing, truncated, or not an image.
    """
    try:
        with Image.open(path) as image:
            quickly = _decoded_jpeg(image, path)
            if quickly is not None:
                return quickly
            ImageOps.exif_transpose(image, in_place=True)
            return _as_rgb(image)
    except FileNotFoundError:
        raise DataError(f"image '{path}' is not there") from None
    except _BAD_IMAGE as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"image '{path}' is corrupt or truncated: {reason}") from None


def _decoded_jpeg(image: Image.Image, path: Path) -> np.ndarray | None:
    """The same pixels in a third of the time, by torchvision; None where Pillow is to decode.

    Both call libjpeg-turbo; torchvision writes into the one array that is wanted.
    """
    upright = image.getexif().get(ExifTags.Base.Orientation, 1) == 1
    if image.format != "JPEG" or image.mode not in ("RGB", "L") or not upright:
        return None
    try:
        made = decode_jpeg(read_file(str(path)), mode=ImageReadMode.RGB)
    except RuntimeError:  # damaged, which Pillow says better, or no libjpeg in this torchvision
        return None
    return made.permute(1, 2, 0).numpy()


def _as_rgb(image: Image.Image) -> np.ndarray:
    if image.mode.startswith("I") or image.mode == "F":
        grey = np.asarray(image, dtype=np.float64)
        # 16-bit grey: the upper byte, as an 8-bit file would have stored it
        grey = grey // 256 if image.mode != "F" and grey.max(initial=0) > 255 else grey
        return np.repeat(grey.clip(0, 255).astype(np.uint8)[:, :, None], 3, axis=2)
    return np.array(image.convert("RGB"))


def scaled_size(size: tuple[int, int], conventions: Conventions) -> tuple[tuple[int, int], float]:
    """The size (h, w) an image is resized to, and the scale before rounding.

    The short side becomes `short_side` unless the long side would pass `long_side`. Rounding half
    up is mmdetection's and detectron2's, rounding down torchvision's.
    """
    scale = min(conventions.long_side / max(size), conventions.short_side / min(size))
    half = 0.5 if conventions.resize_rounding == "round" else 0.0
    height, width = (max(1, int(side * scale + half)) for side in size)
    return (height, width), scale


def scale_factors(
    original: tuple[int, int], size: tuple[int, int], conventions: Conventions
) -> tuple[float, float]:
    """What boxes are divided by, (x, y), to be in pixels of the file again.

    Args:
        original: (h, w) of the file.
        size: (h, w) of the resized image.
        conventions: field `scale_factors`; `single` is the scale before rounding.
    """
    if conventions.scale_factors == "single":
        scale = scaled_size(original, conventions)[1]
        return scale, scale
    return size[1] / original[1], size[0] / original[0]


def prepare(rgb: np.ndarray, conventions: Conventions) -> Prepared:
    """Resize and normalise one image.

    Args:
        rgb: (H, W, 3) uint8.
        conventions: sides, rounding, interpolation, channel order, mean and std.
    """
    raw = as_raw(rgb, conventions)
    return Prepared(normalised(raw, conventions), raw.size, raw.scale, raw.original)


def as_raw(rgb: np.ndarray, conventions: Conventions) -> Raw:
    """The first half of `prepare`: what is done on bytes.

    Args:
        rgb: (H, W, 3) uint8.
        conventions: sides, rounding, interpolation.
    """
    original = (rgb.shape[0], rgb.shape[1])
    size, _ = scaled_size(original, conventions)
    pixels = torch.from_numpy(np.ascontiguousarray(rgb)).permute(2, 0, 1)  # (3, H, W)
    if conventions.interpolation == "uint8":
        pixels = _resize(pixels[None], size, conventions)[0]
    factors = scale_factors(original, size, conventions)
    return Raw(pixels, size, factors, original)


def normalised(raw: Raw, conventions: Conventions, device: str = "cpu") -> Tensor:
    """The second half of `prepare`, (3, h, w) float32, computed on a device.

    Args:
        raw: what `as_raw` made under the same conventions.
        conventions: channel order, mean and std; sides where floats are resized.
        device: where to; bytes are what is transferred.
    """
    image = raw.pixels.to(device, non_blocking=True)[None]
    image = _normalise(image.float(), conventions)
    return _resize(image, raw.size, conventions)[0].contiguous()


def _resize(image: Tensor, size: tuple[int, int], conventions: Conventions) -> Tensor:
    """Bilinear, half-pixel centres; (1, 3, H, W) of either type to the same type.

    OpenCV and torchvision do not antialias; Pillow does, which torch follows for bytes.
    """
    if tuple(image.shape[-2:]) == size:
        return image
    smooth = conventions.antialias
    if image.dtype == torch.uint8 and not smooth:
        return opencv.resize(image[0], size)[None]
    return F.interpolate(image, size=size, mode="bilinear", align_corners=False, antialias=smooth)


def _normalise(image: Tensor, conventions: Conventions) -> Tensor:
    if conventions.channels == "bgr":
        image = image.flip(1)
    if conventions.value_range == "1":
        image = image / 255
    mean, std = (image.new_tensor(v).view(1, 3, 1, 1) for v in (conventions.mean, conventions.std))
    return image.sub_(mean).div_(std)  # of a copy: bytes have just become floats


def scale_boxes(boxes: Tensor, scale: tuple[float, float]) -> Tensor:
    """Scale boxes (g, 4) xyxy by (x, y)."""
    return boxes * boxes.new_tensor([scale[0], scale[1], scale[0], scale[1]])


def resize_masks(masks: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize masks (g, H, W) bool to (g, h, w) bool: bilinear, half-pixel centres, cut at 0.5.

    Antialiased, so that a thin object does not fall between the pixels of a small image.
    """
    if tuple(masks.shape[1:]) == size:
        return masks
    resized = masks.new_zeros(len(masks), *size)
    for slot, mask in zip(resized, masks):  # one by one: floats take much more memory
        soft = F.interpolate(mask.float()[None, None], size=size, mode="bilinear", antialias=True)
        slot[:] = soft[0, 0] >= 0.5
    return resized


def flip_boxes(boxes: Tensor, width: int) -> Tensor:
    """Mirror boxes (g, 4) xyxy left to right in an image of `width` pixels."""
    x1, y1, x2, y2 = boxes.unbind(1)
    return torch.stack([width - x2, y1, width - x1, y2], dim=1)


def flip(image: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Mirror an image (3, h, w) and its boxes (g, 4) xyxy left to right."""
    return image.flip(-1), flip_boxes(boxes, image.shape[-1])


def padded_size(size: tuple[int, int], divisor: int) -> tuple[int, int]:
    """The smallest (h, w) that holds `size` and is a multiple of `divisor` in both."""
    height, width = (-(-side // divisor) * divisor for side in size)
    return height, width


def pad_stack(images: Sequence[Tensor], divisor: int) -> Tensor:
    """Stack images (3, h, w) as one batch (N, 3, H, W), zeros on the right and at the bottom."""
    sizes = [padded_size((image.shape[1], image.shape[2]), divisor) for image in images]
    height, width = max(h for h, _ in sizes), max(w for _, w in sizes)
    batch = images[0].new_zeros(len(images), images[0].shape[0], height, width)
    for slot, image in zip(batch, images):
        slot[:, : image.shape[1], : image.shape[2]] = image
    return batch
