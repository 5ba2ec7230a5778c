"""Folding: the same outputs, and the batch norms are gone."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from randomised import randomise, randomised
from torch import nn
from torchvision.ops import FrozenBatchNorm2d

from sepcbench.detectors import Detector, build
from sepcbench.engines import TOLERANCES, allowed_error, output_error
from sepcbench.engines.folding import conv_norm_pairs, fold
from sepcbench.errors import EngineError
from sepcbench.heads import Scene
from sepcbench.necks.pconv import PyramidConv
from sepcbench.ops.convs import PyramidBlock, SharedConv
from sepcbench.ops.norms import NORMS, FrozenNorm, IntegratedNorm, SingleNorm
from sepcbench.specs import Dtype, FpnSpec, NasFpnSpec, PconvSpec, ResNetSpec, TimmSpec
from sepcbench.variants import DETECTORS, VARIANTS, variant

# every neck on the first detector that has it, and every other head on its plainest neck
NAMES = [f"retinanet_tiny_{neck}" for neck in DETECTORS["retinanet"].necks]
NAMES += [f"faster_rcnn_tiny_{neck}" for neck in ("pconv_ibn", "c4", "top_down")]
NAMES += [
    f"{detector}_tiny_{neck}"
    for detector in ("fcos", "fsaf", "atss", "reppoints", "rpn", "fast_rcnn", "mask_rcnn")
    for neck in ("fpn", "pconv_ibn" if detector not in ("rpn", "fast_rcnn") else "pconv")
    if f"{detector}_tiny_{neck}" in VARIANTS
]
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
PYRAMID_NORMS = (IntegratedNorm, SingleNorm, FrozenNorm)


def images(batch: int = 2, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(batch, 3, 128, 128, generator=generator).to(dtype)


def left(module: nn.Module) -> list[str]:
    """The batch norms that are still there."""
    kinds = (nn.BatchNorm2d, FrozenBatchNorm2d, *PYRAMID_NORMS)
    return [name for name, part in module.named_modules() if isinstance(part, kinds)]


def scene() -> Scene:
    """Proposals given: which ones an RPN gives hangs on the last digit."""
    boxes = torch.tensor([[8.0, 10, 60, 70], [40, 40, 127, 120], [0, 0, 20, 20]])
    return Scene((128, 128), [(128, 128)] * 2, [boxes, boxes + 1])


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_a_folded_detector_gives_the_same_maps(name: str) -> None:
    plain = randomised(name)
    folded = fold(copy.deepcopy(plain))
    found, expected = folded(images(), scene()), plain(images(), scene())
    assert output_error(found, expected) < TOLERANCES["fp32"]
    features = plain.features(images())
    assert output_error(folded.fuse(features), plain.fuse(features)) < TOLERANCES["fp32"]
    independent = name.endswith("independent")
    assert (
        all(path.startswith("necks.1.") for path in left(folded))
        if independent
        else not left(folded)
    )


@pytest.mark.parametrize(
    "name", ["retinanet_tiny_sepc", "fcos_tiny_pconv_single", "retinanet_tiny_bifpn"]
)
@torch.no_grad()
def test_folding_is_exact_but_for_rounding(name: str) -> None:
    plain = randomised(name).double()
    folded = fold(copy.deepcopy(plain))
    x = images(1, torch.float64)
    assert output_error(plain.fuse(plain.features(x)), folded.fuse(folded.features(x))) < 1e-12


@pytest.mark.parametrize("name", ["retinanet_tiny_fpn", "fcos_tiny_sepc", "reppoints_tiny_pconv"])
@torch.no_grad()
def test_a_folded_detector_finds_the_same_boxes(name: str) -> None:
    plain = randomised(name)
    folded = fold(copy.deepcopy(plain))
    for found, expected in zip(
        folded.detect(images(), [(128, 128)] * 2), plain.detect(images(), [(128, 128)] * 2)
    ):
        assert len(expected.scores) > 10
        assert output_error(found.scores, expected.scores) < TOLERANCES["fp32"]
        assert output_error(found.boxes, expected.boxes) < TOLERANCES["fp32"]
        assert torch.equal(found.labels, expected.labels)
    assert folded.spec == plain.spec


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
@pytest.mark.parametrize("name", ["retinanet_tiny_fpn", "fcos_tiny_pconv_ibn", "fsaf_tiny_sepc"])
@torch.no_grad()
def test_folding_holds_in_half_precision(name: str, dtype: Dtype) -> None:
    exact = randomised(name)
    plain = copy.deepcopy(exact).to(DTYPES[dtype])
    folded = fold(copy.deepcopy(plain))
    assert all(p.dtype == DTYPES[dtype] for p in folded.parameters())
    x = images(1, DTYPES[dtype])
    features = plain.features(x)
    assert output_error(folded.fuse(features), plain.fuse(features)) < TOLERANCES[dtype]
    expected = plain(x)
    rounding = output_error(expected, exact(x.float()))
    assert output_error(folded(x), expected) < allowed_error(dtype, rounding)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("deform_from", [None, 1])
@pytest.mark.parametrize("scale_kernel", [1, 3])
@torch.no_grad()
def test_every_norm_of_a_pyramid_block(norm: str, deform_from: int | None, scale_kernel: int):
    conv = PyramidConv(8, 8, scale_kernel, deform_from)
    block = randomise(PyramidBlock(conv, NORMS[norm](8, 3, 4)).eval())
    generator = torch.Generator().manual_seed(0)
    pyramid = [torch.randn(2, 8, side, side, generator=generator) for side in (12, 6, 3)]
    expected = block(pyramid)
    folded = fold(nn.Sequential(block).eval())
    assert output_error(folded(pyramid), expected) < 1e-5
    assert bool(left(folded)) == (norm == "independent")


@torch.no_grad()
def test_a_conv_without_bias_gets_one() -> None:
    block = randomise(PyramidBlock(SharedConv(4, 4, bias=False), FrozenNorm(4)).eval())
    pyramid = [torch.randn(1, 4, 5, 5), torch.randn(1, 4, 3, 3)]
    expected = block(pyramid)
    folded = fold(nn.Sequential(block).eval())
    assert output_error(folded(pyramid), expected) < 1e-5
    assert folded[0].conv.bias is not None


@pytest.mark.parametrize(
    "changes",
    [
        {"necks": (FpnSpec(conv_norm="bn"),)},
        {"necks": (FpnSpec(conv_norm="gn"),)},
        {"necks": (NasFpnSpec(stack=1, norm="none"),)},
        {"necks": (FpnSpec(), PconvSpec(norm="frozen", depth=1))},
        {"necks": (FpnSpec(), PconvSpec(norm="integrated", depth=1, branches="separate"))},
        {"necks": (FpnSpec(), PconvSpec(channels=32, depth=1, extra_padding=0))},
        {"backbone": ResNetSpec(depth=18)},
        {"backbone": ResNetSpec(depth=50, deform="v2", stride_in="1x1")},
    ],
    ids=str,
)
@torch.no_grad()
def test_parts_that_no_tiny_variant_has(changes: dict) -> None:
    spec = replace(variant("retinanet_tiny_fpn"), **changes)
    plain = randomise(build(spec).eval())
    folded = fold(copy.deepcopy(plain))
    side = 384 if "extra_padding=0" in str(spec.necks) else 128
    x = torch.randn(1, 3, side, side)
    assert output_error(folded(x), plain(x)) < TOLERANCES["fp32"]
    assert not left(folded)


@pytest.mark.parametrize("model", ["resnet10t", "mobilenetv3_small_050", "regnetx_002"])
@torch.no_grad()
def test_timm_models_are_folded(model: str) -> None:
    pytest.importorskip("timm")
    spec = replace(variant("retinanet_tiny_fpn"), backbone=TimmSpec(model=model))
    plain = randomise(build(spec).eval())
    folded = fold(copy.deepcopy(plain))
    x = torch.randn(1, 3, 128, 128)
    assert output_error(folded(x), plain(x)) < TOLERANCES["fp32"]
    assert not left(folded)


class Pairs(nn.Module):
    """Convs and norms that may not be folded, but for the first pair."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(3, 3, 1) for _ in range(4))
        self.norms = nn.ModuleList(nn.BatchNorm2d(3) for _ in range(4))
        self.frozen = FrozenBatchNorm2d(3)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        good = self.frozen(self.convs[0](x))
        read_twice = self.convs[1](good)
        twice = self.convs[2](good)
        out = self.convs[3](good)
        return [
            good,
            self.norms[0](read_twice) + read_twice,
            self.norms[1](twice) + self.norms[2](twice),
            self.norms[3](out),
            out,
        ]


@torch.no_grad()
def test_only_what_a_norm_alone_reads_is_folded() -> None:
    plain = randomise(Pairs().eval())
    assert conv_norm_pairs(plain) == [(plain.convs[0], plain.frozen)]
    folded = fold(copy.deepcopy(plain))
    x = torch.randn(1, 3, 4, 4)
    assert output_error(folded(x), plain(x)) < 1e-5


def test_a_detector_in_training_is_not_folded() -> None:
    with pytest.raises(EngineError, match="eval mode"):
        fold(build(variant("retinanet_tiny_fpn")).train())


def test_what_does_not_run_is_one_line() -> None:
    class Broken(nn.Sequential):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("no such\nsize")

    with pytest.raises(EngineError, match=r"does not run on 128x128.*no such size"):
        fold(Broken(nn.BatchNorm2d(3), nn.Conv2d(3, 3, 1)).eval())


def test_the_detector_keeps_its_attributes() -> None:
    folded = fold(randomised("retinanet_tiny_sepc"))
    assert isinstance(folded, Detector)
    assert set(folded.parts()) == {"backbone", "neck", "head", "tower"}
