"""Checkpoints: weights on disk, with the variant they belong to.

To add a format: a file here with its `Format`, and a line in `FORMATS`.
"""

from __future__ import annotations

from sepcbench.checkpoints import (
    detectron2,
    mmdet,
    native_format,
    torchvision_fcos,
    torchvision_rcnn,
    torchvision_retinanet,
)
from sepcbench.checkpoints.format import Format

FORMATS: dict[str, Format] = {
    made.name: made
    for made in (
        native_format.FORMAT,
        mmdet.MMDET1,
        mmdet.MMDET2,
        mmdet.MMDET3,
        mmdet.UNIVERSENET,
        torchvision_retinanet.FORMAT,
        torchvision_fcos.FORMAT,
        torchvision_rcnn.FORMAT,
        detectron2.FORMAT,
    )
}
"""From the name of a format to how it is recognised and read."""

__all__ = ["FORMATS", "Format"]
