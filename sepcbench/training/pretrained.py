"""Weights that a backbone starts from: ImageNet's by name, or those of a file."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from sepcbench.detectors import Detector
from sepcbench.errors import CheckpointError, UsageError
from sepcbench.specs import BackboneSpec, Conventions, ResNetSpec, TimmSpec

IMAGENET = "imagenet"
# of the values 0 to 1 of red, green and blue, as torchvision's weights were trained
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_CLASSIFIER = ("fc.", "classifier.", "head.")
_STAGES = ("layer1.", "layer2.", "layer3.", "layer4.")
_WRAPPERS = ("state_dict", "model", "model_state_dict")
# from (depth, groups, width of a group) to the weights that the papers started from: the first of
# torchvision's, not those of its newer recipe, where there are any
TORCHVISION = {
    (18, 1, 64): "ResNet18_Weights.IMAGENET1K_V1",
    (34, 1, 64): "ResNet34_Weights.IMAGENET1K_V1",
    (50, 1, 64): "ResNet50_Weights.IMAGENET1K_V1",
    (101, 1, 64): "ResNet101_Weights.IMAGENET1K_V1",
    (152, 1, 64): "ResNet152_Weights.IMAGENET1K_V1",
    (50, 32, 4): "ResNeXt50_32X4D_Weights.IMAGENET1K_V1",
    (101, 32, 8): "ResNeXt101_32X8D_Weights.IMAGENET1K_V1",
    (101, 64, 4): "ResNeXt101_64X4D_Weights.IMAGENET1K_V1",
}


class Fit(NamedTuple):
    """How weights fit a backbone: what is left out of them, and what they have nothing for."""

    dropped: tuple[str, ...]
    fresh: tuple[str, ...]


def load_backbone(detector: Detector, source: str) -> str:
    """Give a detector's backbone weights, strictly; a line that says which.

    Args:
        detector: built, with random weights.
        source: "imagenet", or a file: a state dict of the same network with torchvision's names.

    Raises:
        UsageError: there are no such weights for this backbone.
        CheckpointError: they cannot be had or read, or do not fit.
    """
    spec, how = detector.spec.backbone, detector.spec.conventions
    if source == IMAGENET:
        name, state = _imagenet(spec, how)
    else:
        name, state = source, _read(Path(source))
    inside = detector.backbone.net if isinstance(spec, TimmSpec) else detector.backbone
    assert isinstance(inside, nn.Module)
    fit = fitted(inside, state, name)
    dropped = f"; left out {_few(fit.dropped)}" if fit.dropped else ""
    fresh = f"; random {_few(fit.fresh)}" if fit.fresh else ""
    return f"backbone: {len(state) - len(fit.dropped)} tensors from {name}{dropped}{fresh}"


def digest(source: str) -> str | None:
    """Of the file that a recipe's weights come from; None if it is none, or not there."""
    if source in ("", IMAGENET) or not Path(source).is_file():
        return None
    with open(source, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def fitted(backbone: nn.Module, state: Mapping[str, Tensor], name: str) -> Fit:
    """Load a state dict into a backbone.

    Left out may be the classifier, and stages that the backbone does not have; missing may be the
    offset convs of deformable ones, which start at zero, and counters of batches.

    Raises:
        CheckpointError: anything else is left over, is missing, or has another shape.
    """
    own = backbone.state_dict()
    absent = tuple(s for s in _STAGES if not any(key.startswith(s) for key in own))
    left = [key for key in state if key not in own]
    missing = [key for key in own if key not in state and "num_batches_tracked" not in key]
    wrong = [key for key in left if not key.startswith(_CLASSIFIER + absent)]
    needed = [key for key in missing if ".offset." not in key]
    shapes = [key for key in state if key in own and state[key].shape != own[key].shape]
    kinds = (("unknown", wrong), ("missing", needed), ("of another shape", shapes))
    problems = "; ".join(f"{len(keys)} {what}: {_few(keys)}" for what, keys in kinds if keys)
    if problems:
        raise CheckpointError(f"weights '{name}' do not fit the backbone: {problems}")
    backbone.load_state_dict({k: v for k, v in state.items() if k in own}, strict=False)
    return Fit(tuple(left), tuple(missing))


def _few(keys: list[str] | tuple[str, ...]) -> str:
    return ", ".join(keys[:3]) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")


def _imagenet(spec: BackboneSpec, how: Conventions) -> tuple[str, dict[str, Tensor]]:
    if isinstance(spec, TimmSpec):
        return f"timm's {spec.model}", _from_timm(spec, how)
    if not isinstance(spec, ResNetSpec):
        raise UsageError(
            f"backbone '{spec.label}' has no ImageNet weights; set the recipe's pretrained to '' "
            "or to a file, with --recipe pretrained="
        )
    shape = (spec.depth, spec.groups, spec.group_width)
    if shape not in TORCHVISION:
        raise UsageError(
            f"torchvision has no ImageNet weights of ResNet {spec.depth} with {spec.groups} groups "
            f"of {spec.group_width}; give a file with --recipe pretrained=FILE"
        )
    if spec.depth >= 50 and spec.stride_in != "3x3":
        raise UsageError(
            "torchvision's ImageNet weights have the stride in the 3x3 conv, and this backbone in "
            "the first 1x1; use --set stride_in=3x3, or give a file with --recipe pretrained=FILE"
        )
    _check_pixels(how, _MEAN, _STD, "torchvision's")
    import torchvision

    kind, version = TORCHVISION[shape].split(".")
    weights = getattr(getattr(torchvision.models, kind), version)
    try:
        return TORCHVISION[shape], dict(weights.get_state_dict(progress=False, check_hash=True))
    except (OSError, RuntimeError) as error:  # no network, a full disk, a file of another hash
        raise _offline(f"torchvision's {TORCHVISION[shape]}", weights.url, error) from None


def _from_timm(spec: TimmSpec, how: Conventions) -> dict[str, Tensor]:
    from sepcbench.backbones.timm_features import create_pretrained

    try:
        net = create_pretrained(spec)
    except (OSError, RuntimeError, ValueError) as error:
        raise _offline(f"timm's weights of {spec.model}", "their hub", error) from None
    config: Any = getattr(net, "pretrained_cfg", None) or {}
    _check_pixels(how, config.get("mean", _MEAN), config.get("std", _STD), "timm's")
    return dict(net.state_dict())


def _check_pixels(
    how: Conventions, mean: Sequence[float], std: Sequence[float], whose: str
) -> None:
    """Check that images are normalised as the weights were trained: a frozen stem stays so.

    Raises:
        UsageError: they are not.
    """
    scale = 255.0 if how.value_range == "255" else 1.0
    pairs = [*zip(how.mean, mean), *zip(how.std, std)]
    alike = all(math.isclose(own / scale, theirs, rel_tol=0.01) for own, theirs in pairs)
    if how.channels != "rgb" or not alike:
        raise UsageError(
            f"{whose} ImageNet weights are for RGB of mean {tuple(mean)} and deviation "
            f"{tuple(std)}, which conventions '{how.name}' do not give; choose others with --set, "
            "or give a file with --recipe pretrained=FILE"
        )


def _offline(what: str, url: str, error: Exception) -> CheckpointError:
    reason = " ".join(str(error).split())[:160]
    return CheckpointError(
        f"cannot get {what} from {url}: {reason}; without a network get the file elsewhere and "
        "give it with --recipe pretrained=FILE"
    )


def _read(path: Path) -> dict[str, Tensor]:
    """The state dict of a file, safetensors or torch's."""
    if not path.is_file():
        raise UsageError(
            f"recipe pretrained '{path}': there is no such file, nor is it '{IMAGENET}'"
        )
    found: Any
    try:
        if path.suffix == ".safetensors":
            import safetensors.torch

            found = safetensors.torch.load_file(path)
        else:
            found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # readers of damaged files fail in any way
        reason = " ".join(str(error).split())[:120]
        raise CheckpointError(f"weights '{path}' cannot be read: {reason}") from None
    for key in _WRAPPERS:
        found = (
            found[key] if isinstance(found, dict) and isinstance(found.get(key), dict) else found
        )
    if not isinstance(found, dict) or not all(isinstance(v, Tensor) for v in found.values()):
        raise CheckpointError(f"weights '{path}' hold no state dict of tensors")
    return {str(key).removeprefix("module."): value for key, value in found.items()}
