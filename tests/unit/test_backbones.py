"""Backbones: sizes, what is frozen, what trains."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import nn

from sepcbench.backbones import BACKBONES, ResNet
from sepcbench.specs import BackboneSpec, ResNetSpec, TinySpec


@pytest.mark.parametrize("spec", [ResNetSpec(18), ResNetSpec(50), TinySpec()], ids=str)
def test_c2_to_c5_have_strides_4_to_32(spec: BackboneSpec) -> None:
    backbone = BACKBONES[type(spec)](spec).eval()
    maps = backbone(torch.rand(1, 3, 64, 96))
    assert [tuple(x.shape) for x in maps] == [
        (1, channels, 64 // stride, 96 // stride)
        for channels, stride in zip(backbone.channels, (4, 8, 16, 32))
    ]


@pytest.mark.parametrize("depth", [18, 50])
def test_resnet_is_torchvisions(depth: int) -> None:
    theirs = getattr(torchvision.models, f"resnet{depth}")(weights=None).eval()
    ours = ResNet(ResNetSpec(depth)).eval()
    state = {k: v for k, v in theirs.state_dict().items() if not k.startswith("fc.")}
    ours.load_state_dict(state)
    images = torch.rand(1, 3, 64, 64)
    pooled = ours(images)[-1].mean(dim=(2, 3))
    torch.testing.assert_close(theirs.fc(pooled), theirs(images))


@pytest.mark.parametrize(
    ("stages", "prefixes"),
    [
        (-1, ()),
        (0, ("conv1", "bn1")),
        (1, ("conv1", "bn1", "layer1")),
        (4, ("conv1", "bn1", "layer1", "layer2", "layer3", "layer4")),
    ],
)
def test_frozen_stages(stages: int, prefixes: tuple[str, ...]) -> None:
    resnet = ResNet(ResNetSpec(18, frozen_stages=stages, bn="train")).train()
    for name, parameter in resnet.named_parameters():
        assert parameter.requires_grad != name.startswith(prefixes or ("-",)), name
    for name, module in resnet.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.training != name.startswith(prefixes or ("-",)), name


def test_bn_eval_keeps_statistics_while_training() -> None:
    resnet = ResNet(ResNetSpec(18)).train()
    before = {k: v.clone() for k, v in resnet.state_dict().items() if "running" in k}
    resnet(torch.rand(2, 3, 32, 32))
    assert resnet.training
    for key, value in before.items():
        assert torch.equal(resnet.state_dict()[key], value), key


def test_tiny_has_about_400_thousand_parameters_and_trains_its_bn() -> None:
    tiny = BACKBONES[TinySpec](TinySpec()).train()
    assert 0.38e6 < sum(p.numel() for p in tiny.parameters()) < 0.46e6
    before = tiny.state_dict()["stem.1.running_mean"].clone()
    tiny(torch.rand(2, 3, 32, 32))
    assert not torch.equal(tiny.state_dict()["stem.1.running_mean"], before)
