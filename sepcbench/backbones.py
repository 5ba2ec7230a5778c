"""Backbones: images in, the maps C2..C5 (strides 4, 8, 16, 32) out."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torchvision
from torch import Tensor, nn
from torchvision.models.resnet import Bottleneck

from sepcbench.specs import ResNetSpec, TinySpec


class ResNet(nn.Module):
    """torchvision's ResNet without its classifier; parameter names are torchvision's.

    Attributes:
        channels: of C2, C3, C4, C5.
    """

    def __init__(self, spec: ResNetSpec) -> None:
        super().__init__()
        net = getattr(torchvision.models, f"resnet{spec.depth}")(weights=None)
        self.conv1, self.bn1, self.relu, self.maxpool = net.conv1, net.bn1, net.relu, net.maxpool
        self.layer1, self.layer2 = net.layer1, net.layer2
        self.layer3, self.layer4 = net.layer3, net.layer4
        self.spec = spec
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eps = spec.bn_eps
            if isinstance(module, Bottleneck) and spec.stride_in == "1x1":
                module.conv1.stride, module.conv2.stride = module.conv2.stride, module.conv1.stride
        widest = net.fc.in_features
        self.channels = (widest // 8, widest // 4, widest // 2, widest)
        for module in self._frozen():
            module.requires_grad_(False)

    def _frozen(self) -> list[nn.Module]:
        """The stem is stage 0; stages up to `frozen_stages` do not train."""
        stages: list[list[nn.Module]] = [[self.conv1, self.bn1]]
        stages += [[layer] for layer in (self.layer1, self.layer2, self.layer3, self.layer4)]
        return [module for stage in stages[: self.spec.frozen_stages + 1] for module in stage]

    def forward(self, images: Tensor) -> list[Tensor]:
        """Compute C2..C5 of normalised images (N, 3, H, W)."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        c2 = self.layer1(x)
        c3 = self.layer2(c2)
        c4 = self.layer3(c3)
        return [c2, c3, c4, self.layer4(c4)]

    def train(self, mode: bool = True) -> ResNet:
        """Set the mode; BN of frozen stages, or all BN if the spec says so, stays in eval mode."""
        super().train(mode)
        fixed = [self] if self.spec.bn == "eval" else self._frozen()
        for part in fixed:
            for module in part.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        return self


class Tiny(nn.Module):
    """A plain backbone of about 0.4 M parameters: 3x3 convs, BN that trains, ReLU.

    Attributes:
        channels: of C2, C3, C4, C5.
    """

    def __init__(self, spec: TinySpec) -> None:
        super().__init__()
        self.channels = spec.channels
        stem = max(8, 2 * spec.channels[0] // 3)
        self.stem = _conv_bn_relu(3, stem, stride=2)
        widths = (stem, *spec.channels)
        self.stages = nn.ModuleList(
            nn.Sequential(_conv_bn_relu(before, after, stride=2), _conv_bn_relu(after, after))
            for before, after in pairwise(widths)
        )

    def forward(self, images: Tensor) -> list[Tensor]:
        """Compute C2..C5 of normalised images (N, 3, H, W)."""
        x = self.stem(images)
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps


def _conv_bn_relu(in_channels: int, out_channels: int, stride: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(conv, nn.BatchNorm2d(out_channels), nn.ReLU(inplace=True))


BACKBONES: dict[type, Callable[[Any], nn.Module]] = {ResNetSpec: ResNet, TinySpec: Tiny}
"""From the type of a backbone's spec to its builder `(spec) -> module with .channels`."""
