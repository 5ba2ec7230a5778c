"""The mask head of a second stage."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F

from sepcbench.heads.box_head import class_columns
from sepcbench.specs import RcnnSpec


class MaskHead(nn.Module):
    """Convs on the features of RoIs, a deconv to twice the size, a mask per class.

    Mask R-CNN (arXiv 1703.06870, figure 4 right).

    Args:
        spec: of the whole head, with a mask.
        in_channels: of the RoI's features.
        num_classes: K, without background.
    """

    def __init__(self, spec: RcnnSpec, in_channels: int, num_classes: int) -> None:
        super().__init__()
        assert spec.mask is not None
        mask = spec.mask
        widths = [in_channels] + [mask.channels] * mask.depth
        self.convs = nn.ModuleList(
            nn.Conv2d(before, after, 3, padding=1) for before, after in pairwise(widths)
        )
        self.deconv = nn.ConvTranspose2d(widths[-1], mask.channels, 2, stride=2)
        self.pred = nn.Conv2d(mask.channels, class_columns(spec, num_classes), 1)
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]
        nn.init.normal_(self.pred.weight, std=0.001)

    def forward(self, features: Tensor) -> Tensor:
        """(r, C, size, size) -> logits (r, columns, 2 * size, 2 * size)."""
        x = features
        for conv in self.convs:
            x = F.relu(conv(x))
        return self.pred(F.relu(self.deconv(x)))  # type: ignore[no-any-return]
