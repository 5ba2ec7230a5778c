"""Heads: pyramid or pyramid pair in, raw predictions per level out, and their decoding.

Training targets and losses live in `sepcbench.training.objectives`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from sepcbench.heads.atss import AtssHead
from sepcbench.heads.fcos import FcosHead
from sepcbench.heads.fsaf import FsafHead
from sepcbench.heads.outputs import Detections, LevelOutput, Scene
from sepcbench.heads.rcnn import RcnnHead, RoiOutput
from sepcbench.heads.rep_points import RepPointsHead
from sepcbench.heads.retina import RetinaHead
from sepcbench.heads.rpn import RpnHead
from sepcbench.specs import (
    AtssSpec,
    FcosSpec,
    FreeAnchorSpec,
    FsafSpec,
    RcnnSpec,
    RepPointsSpec,
    RetinaSpec,
    RpnSpec,
)

HEADS: dict[type, Callable[[Any, tuple[int, ...], int, tuple[int, ...], Any], nn.Module]] = {
    RetinaSpec: RetinaHead,
    FreeAnchorSpec: RetinaHead,  # only training and the default of box_stds differ
    FsafSpec: FsafHead,
    FcosSpec: FcosHead,
    AtssSpec: AtssHead,
    RepPointsSpec: RepPointsHead,
    RpnSpec: RpnHead,
    RcnnSpec: RcnnHead,
}
"""Spec type to builder `(spec, in_channels, num_classes, strides, conventions) -> module`."""

__all__ = ["HEADS", "Detections", "LevelOutput", "RoiOutput", "Scene"]
