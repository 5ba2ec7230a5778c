"""Pre-processing on the device, for the scope that starts from images as they come from a file.

The speed protocol of the SEPC paper has pre-processing in it. Here it is: uint8 images on the host
are copied to the device, resized and normalised there, one by one; reading files is not in it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from sepcbench.specs import Conventions

SHRUNK = 0.6  # of an image's side: COCO's are about 480 x 640, resized to a short side of 800


def raw_images(
    size: tuple[int, int], batch: int, seed: int, *, pinned: bool = False
) -> list[Tensor]:
    """Noise as images of a file: (h, w, 3) uint8 on the host, smaller than `size` (H, W).

    `pinned`: in memory that a GPU copies from by itself, as loaders of data give them.
    """
    generator = torch.Generator().manual_seed(seed)
    height, width = (max(1, round(side * SHRUNK)) for side in size)
    noise = torch.randn(batch, height, width, 3, generator=generator)
    images = list((noise * 58 + 116).clamp(0, 255).to(torch.uint8))
    return [image.pin_memory() for image in images] if pinned else images


def scale_of(raw: Tensor, size: tuple[int, int]) -> tuple[float, float]:
    """What boxes are divided by, (x, y), to be in pixels of the file again."""
    return size[1] / raw.shape[1], size[0] / raw.shape[0]


def preparing(images: Tensor, raw: Sequence[Tensor], how: Conventions) -> Callable[[], None]:
    """Make what resizes and normalises images of files as a batch.

    Args:
        images: (N, 3, H, W), written over by every call.
        raw: N times (h, w, 3) uint8.
        how: channel order, range, mean and std.
    """
    mean, std = (  # copied to the device here, once
        images.new_tensor(v, dtype=torch.float32)[:, None, None] for v in (how.mean, how.std)
    )
    size = (images.shape[2], images.shape[3])

    def prepare() -> None:
        for slot, image in zip(images, raw, strict=True):
            maps = image.to(images.device, non_blocking=True).permute(2, 0, 1)[None].float()
            maps = F.interpolate(maps, size, mode="bilinear", antialias=how.antialias)[0]
            maps = maps.flip(0) if how.channels == "bgr" else maps
            maps = maps / 255 if how.value_range == "1" else maps
            slot.copy_((maps - mean) / std)

    return prepare


def prepare_into(images: Tensor, raw: Sequence[Tensor], how: Conventions) -> None:
    """Write images of files into a batch once; see `preparing`."""
    preparing(images, raw, how)()
