"""NAS-FPN, BFP, HRFPN, BiFPN, single maps and stand-alone PConvs: sizes, formulas, counting."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sepcbench import detectors
from sepcbench.errors import UsageError
from sepcbench.measures.cost import cost, count_dispatched
from sepcbench.necks import NECKS, bifpn, nas_fpn
from sepcbench.necks.bfp import Bfp
from sepcbench.necks.bifpn import Bifpn, Node
from sepcbench.necks.hrfpn import Hrfpn
from sepcbench.specs import (
    BfpSpec,
    BifpnSpec,
    FpnSpec,
    HrfpnSpec,
    NasFpnSpec,
    NeckSpec,
    PconvSpec,
    SingleLevelSpec,
)
from sepcbench.variants import variant

CHANNELS = (8, 12, 16, 20)
FUSING = (
    NasFpnSpec(channels=6, stack=2),
    NasFpnSpec(channels=6, stack=1, norm="none"),
    HrfpnSpec(channels=6),
    HrfpnSpec(channels=6, first_level=3, last_level=7, pooling="max"),
    BifpnSpec(channels=6, stack=2),
    BifpnSpec(channels=6, stack=1, fusion="softmax"),
    BifpnSpec(channels=6, stack=1, fusion="sum"),
)
REFINING = (
    BfpSpec(channels=6),
    BfpSpec(channels=6, refine="conv", refine_level=3),
    BfpSpec(channels=6, refine="none"),
    PconvSpec(channels=6, depth=2, branches="none"),
    PconvSpec(channels=6, depth=2, branches="none", norm="integrated", scale_kernel=1),
)


def features(size: tuple[int, int] = (128, 192), batch: int = 1) -> list[Tensor]:
    torch.manual_seed(0)
    sizes = [(-(-size[0] // stride), -(-size[1] // stride)) for stride in (4, 8, 16, 32)]
    return [torch.randn(batch, c, h, w) for c, (h, w) in zip(CHANNELS, sizes)]


def pyramid(first: int = 3, count: int = 5, batch: int = 1) -> list[Tensor]:
    torch.manual_seed(0)
    sizes = [(-(-100 // 2**k), -(-132 // 2**k)) for k in range(first, first + count)]
    return [torch.randn(batch, 6, h, w) for h, w in sizes]


def build(spec: NeckSpec, channels: tuple[int, ...] = CHANNELS) -> nn.Module:
    torch.manual_seed(0)
    return NECKS[type(spec)](spec, channels)


@pytest.mark.parametrize("spec", FUSING, ids=str)
def test_every_level_has_the_size_of_its_stride(spec: NeckSpec) -> None:
    neck = build(spec).eval()
    levels = spec.levels  # type: ignore[union-attr]
    outputs = neck(features())
    assert neck.out_channels == (6,) * len(levels)
    # 192 / 2^7 = 1.5 is 1 where maps are pooled without padding, as published
    low = isinstance(spec, (NasFpnSpec, HrfpnSpec))
    wanted = [(1, 6, 128 // 2**k, 192 // 2**k if low else -(-192 // 2**k)) for k in levels]
    if isinstance(spec, HrfpnSpec) and spec.first_level == 3:
        wanted[-1] = (1, 6, 1, 2)  # of the stride of its last conv, which pads
    assert [tuple(x.shape) for x in outputs] == wanted


@pytest.mark.parametrize("spec", FUSING, ids=str)
@pytest.mark.parametrize("size", [(100, 132), (33, 65), (32, 32)])
@pytest.mark.parametrize("batch", [0, 2])
def test_any_size_and_an_empty_batch(spec: NeckSpec, size: tuple[int, int], batch: int) -> None:
    outputs = build(spec).eval()(features(size, batch))
    assert all(x.shape[0] == batch and x[0:1].shape[1] == 6 and min(x.shape[2:]) for x in outputs)
    if batch:  # torch's meta kernel of max pooling takes no empty batch
        on_meta = build(spec).eval().to("meta")([x.to("meta") for x in features(size, batch)])
        assert [x.shape for x in on_meta] == [x.shape for x in outputs]


@pytest.mark.parametrize("spec", REFINING, ids=str)
@pytest.mark.parametrize("batch", [0, 2])
def test_refining_keeps_sizes(spec: NeckSpec, batch: int) -> None:
    neck = build(spec, (6,) * 5).eval()
    for first in (2, 3):
        maps = pyramid(first, batch=batch)
        assert [x.shape for x in neck(maps)] == [x.shape for x in maps]
    assert neck.out_channels == (6,) * 5


@pytest.mark.parametrize("spec", [*FUSING, *REFINING], ids=str)
def test_every_parameter_gets_a_gradient(spec: NeckSpec) -> None:
    fusing = spec in FUSING
    neck = build(spec, CHANNELS if fusing else (6,) * 5)
    if isinstance(spec, (PconvSpec, BfpSpec)):  # where they start at zero
        for parameter in neck.parameters():
            nn.init.normal_(parameter, std=0.3)
    maps = [x.requires_grad_() for x in (features(batch=2) if fusing else pyramid(batch=2))]
    # batch statistics of a constant map would give none
    sum((x * torch.randn_like(x)).sum() for x in neck(maps)).backward()
    for name, parameter in neck.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


NAMES = [f"retinanet_tiny_{neck}" for neck in ("nas_fpn", "bfp", "bifpn", "hrfpn")]


@pytest.mark.parametrize("name", NAMES)
def test_three_routes_count_the_same(name: str) -> None:
    detector = detectors.build(variant(name), seed=0)
    empty = cost(detector, (128, 160))
    assert empty.macs == cost(detector, (128, 160), exact=True).macs
    assert dict(empty.macs)["total"] == count_dispatched(detector, (128, 160))
    assert empty.unsupported_ops == ()
    without_weights = cost(detectors.build(variant(name), init=False), (128, 160))
    assert without_weights.macs == empty.macs


# --- stand-alone PConv ---------------------------------------------------------------------


def test_stand_alone_pconvs_are_the_combined_tower_without_its_extra_convs() -> None:
    alone = build(PconvSpec(channels=6, depth=2, branches="none"), (6,) * 5)
    tower = build(PconvSpec(channels=6, depth=2), (6,) * 5)
    missing = tower.load_state_dict(alone.state_dict(), strict=False).missing_keys
    assert {key.split(".")[0] for key in missing} == {"cls", "loc"}
    for ours, theirs in zip(alone(pyramid()), tower.blocks(pyramid())):
        assert torch.equal(ours, theirs)


def test_stand_alone_pconvs_take_a_single_level() -> None:
    neck = build(PconvSpec(channels=6, depth=1, branches="none"), (6,))
    (x,) = pyramid(count=1)
    (block,) = neck.blocks
    torch.testing.assert_close(neck([x])[0], F.relu(block.conv.same(x)))


def test_pconvs_after_a_neck_that_rounds_sizes_down() -> None:
    neck = build(PconvSpec(channels=6, depth=1, branches="none"), (6,) * 2)
    with pytest.raises(UsageError, match="13x21, not 12x21; pad images to a multiple"):
        neck([torch.zeros(1, 6, 25, 42), torch.zeros(1, 6, 12, 21)])


# --- single level --------------------------------------------------------------------------


@pytest.mark.parametrize("level", [2, 3, 4, 5])
def test_single_level_is_a_map_of_the_backbone(level: int) -> None:
    neck, maps = build(SingleLevelSpec(level)), features()
    assert neck.out_channels == (CHANNELS[level - 2],)
    assert neck(maps)[0] is maps[level - 2]


def test_single_level_of_a_map_that_is_not_there() -> None:
    with pytest.raises(UsageError, match="gives no C5"):
        build(SingleLevelSpec(5), CHANNELS[:3])


# --- a backbone without C2 -----------------------------------------------------------------


@pytest.mark.parametrize("spec", [FpnSpec(channels=6), NasFpnSpec(6, 1), BifpnSpec(6, 1)])
def test_a_neck_from_p3_on_needs_no_c2(spec: NeckSpec) -> None:
    maps = features()
    empty = [maps[0][:, :0], *maps[1:]]
    outputs = build(spec, (0, *CHANNELS[1:])).eval()(empty)
    for ours, wanted in zip(outputs, build(spec).eval()(maps)):
        assert torch.equal(ours, wanted)


@pytest.mark.parametrize("spec", [FpnSpec(first_level=2), HrfpnSpec()])
def test_a_neck_from_p2_on_says_that_c2_is_missing(spec: NeckSpec) -> None:
    with pytest.raises(UsageError, match="reads C2, which this backbone does not give"):
        build(spec, (0, *CHANNELS[1:]))


# --- NAS-FPN -------------------------------------------------------------------------------


def test_pooling_resize_pads_with_zeros_around_the_map() -> None:
    x = -torch.arange(1.0, 8.0).expand(1, 1, 4, 7)  # 4x7 to 2x2: 1 column more on the right
    pooled = nas_fpn._resize(x, torch.zeros(1, 1, 2, 2))
    assert pooled.tolist() == [[[[-1, 0], [-1, 0]]]]
    x = -torch.arange(1.0, 7.0)[:, None].expand(1, 1, 6, 4)  # 6 rows to 4: one above, one below
    pooled = nas_fpn._resize(x, torch.zeros(1, 1, 4, 4))
    assert pooled[0, 0, :, 0].tolist() == [0, -2, -4, 0]


def test_global_pooling_attention() -> None:
    x, y = torch.randn(2, 3, 4, 5), torch.randn(2, 3, 4, 5)
    wanted = y + y.mean(dim=(2, 3), keepdim=True).sigmoid() * x
    torch.testing.assert_close(nas_fpn._attend(x, y, like=y), wanted)


# --- BFP -----------------------------------------------------------------------------------


@pytest.mark.parametrize("level", [0, 2, 4])
def test_bfp_adds_the_refined_mean_to_every_level(level: int) -> None:
    neck = Bfp(BfpSpec(channels=6, refine="conv", refine_level=level), (6,) * 5)
    ones = [torch.full_like(x, float(i)) for i, x in enumerate(pyramid())]
    outputs = neck(ones)  # constant maps: resizing changes nothing
    refined = F.relu(neck.refine[0](torch.full_like(ones[level], 2.0)))  # mean of 0..4
    torch.testing.assert_close(outputs[level], ones[level] + refined)
    for output, x in zip(outputs, ones):
        assert output.shape == x.shape
        added = (output - x).unique()
        assert torch.isin((added * 1e4).round(), (refined.unique() * 1e4).round()).all()


def test_the_non_local_block_starts_as_the_identity_and_mixes_all_cells() -> None:
    block = Bfp(BfpSpec(channels=6), (6,) * 5).refine
    x = torch.randn(2, 6, 3, 4)
    assert torch.equal(block(x), x)
    for conv in (block.theta, block.phi, block.g, block.out):
        nn.init.normal_(conv.weight)
    wanted = x.clone()
    query, key, value = block.theta(x), block.phi(x), block.g(x)
    for n in range(2):
        for i in range(3):
            for j in range(4):
                scores = torch.einsum("c,chw->hw", query[n, :, i, j], key[n])
                shares = scores.flatten().softmax(0).view(3, 4)
                read = torch.einsum("hw,chw->c", shares, value[n])
                wanted[n, :, i, j] += block.out.weight[:, :, 0, 0] @ read + block.out.bias
    torch.testing.assert_close(block(x), wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("spec", "channels", "words"),
    [
        (BfpSpec(channels=8), (6,) * 5, "put an fpn of as many channels before it"),
        (BfpSpec(channels=6, refine_level=5), (6,) * 5, "only levels 0 to 4"),
    ],
)
def test_bfp_that_does_not_fit(spec: BfpSpec, channels: tuple[int, ...], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        Bfp(spec, channels)


# --- HRFPN ---------------------------------------------------------------------------------


def test_hrfpn_from_p3_on_has_stride_2_in_its_convs() -> None:
    fine = Hrfpn(HrfpnSpec(channels=6), CHANNELS)
    coarse = Hrfpn(HrfpnSpec(channels=6, first_level=3, last_level=7), CHANNELS)
    coarse.load_state_dict(fine.state_dict())
    for every, second in zip(fine(features()), coarse(features())):
        torch.testing.assert_close(second, every[:, :, ::2, ::2])


def test_hrfpn_cuts_what_upsampling_has_too_much() -> None:
    neck, maps = Hrfpn(HrfpnSpec(channels=6), CHANNELS), features((128, 128))
    cut = [maps[0][:, :, :29, :31], *maps[1:]]  # 29 and 31 are not multiples of 8
    finest = F.conv2d(neck(maps)[0][:, :, :27, :29], torch.ones(1, 6, 1, 1))
    smaller = F.conv2d(neck(cut)[0][:, :, :27, :29], torch.ones(1, 6, 1, 1))
    torch.testing.assert_close(smaller, finest)


# --- BiFPN ---------------------------------------------------------------------------------


def test_weighted_fusion_by_hand() -> None:
    node = Node(BifpnSpec(channels=1), inputs=3)
    node.weights.data = torch.tensor([3.0, -2.0, 1.0])
    maps = [torch.full((1, 1, 2, 2), value) for value in (10.0, 100.0, 2.0)]
    assert node._fuse(maps).mean().item() == pytest.approx((3 * 10 + 0 + 1 * 2) / 4.0001)
    node.fusion = "softmax"
    shares = torch.tensor([3.0, -2.0, 1.0]).softmax(0).tolist()
    wanted = sum(share * value for share, value in zip(shares, (10, 100, 2)))
    assert node._fuse(maps).mean().item() == pytest.approx(wanted)
    plain = Node(BifpnSpec(channels=1, fusion="sum"), inputs=3)
    assert plain.weights is None
    assert float(plain._fuse(maps).mean()) == 112


def test_what_a_layer_adds_to_what(monkeypatch: pytest.MonkeyPatch) -> None:
    """Constant maps, plain sums instead of nodes: figure 3 d of the paper in numbers."""
    monkeypatch.setattr(Node, "forward", lambda self, maps: sum(maps))
    layer = Bifpn(BifpnSpec(channels=6, stack=1), (8, 6, 6, 6)).layers[0]
    p3, p4, p5, p6, p7 = 1, 10, 100, 1000, 10000
    maps = [torch.full_like(x, float(v)) for x, v in zip(pyramid(), (p3, p4, p5, p6, p7))]
    middle6 = p6 + p7
    middle5 = p5 + middle6
    middle4 = p4 + middle5
    out3 = p3 + middle4
    out4 = p4 + middle4 + out3
    out5 = p5 + middle5 + out4
    out6 = p6 + middle6 + out5
    out7 = p7 + out6
    outputs = layer(maps)
    assert [x.shape for x in outputs] == [x.shape for x in maps]
    assert [x.unique().tolist() for x in outputs] == [[out3], [out4], [out5], [out6], [out7]]


def test_halving_is_max_pooling_with_padding_same() -> None:
    """TensorFlow pads an even side at its end only, an odd side at both."""
    even = bifpn._halve(torch.arange(6.0).view(1, 1, 1, 6))
    assert even.flatten().tolist() == [2, 4, 5]  # windows 0-2, 2-4, 4-5
    odd = bifpn._halve(torch.arange(5.0).view(1, 1, 1, 5))
    assert odd.flatten().tolist() == [1, 3, 4]  # windows 0-1, 1-3, 3-4
