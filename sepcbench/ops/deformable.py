"""Deformable convs of a backbone: v1 with offsets, v2 with modulation too."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torchvision.ops import deform_conv2d

from sepcbench.ops.sampling import sampled_conv2d


def deformed(conv: nn.Conv2d, x: Tensor, offset: Tensor, mask: Tensor | None = None) -> Tensor:
    """Apply a conv with its taps moved.

    On a CPU in training by `sampled_conv2d`: torchvision's backward there is a scalar loop. In
    bfloat16, which torchvision's has not, computed in float32 and given back in bfloat16.

    Args:
        conv: its weights, stride and padding.
        x: (N, C, H, W).
        offset: (N, 2 * kh * kw, h, w), (dy, dx) of each tap in cells, taps by row.
        mask: (N, kh * kw, h, w), what each sampled value is multiplied by; None for 1.
    """
    sides: Any = (conv.stride, conv.padding)
    training = conv.training and torch.is_grad_enabled() and x.device.type == "cpu"
    convolve: Any = sampled_conv2d if training else deform_conv2d
    tensors = (x, offset, conv.weight, conv.bias, mask)
    if x.dtype == torch.bfloat16:
        tensors = tuple(None if one is None else one.float() for one in tensors)  # type: ignore
    *inputs, mask = tensors
    return convolve(*inputs, *sides, mask=mask).to(x.dtype)  # type: ignore[no-any-return]


class DeformableConv(nn.Conv2d):
    """A conv that reads each tap beside its place, as a conv on the same input says.

    v1 (arXiv 1703.06211): offsets (dy, dx) per tap and output cell, by a conv `offset` of the same
    size, stride and padding. v2 (arXiv 1811.11168): that conv gives one more value per tap, whose
    sigmoid the sample is multiplied by. The offset conv starts at zero: v1 starts as the plain
    conv, v2 as half of it.
    """

    offset: nn.Conv2d

    @classmethod
    def like(cls, conv: nn.Conv2d, kind: str) -> DeformableConv:
        """Build one in the place of a plain conv, with its sizes, groups and weights.

        Args:
            conv: the plain conv.
            kind: "v1" or "v2".
        """
        channels, sides = conv.in_channels, (conv.kernel_size, conv.stride, conv.padding)
        grouped: dict[str, Any] = {"groups": conv.groups, "bias": conv.bias is not None}
        made = cls(channels, conv.out_channels, *sides, **grouped)  # type: ignore[arg-type]
        made.weight, made.bias = conv.weight, conv.bias
        values = conv.kernel_size[0] * conv.kernel_size[1] * (2 if kind == "v1" else 3)
        made.offset = nn.Conv2d(channels, values, *sides)  # type: ignore[arg-type]
        nn.init.zeros_(made.offset.weight)
        nn.init.zeros_(made.offset.bias)  # type: ignore[arg-type]
        return made

    def forward(self, x: Tensor) -> Tensor:
        """Convolve (N, C, H, W)."""
        taps = self.kernel_size[0] * self.kernel_size[1]
        read = self.offset(x)
        if read.shape[1] == 2 * taps:
            return deformed(self, x, read)
        return deformed(self, x, read[:, : 2 * taps], read[:, 2 * taps :].sigmoid())
