"""Random weights that give the work that trained ones give: deformation, norms, boxes for NMS.

As initialised, deformable convs read on the grid, and no score passes the threshold: both would
make a network look cheaper than it is. Batch norms change nothing, so that an engine that loses
them would pass the check of its outputs. Weights that were trained stay as they are.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from sepcbench.detectors import Detector
from sepcbench.heads.rcnn import RcnnHead, RoiOutput
from sepcbench.heads.rpn import RpnHead
from sepcbench.ops.convs import LevelConv
from sepcbench.ops.deformable import DeformableConv

CANDIDATES = 1000  # boxes per image above the threshold, as a trained one-stage detector has them
_MOST = 0.1  # of all scores: small images have fewer
# How much logits of a softmax over classes are stretched, one of them is chosen.
_STRETCH = tuple(2.0 ** (i / 2) for i in range(-4, 17))


def needs_life(detector: nn.Module, boxes: bool) -> bool:
    """Whether `liven` would change something.

    Args:
        detector: any module; only one of sepcbench is changed.
        boxes: whether boxes are decoded.
    """
    if not isinstance(detector, Detector):
        return False
    if _flat_offsets(detector) or _untrained_norms(detector):
        return True
    return boxes and _class_layer(detector) is not None


@torch.no_grad()
def liven(detector: Detector, images: Tensor, seed: int, *, boxes: bool) -> None:
    """Give random weights the work of trained ones, in place.

    Offset convs that are zero get normal weights, scaled so that taps move by about a cell. Batch
    norms of mean 0 and variance 1 get mild statistics and affine that differ by channel. The class
    layer is stretched and shifted so that about `CANDIDATES` boxes pass the threshold.

    Args:
        detector: in eval mode, float32.
        images: (1, 3, H, W), like those that are timed.
        seed: of the weights.
        boxes: whether boxes are decoded.
    """
    generator = torch.Generator().manual_seed(seed)
    with ExitStack() as stack:
        for conv, rows in _flat_offsets(detector):
            stack.enter_context(_scaled_when_called(conv, rows, generator))
        for norm in _untrained_norms(detector):
            stack.enter_context(_mild_when_called(norm, generator))
        outputs: Any = detector(images)
    layer = _class_layer(detector) if boxes else None
    if layer is None:
        return
    if isinstance(outputs, RoiOutput):
        _stretch_softmax(layer, outputs.cls, detector.head)  # type: ignore[arg-type]
    else:
        logits = torch.cat([level.cls.float().flatten() for level in outputs])
        _shift_sigmoid(layer, logits, detector.spec.conventions.score_threshold)


def count_candidates(detector: Any, outputs: Any, images: int) -> int | None:
    """Scores above the threshold, per image; None where boxes are not chosen by one.

    Args:
        detector: with a head of sepcbench.
        outputs: of its `forward`.
        images: of the batch.
    """
    if isinstance(getattr(detector, "head", None), RpnHead) or not hasattr(detector, "spec"):
        return None
    threshold = detector.spec.conventions.score_threshold
    if isinstance(outputs, RoiOutput):
        assert outputs.cls is not None
        passed = _above(outputs.cls, detector.head, threshold)
    else:
        passed = sum(int((level.cls.float().sigmoid() > threshold).sum()) for level in outputs)
    return round(passed / images)


# --- offsets -------------------------------------------------------------------------------


def _flat_offsets(detector: nn.Module) -> list[tuple[nn.Conv2d, int]]:
    """Offset convs that are all zero, each with how many of its outputs are offsets."""
    found = []
    for module in detector.modules():
        if isinstance(module, (LevelConv, DeformableConv)):
            conv = getattr(module, "offset", None)
            if isinstance(conv, nn.Conv2d) and not conv.weight.any():
                found.append((conv, 2 * math.prod(module.kernel_size)))
    return found


@contextmanager
def _scaled_when_called(conv: nn.Conv2d, rows: int, generator: torch.Generator) -> Iterator[None]:
    """Random weights for the first `rows` outputs, scaled in the first call to a size of 1."""
    weight = conv.weight[:rows]
    weight.copy_(torch.randn(weight.shape, generator=generator))

    def scale(module: nn.Module, args: Any, output: Tensor) -> Tensor:
        handle.remove()
        size = output[:, :rows].float().square().mean().sqrt().clamp(min=1e-12)
        weight.div_(size.to(weight.dtype))
        return conv.forward(args[0])

    handle = conv.register_forward_hook(scale)
    try:
        yield
    finally:
        handle.remove()


# --- norms ---------------------------------------------------------------------------------


def _untrained_norms(detector: nn.Module) -> list[nn.Module]:
    """Norms with running statistics as they start, also those that are frozen."""
    found = []
    for module in detector.modules():
        mean, var = (getattr(module, name, None) for name in ("running_mean", "running_var"))
        if isinstance(mean, Tensor) and isinstance(var, Tensor):
            started = not mean.any() and bool((var == 1).all())
            if started and all(_all_one_value(part) for part in _affine(module)):
                found.append(module)
    return found


def _affine(norm: Any) -> list[Tensor]:
    return [part for part in (norm.weight, norm.bias) if part is not None]


def _all_one_value(values: Tensor) -> bool:
    return bool((values == values[0]).all())


@contextmanager
def _mild_when_called(norm: Any, generator: torch.Generator) -> Iterator[None]:
    """Statistics and affine that differ by channel, of the size of what comes in at first."""

    def randomise(module: nn.Module, args: Any) -> None:
        handle.remove()
        levels = [level.float() for level in pytree.tree_leaves(args) if isinstance(level, Tensor)]
        cells = sum(level.numel() for level in levels)
        size = (sum(level.square().sum() for level in levels) / max(1, cells)) ** 0.5
        _randomise(norm, float(size), generator)

    handle = norm.register_forward_pre_hook(randomise)
    try:
        yield
    finally:
        handle.remove()
    if not norm.running_mean.any():  # not called
        _randomise(norm, 1.0, generator)


def _randomise(norm: Any, size: float, generator: torch.Generator) -> None:
    """Mean and bias of a tenth and a twentieth of `size`; variance and weight near 1."""
    channels = norm.running_mean.shape[0]
    normal = torch.randn(2, channels, generator=generator)
    even = torch.rand(2, channels, generator=generator)
    norm.running_mean.copy_(0.1 * size * normal[0])
    norm.running_var.copy_(0.8 + 0.45 * even[0])
    if norm.weight is not None:
        norm.weight.mul_((0.9 + 0.2 * even[1]).to(norm.weight))
    if norm.bias is not None:
        norm.bias.add_((0.05 * size * normal[1]).to(norm.bias))


# --- scores --------------------------------------------------------------------------------


def _class_layer(detector: Detector) -> nn.Conv2d | nn.Linear | None:
    """What gives the class scores, if it was not trained: then all its biases are the same."""
    head = detector.head
    if isinstance(head, RpnHead):
        return None
    layer = getattr(head.box_head if isinstance(head, RcnnHead) else head, "cls_pred", None)
    if not isinstance(layer, (nn.Conv2d, nn.Linear)) or layer.bias is None:
        return None
    return layer if bool((layer.bias == layer.bias[0]).all()) else None


def _shift_sigmoid(layer: nn.Module, logits: Tensor, threshold: float) -> None:
    """Logits of spread 1, far enough apart for half precision, of which enough pass."""
    weight, bias = _weights(layer)
    spread = logits.std().clamp(min=1e-6)
    wanted = min(CANDIDATES, max(1, int(_MOST * logits.numel())))
    best = ((logits - bias[0]) / spread).topk(wanted).values[-1]
    weight.div_(spread)
    bias.fill_(math.log(threshold / (1 - threshold)) - float(best))


def _stretch_softmax(layer: nn.Module, logits: Tensor, head: RcnnHead) -> None:
    """Logits so far apart that about enough classes of enough boxes pass."""
    weight, bias = _weights(layer)
    spread = logits.float().std().clamp(min=1e-6)
    even = (logits - bias).float() / spread
    threshold = head.conventions.score_threshold
    missed = {
        factor: abs(_above(even * factor, head, threshold) - CANDIDATES) for factor in _STRETCH
    }
    weight.mul_(min(_STRETCH, key=lambda factor: missed[factor]) / spread)


def _above(logits: Tensor, head: Any, threshold: float) -> int:
    scores = logits.float().softmax(dim=1)
    scores = scores[:, 1:] if head.spec.background == "first" else scores[:, :-1]
    return int((scores > threshold).sum())


def _weights(layer: Any) -> tuple[Tensor, Tensor]:
    return layer.weight, layer.bias
