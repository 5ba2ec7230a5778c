"""What a second stage makes of the features of a RoI: class logits and boxes of every class."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.resnet import Bottleneck

from sepcbench.ops.modes import hold_statistics
from sepcbench.specs import RcnnSpec


class TwoFc(nn.Module):
    """Two fully connected layers (arXiv 1612.03144, section 4.2).

    Attributes:
        width: of the vector of a RoI.
    """

    def __init__(self, spec: RcnnSpec, in_channels: int) -> None:
        super().__init__()
        self.width = spec.fc_channels
        self.fc1 = nn.Linear(in_channels * spec.pool_size**2, spec.fc_channels)
        self.fc2 = nn.Linear(spec.fc_channels, spec.fc_channels)
        for layer in (self.fc1, self.fc2):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, features: Tensor) -> Tensor:
        """(r, C, size, size) -> (r, width)."""
        return F.relu(self.fc2(F.relu(self.fc1(features.flatten(1)))))


class Conv5(nn.Module):
    """The last stage of a ResNet, three bottlenecks, then the average (arXiv 1512.03385).

    The stage halves the RoI's cells and doubles its channels. Parameters have the names of
    torchvision's `layer4`; BN is in eval mode while training, as in the backbone.

    Attributes:
        width: of the vector of a RoI.
    """

    def __init__(self, spec: RcnnSpec, in_channels: int) -> None:
        super().__init__()
        self.width = 2 * in_channels
        inner = self.width // Bottleneck.expansion
        shortcut = nn.Sequential(
            nn.Conv2d(in_channels, self.width, 1, stride=2, bias=False), nn.BatchNorm2d(self.width)
        )
        self.layer4 = nn.Sequential(
            Bottleneck(in_channels, inner, stride=2, downsample=shortcut),
            *(Bottleneck(self.width, inner) for _ in range(2)),
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, features: Tensor) -> Tensor:
        """(r, C, size, size) -> (r, width)."""
        return F.adaptive_avg_pool2d(self.layer4(features), 1).flatten(1)

    def train(self, mode: bool = True) -> Conv5:
        """Set the mode; BN stays in eval mode."""
        super().train(mode)
        hold_statistics([self])
        return self


BODIES: dict[str, Callable[[RcnnSpec, int], nn.Module]] = {"2fc": TwoFc, "conv5": Conv5}
"""From `RcnnSpec.box_head` to its builder `(spec, in_channels) -> module with .width`."""


class BoxHead(nn.Module):
    """The features of RoIs to logits of K classes and the background, and class-specific deltas.

    Args:
        spec: of the whole head.
        in_channels: of the RoI's features.
        num_classes: K, without background.
    """

    def __init__(self, spec: RcnnSpec, in_channels: int, num_classes: int) -> None:
        super().__init__()
        self.spec, self.num_classes = spec, num_classes
        self.body = BODIES[spec.box_head](spec, in_channels)
        width: int = self.body.width  # type: ignore[assignment]
        self.cls_pred = nn.Linear(width, num_classes + 1)
        self.box_pred = nn.Linear(width, class_columns(spec, num_classes) * 4)
        for layer, std in ((self.cls_pred, 0.01), (self.box_pred, 0.001)):
            nn.init.normal_(layer.weight, std=std)
            nn.init.zeros_(layer.bias)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """(r, C, size, size) -> logits (r, K + 1) and deltas (r, 4 * columns)."""
        x = self.body(features)
        return self.cls_pred(x), self.box_pred(x)


def class_columns(spec: RcnnSpec, num_classes: int) -> int:
    """How many boxes and masks a RoI has: of the classes, and of the background if it is first."""
    return num_classes + int(spec.background == "first")


def without_background(values: Tensor, spec: RcnnSpec) -> Tensor:
    """The boxes (r, columns, ...) or masks of the K classes."""
    return values[:, 1:] if spec.background == "first" else values
