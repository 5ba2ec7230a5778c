"""ResNet and ResNeXt with torchvision's layers (arXiv 1512.03385, 1611.05431)."""

from __future__ import annotations

import torchvision
from torch import Tensor, nn
from torchvision.models.resnet import Bottleneck

from sepcbench.ops.deformable import DeformableConv
from sepcbench.ops.modes import hold_statistics
from sepcbench.ops.pyramid import Pyramid
from sepcbench.specs import ResNetSpec


class ResNet(nn.Module):
    """torchvision's network without its classifier; parameter names are torchvision's.

    The 3x3 convs of stages 3 to 5 can be deformable (arXiv 1703.06211, 1811.11168): their offset
    convs are called `conv2.offset`.

    Attributes:
        channels: of C2, C3, C4, C5.
    """

    def __init__(self, spec: ResNetSpec) -> None:
        super().__init__()
        build = getattr(torchvision.models, f"resnet{spec.depth}")
        net = build(weights=None, groups=spec.groups, width_per_group=spec.group_width)
        self.conv1, self.bn1, self.relu, self.maxpool = net.conv1, net.bn1, net.relu, net.maxpool
        self.layer1, self.layer2, self.layer3 = net.layer1, net.layer2, net.layer3
        if spec.last_stage == 5:
            self.layer4 = net.layer4
        self.spec = spec
        self._follow_spec()
        widest = net.fc.in_features
        channels = (widest // 8, widest // 4, widest // 2, widest)
        self.channels = channels[: spec.last_stage - 1]
        for module in self._frozen():
            module.requires_grad_(False)

    def _follow_spec(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eps = self.spec.bn_eps
            if isinstance(module, Bottleneck) and self.spec.stride_in == "1x1":
                module.conv1.stride, module.conv2.stride = module.conv2.stride, module.conv1.stride
        if self.spec.deform == "none":
            return
        for stage in self._stages()[1:]:
            for block in stage:
                block.conv2 = DeformableConv.like(block.conv2, self.spec.deform)  # type: ignore

    def _stages(self) -> list[nn.Sequential]:
        """layer1 up to the last one that is there."""
        names = ("layer1", "layer2", "layer3", "layer4")
        return [getattr(self, name) for name in names[: self.spec.last_stage - 1]]

    def _frozen(self) -> list[nn.Module]:
        """The stem is stage 0; stages up to `frozen_stages` do not train."""
        stages: list[list[nn.Module]] = [[self.conv1, self.bn1]]
        stages += [[layer] for layer in self._stages()]
        return [module for stage in stages[: self.spec.frozen_stages + 1] for module in stage]

    def forward(self, images: Tensor) -> Pyramid:
        """Compute C2..C5 of normalised images (N, 3, H, W)."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        maps = []
        for stage in self._stages():
            x = stage(x)
            maps.append(x)
        return maps

    def train(self, mode: bool = True) -> ResNet:
        """Set the mode; BN of frozen stages, or all BN if the spec says so, stays in eval mode."""
        super().train(mode)
        hold_statistics([self] if self.spec.bn == "eval" else self._frozen())
        return self
