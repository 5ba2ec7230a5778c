"""Modules of the user's own, dressed as detectors so that cost and latency can be measured.

A neck is put behind a backbone, or behind the pyramid of a variant; any other module takes the
images itself. Nothing is registered: a module, a class, or `mypkg.necks:MyNeck` is enough.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sepcbench import detectors
from sepcbench.backbones import BACKBONES
from sepcbench.errors import UsageError, unknown
from sepcbench.named_backbones import named_backbone
from sepcbench.ops.pyramid import Pyramid, PyramidPair
from sepcbench.specs.own import DEFAULT_BACKBONE, IMAGES, OwnSpec
from sepcbench.variants import VARIANTS, variant

Factory = Callable[..., nn.Module]

# Names that a neck's constructor has for the channels of the maps it gets, finest first.
CHANNELS = ("in_channels", "in_channels_list", "in_chs")
_SIZE = 64  # pixels of the image that tells the channels of a pyramid


class OwnNeck(nn.Module):
    """A user's neck behind what feeds it; no head.

    Attributes:
        spec: with the row's `name`.
        backbone: normalised images (N, 3, H, W) to a list of maps, finest first.
        neck: the user's module; called with that list, it may give tensors in any nesting.
    """

    def __init__(self, spec: OwnSpec, backbone: nn.Module, neck: nn.Module) -> None:
        super().__init__()
        self.spec, self.backbone, self.neck = spec, backbone, neck

    def features(self, images: Tensor) -> Pyramid:
        """The maps that the neck gets."""
        return self.backbone(images)  # type: ignore[no-any-return]

    def fuse(self, features: Pyramid) -> list[Tensor]:
        """All tensors that the neck makes of them.

        Raises:
            UsageError: it makes none.
        """
        return _any(self.spec, self.neck(list(features)))

    def forward(self, images: Tensor) -> list[Tensor]:
        """All tensors that come out for normalised images (N, 3, H, W)."""
        return self.fuse(self.features(images))

    def everything(self, images: Tensor) -> list[Tensor]:
        """The maps that the neck gets, then what it makes: it need not use all of them."""
        features = list(self.features(images))
        return features + self.fuse(features)

    def parts(self) -> dict[str, tuple[str, ...]]:
        """Module-path prefixes of the parts that costs are split into."""
        return {"backbone": ("backbone",), "neck": ("neck",), "head": ()}

    @property
    def head(self) -> nn.Module:
        """There is none.

        Raises:
            UsageError: always.
        """
        raise _only(self.spec, "neck or forward")

    def detect(self, *_: Any) -> list[Any]:
        """There is no head that detects.

        Raises:
            UsageError: always.
        """
        raise _only(self.spec, "neck or forward")


class OwnDetector(nn.Module):
    """A user's module that takes images.

    Attributes:
        spec: with the row's `name`.
        whole: the user's module.
    """

    def __init__(self, spec: OwnSpec, whole: nn.Module) -> None:
        super().__init__()
        self.spec, self.whole = spec, whole

    def forward(self, images: Tensor) -> list[Tensor]:
        """All tensors that come out for images (N, 3, H, W).

        Raises:
            UsageError: none do.
        """
        return _any(self.spec, self.whole(images))

    def parts(self) -> dict[str, tuple[str, ...]]:
        """No parts are known."""
        return {}

    def features(self, *_: Any) -> Pyramid:
        """Where its features end is not known.

        Raises:
            UsageError: always.
        """
        raise _only(self.spec, "forward")

    detect = features


class PyramidOf(nn.Module):
    """The pyramid of a variant: its backbone and its necks, without its head."""

    def __init__(self, name: str) -> None:
        super().__init__()
        whole = detectors.build(variant(name))
        self.backbone, self.necks = whole.backbone, whole.necks

    def forward(self, images: Tensor) -> Pyramid:
        """Normalised images (N, 3, H, W) to the maps that the head would get."""
        pyramid = self.backbone(images)
        for neck in self.necks:
            pyramid = neck(pyramid)
        if isinstance(pyramid, PyramidPair):
            raise UsageError("this variant gives a pyramid pair; name one that ends in one pyramid")
        return pyramid  # type: ignore[no-any-return]


def _only(spec: OwnSpec, scopes: str) -> UsageError:
    return UsageError(f"'{spec.name}' has no head of sepcbench; use --scope {scopes}")


def _any(spec: OwnSpec, made: Any) -> list[Tensor]:
    found = tensors(made)
    if not found:
        raise UsageError(
            f"'{spec.name}' gives no tensor but {type(made).__name__}; its forward is to "
            "return the maps that it makes"
        )
    return found


def tensors(value: Any) -> list[Tensor]:
    """All tensors in nested lists, tuples, dicts and named tuples, in their order.

    A list, since a trace leaves out what is not in the result, and takes no dict.
    """
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        return [tensor for item in value for tensor in tensors(item)]
    return []


# --- building ------------------------------------------------------------------------------


def build(spec: OwnSpec, *, seed: int | None = None) -> OwnNeck | OwnDetector:
    """Import what a spec names and make it ready to be measured.

    Args:
        spec: of the module.
        seed: of random weights; torch's random state is left as it was. None draws from that.

    Raises:
        UsageError: it cannot be imported, made, or is no module.
    """
    with _importable(Path.cwd()):
        return dress(find(spec.target), spec, seed=seed)


def dress(
    made: nn.Module | Factory, spec: OwnSpec, *, seed: int | None = None
) -> OwnNeck | OwnDetector:
    """Make a module, or what makes one, ready to be measured.

    Args:
        made: the module, class or function.
        spec: its place and what feeds it.
        seed: as in `build`.

    Raises:
        UsageError: it cannot be made, is no module, or the backbone is unknown.
    """
    if seed is None:
        return _dressed(made, spec)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _dressed(made, spec)


def _dressed(made: nn.Module | Factory, spec: OwnSpec) -> OwnNeck | OwnDetector:
    backbone = spec.backbone
    if backbone is None:
        backbone = DEFAULT_BACKBONE if _channels_name(made) else IMAGES
    spec = replace(spec, backbone=backbone)
    if backbone == IMAGES:
        return OwnDetector(spec, _make(made, None, spec))
    source, channels = _source(backbone)
    return OwnNeck(spec, source, _make(made, channels, spec))


def find(target: str) -> nn.Module | Factory:
    """Import `mypkg.necks:MyNeck`, or `necks.py:MyNeck`.

    Raises:
        UsageError: the file or module cannot be imported or has no such name.
    """
    place, _, attribute = target.rpartition(":")
    try:
        module = (
            _from_file(Path(place)) if place.endswith(".py") else importlib.import_module(place)
        )
    except UsageError:
        raise
    except Exception as error:
        raise UsageError(
            f"'{target}': cannot import '{place}' ({type(error).__name__}: {error})"
        ) from None
    try:
        found: Any = module
        for name in attribute.split("."):
            found = getattr(found, name)
    except AttributeError:
        names = [name for name, value in vars(module).items() if callable(value)]
        raise unknown(f"name in '{place}'", attribute, names) from None
    return found  # type: ignore[no-any-return]


def _from_file(path: Path) -> Any:
    if not path.is_file():
        raise UsageError(f"'{path}': there is no such file")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # dataclasses look their module up; a module that is there already keeps its name
    new = sys.modules.setdefault(path.stem, module) is module
    try:
        with _importable(path.resolve().parent):
            spec.loader.exec_module(module)
    except BaseException:
        if new:
            del sys.modules[path.stem]
        raise
    return module


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """What is in a folder can be imported, as with `python -m` in it."""
    added = str(folder)
    known = added in sys.path
    if not known:
        sys.path.insert(0, added)
    try:
        yield
    finally:
        if not known and added in sys.path:
            sys.path.remove(added)


def _source(name: str) -> tuple[nn.Module, list[int]]:
    """What feeds a neck, and the channels of its maps."""
    if name in VARIANTS:
        source: nn.Module = PyramidOf(name).eval()
        with torch.no_grad():
            pyramid = source(torch.zeros(1, 3, _SIZE, _SIZE))
        return source, [level.shape[1] for level in pyramid]
    spec = named_backbone(name)
    source = BACKBONES[type(spec)](spec)
    channels: Sequence[int] = source.channels  # type: ignore[assignment]
    return source, list(channels)


def _channels_name(made: Any) -> str | None:
    """The parameter for the channels of the maps, of a class or function that has one."""
    if isinstance(made, nn.Module) or not callable(made):
        return None
    parameters = _parameters(made)
    return next((name for name in CHANNELS if name in parameters), None)


def _parameters(made: Factory) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(made).parameters
    except (TypeError, ValueError):  # written in C
        return {}


def _make(made: nn.Module | Factory, channels: list[int] | None, spec: OwnSpec) -> nn.Module:
    if not isinstance(made, nn.Module):
        if not callable(made):
            raise UsageError(f"'{spec.target}' is a {type(made).__name__}, not a module")
        name = _channels_name(made)
        given = {name: channels} if name and channels is not None else {}
        _check_given(made, given, spec)
        try:
            made = made(**given)
        except Exception as error:
            told = f"{type(error).__name__}: {' '.join(str(error).split())}"
            raise UsageError(f"'{spec.target}' cannot be made: {told}") from None
    if not isinstance(made, nn.Module):
        raise UsageError(f"'{spec.target}' gives a {type(made).__name__}, not a torch.nn.Module")
    return made


def _check_given(made: Factory, given: Mapping[str, Any], spec: OwnSpec) -> None:
    plain = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    kinds = (*plain, inspect.Parameter.KEYWORD_ONLY)
    missing = [
        name
        for name, parameter in _parameters(made).items()
        if parameter.kind in kinds
        and parameter.default is inspect.Parameter.empty
        and name not in given
    ]
    if missing:
        raise UsageError(
            f"'{spec.target}' needs '{missing[0]}' too; give it a default, or name a function "
            "that takes in_channels and returns the module"
        )
