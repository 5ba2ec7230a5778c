"""Backbones: sizes, what is frozen, what trains."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
import torchvision
from torch import nn

from sepcbench import detectors
from sepcbench.backbones import BACKBONES, ResNet
from sepcbench.errors import UsageError
from sepcbench.measures.cost import cost, count, count_dispatched
from sepcbench.ops.deformable import DeformableConv
from sepcbench.specs import BackboneSpec, ResNetSpec, TimmSpec, TinySpec
from sepcbench.variants import variant

SPECS = [
    ResNetSpec(18),
    ResNetSpec(50),
    ResNetSpec(50, groups=32, group_width=4),
    ResNetSpec(50, deform="v1"),
    ResNetSpec(50, groups=32, group_width=4, deform="v2", stride_in="1x1"),
    TinySpec(),
    TinySpec(deform="v1"),
    TinySpec(deform="v2"),
]


@pytest.mark.parametrize("spec", SPECS, ids=str)
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


# --- last stage ----------------------------------------------------------------------------


@pytest.mark.parametrize("make", [lambda **k: ResNetSpec(50, **k), TinySpec], ids=["r50", "tiny"])
def test_last_stage_4_is_the_whole_without_c5(make: type) -> None:
    whole, part = (BACKBONES[type(s)](s).eval() for s in (make(), make(last_stage=4)))
    part.load_state_dict({k: whole.state_dict()[k] for k in part.state_dict()})
    images = torch.rand(1, 3, 64, 64)
    maps = part(images)
    assert part.channels == whole.channels[:3]
    assert len(maps) == 3
    for ours, theirs in zip(maps, whole(images)):
        assert torch.equal(ours, theirs)
    assert not [name for name in part.state_dict() if name.startswith(("layer4", "stages.3"))]


def test_everything_frozen_without_c5() -> None:
    resnet = ResNet(ResNetSpec(18, frozen_stages=4, last_stage=4))
    assert not any(parameter.requires_grad for parameter in resnet.parameters())


# --- ResNeXt -------------------------------------------------------------------------------


def without_weights(spec: BackboneSpec) -> nn.Module:
    with torch.device("meta"):
        backbone = BACKBONES[type(spec)](spec)
    return backbone.to_empty(device="cpu")


def test_resnext_101_64x4d_is_torchvisions() -> None:
    meta = torchvision.models.ResNeXt101_64X4D_Weights.IMAGENET1K_V1.meta
    resnext = without_weights(ResNetSpec(101, groups=64, group_width=4))
    classifier = 2048 * 1000
    params = sum(p.numel() for p in resnext.parameters())
    assert params + classifier + 1000 == meta["num_params"] == 83_455_272
    macs = count(resnext, (224, 224)).total + classifier
    assert macs / 1e9 == pytest.approx(meta["_ops"], abs=6e-4)
    with torch.device("meta"):
        theirs = torchvision.models.resnext101_64x4d(weights=None).state_dict()
    shapes = {k: v.shape for k, v in theirs.items() if not k.startswith("fc.")}
    assert {k: v.shape for k, v in resnext.state_dict().items()} == shapes


# --- deformable convs ----------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "values"), [("v1", 18), ("v2", 27)])
@pytest.mark.parametrize("groups", [1, 64])
def test_deformable_stages_3_to_5(kind: str, values: int, groups: int) -> None:
    width = 64 if groups == 1 else 4
    plain, deformed = (
        without_weights(ResNetSpec(50, groups=groups, group_width=width, deform=how))
        for how in ("none", kind)
    )
    assert set(plain.state_dict()) < set(deformed.state_dict())
    names = {n for n, m in deformed.named_modules() if isinstance(m, DeformableConv)}
    blocks = {"layer2": 4, "layer3": 6, "layer4": 3}
    assert names == {f"{layer}.{i}.conv2" for layer, n in blocks.items() for i in range(n)}
    sizes = [m.in_channels for m in deformed.modules() if isinstance(m, DeformableConv)]
    added = sum(9 * size * values + values for size in sizes)
    before, after = (sum(p.numel() for p in b.parameters()) for b in (plain, deformed))
    assert after - before == added
    # one offset conv per cell of each map, and the conv itself as before
    macs = count(deformed, (128, 128)).total - count(plain, (128, 128)).total
    cells = {"layer2": 256, "layer3": 64, "layer4": 16}
    assert macs == sum(
        9 * deformed.get_submodule(f"{layer}.0.conv2").in_channels * values * cells[layer] * n
        for layer, n in blocks.items()
    )


def test_deformation_starts_as_the_plain_network_or_half_of_each_conv() -> None:
    torch.manual_seed(0)
    plain = ResNet(ResNetSpec(50)).eval()
    images = torch.rand(1, 3, 64, 64)
    first = ResNet(ResNetSpec(50, deform="v1")).eval()
    first.load_state_dict(plain.state_dict(), strict=False)
    for ours, theirs in zip(first(images), plain(images)):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)
    second = ResNet(ResNetSpec(50, deform="v2")).eval()
    second.load_state_dict(plain.state_dict(), strict=False)
    for stage in (plain.layer2, plain.layer3, plain.layer4):
        for block in stage:
            block.conv2.weight.data /= 2
    for ours, theirs in zip(second(images), plain(images)):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kind", ["v1", "v2"])
@pytest.mark.parametrize("groups", [1, 4])
def test_a_deformable_conv_is_torchvisions_in_both_modes(kind: str, groups: int) -> None:
    torch.manual_seed(0)
    plain = nn.Conv2d(8, 12, 3, stride=2, padding=1, groups=groups, bias=False)
    conv = DeformableConv.like(plain, kind).double()
    nn.init.normal_(conv.offset.weight, std=0.3)
    nn.init.normal_(conv.offset.bias)
    x = torch.randn(2, 8, 9, 7, dtype=torch.float64, requires_grad=True)
    read = conv.offset(x)
    mask = read[:, 18:].sigmoid() if kind == "v2" else None
    wanted = torchvision.ops.deform_conv2d(
        x, read[:, :18].contiguous(), conv.weight, None, (2, 2), (1, 1), mask=mask
    )
    leaves = (x, *conv.parameters())
    gradients = torch.autograd.grad(wanted.sin().sum(), leaves)
    for training in (True, False):
        output = conv.train(training)(x)
        torch.testing.assert_close(output, wanted)
        for ours, theirs in zip(torch.autograd.grad(output.sin().sum(), leaves), gradients):
            torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("name", ["retinanet_tiny_fpn", "retinanet_r18_fpn"])
@pytest.mark.parametrize("kind", ["v1", "v2"])
def test_deformable_backbones_count_the_same_by_three_routes(name: str, kind: str) -> None:
    if "r18" in name:
        with pytest.raises(UsageError, match="need the bottlenecks of depth 50 or more"):
            variant(name, {"backbone.deform": kind})
        return
    detector = detectors.build(variant(name, {"backbone.deform": kind}), seed=0)
    empty = cost(detector, (128, 160))
    assert empty.macs == cost(detector, (128, 160), exact=True).macs
    assert dict(empty.macs)["total"] == count_dispatched(detector, (128, 160))


# --- timm ----------------------------------------------------------------------------------

CONV_MODELS = ["resnet18d", "efficientnet_b0", "hrnet_w18", "convnext_atto"]
ATTENTION_MODELS = ["swin_tiny_patch4_window7_224", "mobilevit_xxs"]
CHANNELS = {
    "resnet18d": (64, 128, 256, 512),
    "efficientnet_b0": (24, 40, 112, 320),
    "hrnet_w18": (18, 36, 72, 144),  # its branches, arXiv 1904.04514
    "convnext_atto": (40, 80, 160, 320),
    "swin_tiny_patch4_window7_224": (96, 192, 384, 768),
    "mobilevit_xxs": (24, 48, 64, 320),
}


def timm_backbone(model: str, **changes: str) -> nn.Module:
    pytest.importorskip("timm")
    return BACKBONES[TimmSpec](TimmSpec(model, **changes))


@pytest.mark.parametrize("model", [*CONV_MODELS, *ATTENTION_MODELS])
def test_timm_channels_and_strides_are_read(model: str) -> None:
    backbone = timm_backbone(model).eval()
    assert backbone.channels == CHANNELS[model]
    for batch in (0, 1):
        with torch.no_grad():
            maps = backbone(torch.rand(batch, 3, 64, 96))
        assert [tuple(x.shape) for x in maps] == [
            (batch, c, 64 // stride, 96 // stride)
            for c, stride in zip(backbone.channels, (4, 8, 16, 32))
        ]


@pytest.mark.parametrize(
    "body",
    [
        "convnext_atto_fpn",
        "mobilevit_xxs_fpn",
        # a trace leaves out what nothing reads: an FPN from P3 on would leave out HRNet's C2
        pytest.param("hrnet_w18_hrfpn", marks=pytest.mark.slow),
        pytest.param("swin_tiny_patch4_window7_224_fpn", marks=pytest.mark.slow),
    ],
)
def test_timm_costs_by_three_routes(body: str) -> None:
    """Windows and heads of attention are folded into the batch, which an empty one would lose."""
    pytest.importorskip("timm")
    spec = variant(f"retinanet_timm:{body}")
    detector = detectors.build(spec, init=False)
    empty = cost(detector, (64, 96))
    assert dict(empty.macs)["total"] == count_dispatched(detector, (64, 96))
    assert empty.macs == cost(detectors.build(spec), (64, 96), exact=True).macs


def test_timm_maps_of_swin_are_channels_first() -> None:
    backbone = timm_backbone("swin_tiny_patch4_window7_224").eval()
    images = torch.rand(1, 3, 64, 96)
    for ours, theirs in zip(backbone(images), backbone.net(images)):
        assert torch.equal(ours, theirs.permute(0, 3, 1, 2))


def test_timm_constants_survive_building_without_weights() -> None:
    spec = TimmSpec("swin_tiny_patch4_window7_224")
    pytest.importorskip("timm")
    key = "layers_0.blocks.0.attn.relative_position_index"
    real = dict(timm_backbone(spec.model).net.named_buffers())[key]
    assert real.unique().numel() == 13 * 13  # offsets of two cells in a window of 7x7
    assert torch.equal(dict(without_weights(spec).net.named_buffers())[key], real)


def test_timm_model_without_a_map_of_stride_4() -> None:
    backbone = timm_backbone("csatv2").eval()
    maps = backbone(torch.rand(1, 3, 64, 96))
    assert backbone.channels == (0, 32, 72, 168)
    assert maps[0].shape == (1, 0, 16, 24)
    detectors.build(variant("retinanet_timm:csatv2_fpn"), init=False)
    with pytest.raises(UsageError, match="reads C2, which this backbone does not give"):
        detectors.build(variant("retinanet_timm:csatv2_hrfpn"), init=False)


@pytest.mark.parametrize("bn", ["eval", "train"])
def test_timm_bn(bn: str) -> None:
    backbone = timm_backbone("resnet18d", bn=bn).train()
    modes = {m.training for m in backbone.modules() if isinstance(m, nn.BatchNorm2d)}
    assert modes == {bn == "train"}
    assert backbone.training


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("convnext_tinny", "did you mean 'convnext_tiny'"),
        ("vit_tiny_patch16_224", "maps of stride 16; a detector needs 8, 16 and 32"),
    ],
)
def test_timm_models_that_do_not_do(model: str, words: str) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        timm_backbone(model)
    assert "\n" not in str(caught.value)


def test_timm_image_sizes_that_do_not_do() -> None:
    with pytest.raises(UsageError, match="takes no images of 64x72; most models need sides that"):
        timm_backbone("hrnet_w18")(torch.rand(1, 3, 64, 72))


@pytest.mark.parametrize("size", [(64, 64), (64, 72)])
def test_timm_errors_that_are_not_of_the_size(size: tuple[int, int]) -> None:
    """Memory, types, devices: resnet18d takes 64x72."""
    backbone = timm_backbone("resnet18d").eval()
    with pytest.raises(RuntimeError, match="type"):
        backbone.bfloat16()(torch.rand(1, 3, *size))

    def spent(_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    backbone.net.forward = spent
    with pytest.raises(torch.OutOfMemoryError):
        backbone(torch.rand(1, 3, *size))


def test_without_timm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UsageError, match=r"pip install 'sepcbench\[timm\]'"):
        BACKBONES[TimmSpec](TimmSpec())
    project = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    assert "timm = [" in project
