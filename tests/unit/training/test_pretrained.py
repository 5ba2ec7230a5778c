"""Weights that a backbone starts from, on files with the names of torchvision's."""

from __future__ import annotations

import socket
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn
from urllib.error import URLError

import pytest
import safetensors.torch
import torch
import torchvision

from sepcbench.detectors import Detector, build
from sepcbench.errors import CheckpointError, UsageError
from sepcbench.specs import CONVENTIONS, ResNetSpec
from sepcbench.training.pretrained import TORCHVISION, load_backbone
from sepcbench.variants import variant


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    return torchvision.models.resnet18(weights=None).state_dict()


def detector(**changes: Any) -> Detector:
    return build(variant("retinanet_r50_fpn", {"backbone": "r18", **changes}), seed=0)


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_file_gives_all_but_its_classifier(
    tmp_path: Path, state: dict[str, torch.Tensor], wrapped: bool
) -> None:
    path, model = tmp_path / "r18.pth", detector()
    torch.save({"state_dict": state} if wrapped else state, path)
    line = load_backbone(model, str(path))
    assert line == f"backbone: 120 tensors from {path}; left out fc.weight, fc.bias"
    for key, value in model.backbone.state_dict().items():
        assert torch.equal(value, state[key]), key


def test_first_stages_stay_frozen_and_statistics_fixed(
    tmp_path: Path, state: dict[str, torch.Tensor]
) -> None:
    path, model = tmp_path / "r18.safetensors", detector()
    safetensors.torch.save_file(state, path)
    load_backbone(model, str(path))
    model.train()
    model(torch.randn(1, 3, 64, 64))[0].cls.sum().backward()
    body = model.backbone
    for name, parameter in body.named_parameters():
        first = name.startswith(("conv1", "bn1", "layer1"))
        assert parameter.requires_grad is not first, name
        assert (parameter.grad is None) or not first, name
    for name, buffer in body.named_buffers():
        assert torch.equal(buffer, state[name]), name


def test_stages_that_are_not_there_are_left_out(tmp_path: Path) -> None:
    torch.manual_seed(1)
    path = tmp_path / "r50.pth"
    torch.save(torchvision.models.resnet50(weights=None).state_dict(), path)
    model = build(variant("rpn_r50_c4"), init=False)
    assert "left out layer4.0.conv1.weight" in load_backbone(model, str(path))


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda s: s.pop("layer3.0.conv1.weight"), "1 missing: layer3.0.conv1.weight"),
        (lambda s: s.update(stem=s["fc.bias"]), "1 unknown: stem"),
        (lambda s: s.update({"bn1.weight": torch.ones(3)}), "1 of another shape: bn1.weight"),
    ],
)
def test_weights_that_do_not_fit_have_their_line(
    tmp_path: Path, state: dict[str, torch.Tensor], change: Any, line: str
) -> None:
    path, changed = tmp_path / "r18.pth", dict(state)
    change(changed)
    torch.save(changed, path)
    with pytest.raises(CheckpointError, match=line):
        load_backbone(detector(), str(path))


def test_files_that_cannot_be_used_have_their_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no such file, nor is it 'imagenet'"):
        load_backbone(detector(), str(tmp_path / "none.pth"))
    (tmp_path / "text.pth").write_text("weights")
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_backbone(detector(), str(tmp_path / "text.pth"))
    torch.save([1], tmp_path / "list.pth")
    with pytest.raises(CheckpointError, match="no state dict"):
        load_backbone(detector(), str(tmp_path / "list.pth"))


def test_backbones_without_imagenet_weights_have_their_line() -> None:
    with pytest.raises(UsageError, match="backbone 'tiny' has no ImageNet weights"):
        load_backbone(build(variant("retinanet_tiny_fpn"), seed=0), "imagenet")


def test_names_are_torchvisions() -> None:
    for name in TORCHVISION.values():
        kind, version = name.split(".")
        assert getattr(getattr(torchvision.models, kind), version).url.startswith("https://")


def test_without_a_network_the_line_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def offline(*args: object, **options: object) -> NoReturn:
        raise URLError(socket.gaierror("Name or service not known"))

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.urlopen", offline)
    with pytest.raises(CheckpointError, match=r"ResNet18_Weights.*not known.*pretrained=FILE") as e:
        load_backbone(detector(), "imagenet")
    assert "\n" not in str(e.value)


def test_imagenet_is_torchvisions_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, state: dict[str, torch.Tensor]
) -> None:
    """A file of the right name in torch's own cache is not downloaded again."""
    weights = torchvision.models.ResNet18_Weights.IMAGENET1K_V1
    cached = tmp_path / "hub" / "checkpoints" / weights.url.rpartition("/")[2]
    cached.parent.mkdir(parents=True)
    torch.save(state, cached)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    model = detector()
    line = load_backbone(model, "imagenet")
    assert "120 tensors from ResNet18_Weights.IMAGENET1K_V1" in line
    own = dict(model.backbone.state_dict())
    assert torch.equal(own["conv1.weight"], state["conv1.weight"])


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        (
            {"conventions": "detectron2"},
            "torchvision's ImageNet weights are for RGB .*'detectron2'",
        ),
        ({"channels": "bgr"}, "are for RGB"),
        ({"std": (1.0, 1.0, 1.0)}, "are for RGB"),
        ({"backbone.stride_in": "1x1", "backbone": "r50"}, "stride in the 3x3 conv"),
    ],
)
def test_imagenet_weights_want_the_images_they_were_trained_on(
    monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], line: str
) -> None:
    spec = variant("retinanet_r50_fpn", {"backbone": "r18"})
    how, body = spec.conventions, spec.backbone
    if "conventions" in changes:
        how = CONVENTIONS[changes["conventions"]]
    how = replace(how, **{k: v for k, v in changes.items() if k in ("channels", "std")})
    if "backbone.stride_in" in changes:
        body = ResNetSpec(depth=50, stride_in="1x1")
    model = build(replace(spec, conventions=how, backbone=body), init=False)
    with pytest.raises(UsageError, match=line) as error:
        load_backbone(model, "imagenet")
    assert "\n" not in str(error.value)


def test_timms_weights_want_their_own_images(monkeypatch: pytest.MonkeyPatch) -> None:
    timm = pytest.importorskip("timm")
    net = timm.create_model("resnet18", features_only=True)
    net.pretrained_cfg = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
    monkeypatch.setattr("sepcbench.backbones.timm_features.create_pretrained", lambda spec: net)
    model = build(variant("retinanet_r50_fpn", {"backbone": "timm:resnet18"}), init=False)
    with pytest.raises(UsageError, match=r"timm's ImageNet weights are for RGB of mean \(0\.5, "):
        load_backbone(model, "imagenet")
