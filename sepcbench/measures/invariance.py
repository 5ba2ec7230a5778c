"""Scale invariance of a neck, measured (Remark 1 and Appendix 3 of arXiv 2005.03101).

Shrinking an image by two should shift what a neck gives by one level: level l of the whole image
shows the same as level l-1, the finer one, of its half-size version, cell by cell. On a Gaussian
pyramid the two inputs of a PConv are equal, and so are its outputs. Real feature pyramids differ.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sepcbench.detectors import Detector
from sepcbench.errors import UsageError
from sepcbench.measures.agreement import (
    Agreement,
    LevelMatrix,
    agreement,
    inner,
    level_correlations,
)
from sepcbench.measures.evaluating import evaluating
from sepcbench.ops.gaussian import gaussian_pyramid, shrink
from sepcbench.ops.pyramid import Pyramid, PyramidPair
from sepcbench.specs import NeckSpec, VariantSpec

BORDER = 2  # cells at each side that are left out, where so many are there

Lengthen = Callable[
    [Sequence[NeckSpec], Iterable[nn.Module], tuple[int, ...], int | None], nn.ModuleList
]
"""Builds a chain of necks for more levels: from its specs, itself, the channels of the levels, and
a seed to draw its kernels by, or None to keep them."""


@dataclass(frozen=True)
class LevelPair:
    """Level `level` of the whole image beside level `level - 1` of the half-size one.

    Attributes:
        level: of the whole image.
        cells: (h, w) compared, without the border.
        inside: no kernel across scales reaches an end of either pyramid on the way to this pair.
        before: of the maps that go into the PConvs; of the neck's where it has none.
        plain: of what comes out if none of their kernels is deformed; None where none is.
        after: of what comes out, both branches together; None where there are no PConvs.
    """

    level: int
    cells: tuple[int, int]
    inside: bool
    before: Agreement
    plain: Agreement | None
    after: Agreement | None


@dataclass(frozen=True)
class Invariance:
    """One variant's.

    Attributes:
        variant: its name.
        source: "network" (its backbone and fusing neck) or "gaussian".
        shape: (h, w) of the whole image, padded.
        border: cells left out at each side, at most.
        pairs: fine to coarse.
        removed: 1 - (mean error after) / (mean error before): the share of its input's error that
            the tower removes, negative where it adds. On a Gaussian pyramid only of the pairs that
            are inside.
        repaired: 1 - (mean error after) / (mean error with plain kernels): the share of PConv's
            error that deforming removes, with the same weights.
        matrices: between the levels of the whole image, before and after each part.
    """

    variant: str
    source: str
    shape: tuple[int, int]
    border: int
    pairs: tuple[LevelPair, ...]
    removed: float | None
    repaired: float | None
    matrices: tuple[LevelMatrix, ...]


class Stages(NamedTuple):
    """The pyramids of one image on its way; `plain` and `after` as in `LevelPair`."""

    backbone: Pyramid
    before: Pyramid
    plain: Pyramid | None
    after: Pyramid | None


@torch.no_grad()
def on_network(
    detector: Detector, image: Tensor, *, device: str = "cpu", border: int = BORDER
) -> Invariance:
    """Compare through the detector's own backbone and necks.

    Args:
        detector: moved to `device`; in eval mode while it runs.
        image: (1, 3, H, W), normalised; sides such that the half-size image fits the backbone.
        device: where to run.
        border: cells to leave out at each side.
    """
    detector.to(device)
    first = _first_pconv(detector.spec)
    image = image.to(device)
    with evaluating(detector):
        stages = [_through(detector, x, first) for x in (image, shrink(image))]
    return _summary(detector.spec, "network", image, stages, detector.spec.levels, border)


@torch.no_grad()
def on_gaussian(
    detector: Detector,
    image: Tensor,
    lengthen: Lengthen,
    *,
    seed: int | None = None,
    device: str = "cpu",
    border: int = BORDER,
) -> Invariance:
    """Compare the variant's PConvs on Gaussian pyramids instead of the network's.

    The image is spread over the channels by a random 1x1 conv, which commutes with blurring. The
    pyramid has more levels than the detector's at both ends, as far as the image allows, so that
    its ends, where PConvs leave out a term, are out of reach of the levels in the middle.

    Args:
        detector: only read: what runs is a longer copy of its PConvs.
        image: (1, 3, H, W), normalised.
        lengthen: makes that copy; `necks.lengthening.lengthened`.
        seed: draw the kernels of the PConvs; None keeps the detector's.
        device: where to run.
        border: cells to leave out at each side.

    Raises:
        UsageError: the variant has no PConv, or its norms cannot have more levels.
    """
    spec = detector.spec
    first = _first_pconv(spec)
    if first is None:
        raise UsageError(
            f"variant '{spec.name}' has no PConv to measure on a Gaussian pyramid; "
            "try one with a pconv or sepc neck"
        )
    reach, (finest, *_, coarsest) = _reach(spec), spec.levels
    levels = tuple(range(max(0, finest - reach), coarsest + reach + 1))
    channels: int = detector.necks[first - 1].out_channels[0] if first else 3  # type: ignore
    given: Any = detector.necks[first:]
    necks = lengthen(spec.necks[first:], given, (channels,) * len(levels), seed).to(device)
    spread = torch.randn(channels, 3, 1, 1, generator=torch.Generator().manual_seed(seed or 0))
    lifted = F.conv2d(image, spread).to(device)
    stages = []
    for x in (lifted, shrink(lifted)):
        pyramid = gaussian_pyramid(x, levels[-1] + 1)[levels[0] :]
        stages.append(Stages([], pyramid, *_outputs(necks, pyramid)))
    return _summary(spec, "gaussian", image, stages, levels, border)


# --- running -------------------------------------------------------------------------------


def _first_pconv(spec: VariantSpec) -> int | None:
    """The index of the first neck with kernels across scales."""
    found = (i for i, neck in enumerate(spec.necks) if neck.scale_reach is not None)
    return next(found, None)


def _reach(spec: VariantSpec) -> int:
    """How many levels up and down the PConvs read altogether."""
    return sum(neck.scale_reach or 0 for neck in spec.necks)


def _through(detector: Detector, images: Tensor, first: int | None) -> Stages:
    features = detector.features(images)
    pyramid = features
    for neck in detector.necks[:first]:
        pyramid = neck(pyramid)
    if first is None:
        return Stages(features, pyramid, None, None)
    return Stages(features, pyramid, *_outputs(detector.necks[first:], pyramid))


def _outputs(necks: nn.ModuleList, pyramid: Pyramid) -> tuple[Pyramid | None, Pyramid]:
    """What comes out with plain kernels, if any is deformable, and as the necks are."""
    plain = None
    if any(getattr(module, "deform_from", None) is not None for module in necks.modules()):
        with _plain_kernels(necks):
            plain = _joined(necks, pyramid)
    return plain, _joined(necks, pyramid)


def _joined(necks: nn.ModuleList, pyramid: Pyramid) -> Pyramid:
    """The output of the necks, both branches side by side as channels."""
    outputs: Pyramid | PyramidPair = pyramid
    for neck in necks:
        outputs = neck(outputs)
    if isinstance(outputs, PyramidPair):
        return [torch.cat(level, dim=1) for level in zip(outputs.cls, outputs.loc)]
    return outputs


@contextmanager
def _plain_kernels(necks: nn.ModuleList) -> Iterator[None]:
    """No kernel is deformed inside."""
    deformable: list[Any] = [m for m in necks.modules() if hasattr(m, "deform_from")]
    before = [module.deform_from for module in deformable]
    try:
        for module in deformable:
            module.deform_from = None
        yield
    finally:
        for module, level in zip(deformable, before):
            module.deform_from = level


# --- comparing -----------------------------------------------------------------------------


def _summary(
    spec: VariantSpec,
    source: str,
    image: Tensor,
    stages: Sequence[Stages],
    levels: Sequence[int],
    border: int,
) -> Invariance:
    whole, half = stages
    reach = _reach(spec)
    pairs = tuple(
        LevelPair(
            level,
            _size(inner(whole.before[i], half.before[i - 1], border)[0]),
            min(i - 1, len(levels) - 1 - i) >= reach,
            *(
                agreement(*inner(ours[i], theirs[i - 1], border)) if ours and theirs else None
                for ours, theirs in zip(whole[1:], half[1:])
            ),  # type: ignore[arg-type]
        )
        for i, level in enumerate(levels)
        if i > 0
    )
    # a longer Gaussian pyramid is there to have pairs out of reach of its ends
    counted = [pair for pair in pairs if pair.inside or source == "network"]
    before, plain, after = (
        _mean([getattr(pair, stage) for pair in counted]) for stage in ("before", "plain", "after")
    )
    names = tuple(f"P{level}" for level in levels)
    return Invariance(
        spec.name,
        source,
        _size(image),
        border,
        pairs,
        _share(after, before),
        _share(after, plain),
        _matrices(whole, names, [f"P{level}" for level in spec.levels]),
    )


def _size(x: Tensor) -> tuple[int, int]:
    return x.shape[2], x.shape[3]


def _mean(found: Sequence[Agreement | None]) -> float | None:
    errors = [one.error for one in found if one is not None and one.error is not None]
    return sum(errors) / len(errors) if errors else None


def _share(after: float | None, before: float | None) -> float | None:
    return None if after is None or not before else 1 - after / before


def _matrices(
    stages: Stages, names: Sequence[str], wanted: Sequence[str]
) -> tuple[LevelMatrix, ...]:
    """Of the backbone's maps, and of the detector's own levels of every pyramid."""
    backbone = [f"C{i}" for i in range(2, 2 + len(stages.backbone))]
    own = slice(names.index(wanted[0]), names.index(wanted[-1]) + 1)
    pyramid = "after the fusing necks" if stages.backbone else "Gaussian pyramid"
    parts = (
        ("backbone", backbone, stages.backbone),
        (pyramid, wanted, stages.before[own]),
        ("after plain PConvs", wanted, (stages.plain or [])[own]),
        ("after the tower", wanted, (stages.after or [])[own]),
    )
    return tuple(
        LevelMatrix(name, *level_correlations(labels, maps)) for name, labels, maps in parts if maps
    )
