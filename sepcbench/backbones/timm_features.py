"""Any backbone of timm that gives maps of strides 8, 16 and 32."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from sepcbench.errors import UsageError, unknown
from sepcbench.ops.modes import hold_statistics
from sepcbench.ops.pyramid import Pyramid
from sepcbench.specs import TimmSpec

STRIDES = (4, 8, 16, 32)

# What a model needs to give maps as detectors use them, by timm's module that has it: HRNet's
# branches without the convs of its classifier, and inputs of any size.
_OPTIONS: dict[str, dict[str, Any]] = {
    "hrnet": {"feature_location": ""},
    "swin_transformer": {"strict_img_size": False},
    "swin_transformer_v2": {"strict_img_size": False},
    "swin_transformer_v2_cr": {"strict_img_size": False},
}


class TimmFeatures(nn.Module):
    """A timm model without its classifier, random weights; channels and strides read off it.

    Where it has several maps of one stride, the last counts. A model without a map of stride 4
    gives an empty one, (N, 0, H/4, W/4).

    Attributes:
        net: timm's module.
        channels: of C2, C3, C4, C5; 0 where there is no such map.
    """

    def __init__(self, spec: TimmSpec) -> None:
        super().__init__()
        self.spec = spec
        places = _places(spec)
        used = [(stride, *places[stride]) for stride in STRIDES if stride in places]
        self.net = _create(spec, out_indices=tuple(index for _, index, _ in used))
        self.channels = tuple(places[stride][1] if stride in places else 0 for stride in STRIDES)
        # timm gives (N, H, W, C) where the model works so
        self.last = str(getattr(self.net, "output_fmt", "NCHW")).endswith("NHWC")
        self.attends = any(hasattr(module, "num_heads") for module in self.net.modules())
        self._constants = _constants(self.net, spec)

    def forward(self, images: Tensor) -> Pyramid:
        """Compute C2..C5 of normalised images (N, 3, H, W)."""
        if self.attends and images.shape[0] == 0:
            # attention folds images and windows into one dimension, which an empty batch would
            # leave empty: costs are traced on one image instead
            return [x[:0] for x in self.forward(images.new_zeros(1, *images.shape[1:]))]
        maps = self._maps(images)
        if self.last:
            maps = [x.permute(0, 3, 1, 2).contiguous() for x in maps]
        if not self.channels[0]:
            height, width = (-(-int(side) // STRIDES[0]) for side in images.shape[2:])
            maps = [images.new_zeros(images.shape[0], 0, height, width), *maps]
        return maps

    def _maps(self, images: Tensor) -> Pyramid:
        try:
            return list(self.net(images))
        except (RuntimeError, AssertionError) as error:
            height, width = (int(side) for side in images.shape[2:])
            if _takes(self.spec, height, width):
                raise  # memory, types, devices
            raise UsageError(
                f"backbone 'timm:{self.spec.model}' takes no images of {height}x{width}; most "
                f"models need sides that are multiples of 32 ({' '.join(str(error).split())})"
            ) from error

    def train(self, mode: bool = True) -> TimmFeatures:
        """Set the mode; all BN stays in eval mode if the spec says so."""
        super().train(mode)
        hold_statistics([self] if self.spec.bn == "eval" else [])
        return self

    def _apply(self, fn: Any, recurse: bool = True) -> TimmFeatures:
        """Also restore constant buffers, which `to_empty` would leave undefined."""
        super()._apply(fn, recurse)
        for name, buffer in self.net.named_buffers():
            constant = self._constants.get(name)
            if constant is not None and constant.shape == buffer.shape and not buffer.is_meta:
                buffer.copy_(constant)
        return self


def _places(spec: TimmSpec) -> dict[int, tuple[int, int]]:
    """From stride to (index, channels) of the last map that has it.

    Raises:
        UsageError: timm is missing or has no such model, or the model lacks a stride.
    """
    with torch.device("meta"):
        info: Any = _create(spec).feature_info
    places = {map_["reduction"]: (i, map_["num_chs"]) for i, map_ in enumerate(info.info)}
    if not {8, 16, 32} <= set(places):
        found = ", ".join(str(stride) for stride in sorted(places))
        raise UsageError(
            f"backbone 'timm:{spec.model}' has maps of stride {found}; a detector needs 8, 16 and "
            "32; take a model with stages, such as timm:convnext_tiny"
        )
    return places


def create_pretrained(spec: TimmSpec) -> nn.Module:
    """The network inside `TimmFeatures` with timm's own weights, which it downloads.

    Raises:
        UsageError: timm is missing, or has no weights of it.
    """
    places = _places(spec)
    used = tuple(places[stride][0] for stride in STRIDES if stride in places)
    return _create(spec, out_indices=used, pretrained=True)


def _create(spec: TimmSpec, **options: Any) -> nn.Module:
    timm = _timm()
    architecture = spec.model.split(".")[0]
    if not timm.is_model(architecture):
        raise unknown("timm model", spec.model, timm.list_models(), "see timm.list_models()")
    for module, needed in _OPTIONS.items():
        if timm.models.is_model_in_modules(architecture, [module]):
            options |= needed
    try:
        return timm.create_model(  # type: ignore[no-any-return]
            spec.model if options.get("pretrained") else architecture,
            features_only=True,
            **{"pretrained": False, **options},
        )
    except (RuntimeError, TypeError, AttributeError, AssertionError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UsageError(f"backbone 'timm:{spec.model}' gives no feature maps: {reason}") from error


def _takes(spec: TimmSpec, height: int, width: int) -> bool:
    """Whether the model runs on images of this size where there is no memory to run out of."""
    with torch.device("meta"), torch.no_grad():
        try:
            _create(spec).eval()(torch.empty(1, 3, height, width))
        except NotImplementedError:  # an operator without shapes alone: not known
            return True
        except (RuntimeError, AssertionError):
            return False
    return True


def _timm() -> Any:
    try:
        import timm
    except ImportError as error:
        raise UsageError(
            "timm backbones need timm, which is not installed; pip install 'sepcbench[timm]'"
        ) from error
    return timm


def _constants(net: nn.Module, spec: TimmSpec) -> dict[str, Tensor]:
    """Values of the buffers that are no state, such as indices of relative positions."""
    stateful = net.state_dict()
    names = [name for name, _ in net.named_buffers() if name not in stateful]
    if not names:
        return {}
    with torch.device("cpu"):
        whole = dict(_create(spec).named_buffers())
    return {name: whole[name].clone() for name in names if name in whole}
