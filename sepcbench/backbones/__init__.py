"""Backbones: normalised images (N, 3, H, W) in, the maps C2..C5 (strides 4, 8, 16, 32) out.

A backbone is built from its spec and has `channels`, one per map it gives; 0 stands for a map it
does not have. To add one: a file here, its spec in `sepcbench.specs`, a line in `BACKBONES`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from sepcbench.backbones.resnet import ResNet
from sepcbench.backbones.timm_features import TimmFeatures
from sepcbench.backbones.tiny import Tiny
from sepcbench.specs import ResNetSpec, TimmSpec, TinySpec

BACKBONES: dict[type, Callable[[Any], nn.Module]] = {
    ResNetSpec: ResNet,
    TinySpec: Tiny,
    TimmSpec: TimmFeatures,
}
"""From the type of a backbone's spec to its builder `(spec) -> module with .channels`."""

__all__ = ["BACKBONES", "ResNet", "TimmFeatures", "Tiny"]
