"""PConv and SEPC towers: equation 1 by naive loops, and how the two relate."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from sepcbench.errors import UsageError
from sepcbench.heads.retina import RetinaHead
from sepcbench.necks import NECKS
from sepcbench.necks.pconv import PyramidConv
from sepcbench.necks.sepc import Sepc
from sepcbench.ops.norms import NORMS
from sepcbench.specs import NATIVE, PconvSpec, RetinaSpec, SepcSpec

SIZES = ((7, 6), (4, 3), (2, 2))


def pyramid(channels: int, batch: int = 1) -> list[Tensor]:
    torch.manual_seed(0)
    return [torch.randn(batch, channels, h, w) for h, w in SIZES]


def naive_conv(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, stride: int) -> np.ndarray:
    """3x3 correlation with zero padding 1; x (C, H, W)."""
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1)))
    rows, columns = -(-x.shape[1] // stride), -(-x.shape[2] // stride)
    out = np.empty((len(weight), rows, columns))
    for i in range(rows):
        for j in range(columns):
            window = padded[:, i * stride : i * stride + 3, j * stride : j * stride + 3]
            out[:, i, j] = (weight * window).sum(axis=(1, 2, 3)) + bias
    return out


def naive_bilinear(x: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Corners on corners; x (C, H, W)."""
    out = np.empty((x.shape[0], rows, columns))
    for i in range(rows):
        for j in range(columns):
            y = i * (x.shape[1] - 1) / max(rows - 1, 1)
            z = j * (x.shape[2] - 1) / max(columns - 1, 1)
            a, b = int(y), int(z)
            c, d = min(a + 1, x.shape[1] - 1), min(b + 1, x.shape[2] - 1)
            top = x[:, a, b] * (1 - z + b) + x[:, a, d] * (z - b)
            low = x[:, c, b] * (1 - z + b) + x[:, c, d] * (z - b)
            out[:, i, j] = top * (1 - y + a) + low * (y - a)
    return out


def test_pconv_is_equation_1() -> None:
    conv, levels = PyramidConv(2, 3), pyramid(2)
    for kernel in (conv.up, conv.same, conv.down):
        torch.nn.init.normal_(kernel.weight, std=0.3)
        torch.nn.init.normal_(kernel.bias)
    names = ("up", "same", "down")
    w, b = (
        {n: getattr(getattr(conv, n), field).detach().double().numpy() for n in names}
        for field in ("weight", "bias")
    )
    x = [level[0].double().numpy() for level in levels]
    for level, y in enumerate(conv(levels)):
        wanted = naive_conv(x[level], w["same"], b["same"], 1)
        if level > 0:
            wanted += naive_conv(x[level - 1], w["down"], b["down"], 2)
        if level < 2:
            coarser = naive_conv(x[level + 1], w["up"], b["up"], 1)
            wanted += naive_bilinear(coarser, *SIZES[level])
        np.testing.assert_allclose(y[0].detach().numpy(), wanted, atol=1e-5)


def test_scale_kernel_1_is_retinanets_tower() -> None:
    spec = PconvSpec(channels=6, depth=3, scale_kernel=1, branches="separate", norm="gn", groups=2)
    neck = NECKS[PconvSpec](spec, (5,) * 3)
    head_spec = RetinaSpec(depth=3, channels=6, norm="gn", groups=2)
    head = RetinaHead(head_spec, (5,) * 3, 4, (8, 16, 32), NATIVE)
    for ours, theirs in ((neck.cls, head.cls_tower), (neck.loc, head.box_tower)):
        state = {k.replace("conv.same.", "conv."): v for k, v in ours.state_dict().items()}
        theirs.load_state_dict(state)
    levels = pyramid(5)
    pair = neck(levels)
    for got, wanted in ((pair.cls, head.cls_tower(levels)), (pair.loc, head.box_tower(levels))):
        for a, b in zip(got, wanted):
            assert torch.equal(a, b)


@pytest.mark.parametrize("deform", ["lite", "full"])
@pytest.mark.parametrize("mode", [True, False])
def test_sepc_with_zero_offsets_is_pconv(deform: str, mode: bool) -> None:
    plain = NECKS[PconvSpec](PconvSpec(channels=6, depth=2, norm="integrated"), (6,) * 3)
    for kernel in (k for m in plain.modules() if isinstance(m, PyramidConv) for k in m.children()):
        torch.nn.init.normal_(kernel.weight, std=0.1)
    sepc = NECKS[SepcSpec](SepcSpec(channels=6, depth=2, deform=deform), (6,) * 3)
    loaded = sepc.load_state_dict(plain.state_dict(), strict=False)
    assert not loaded.unexpected_keys
    assert all(".offset." in key for key in loaded.missing_keys)
    levels = pyramid(6, batch=2)
    for a, b in zip(plain.train(mode)(levels), sepc.train(mode)(levels)):
        for x, y in zip(a, b):
            torch.testing.assert_close(x, y, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("deform_from", [0, 1, 2, 3])
def test_offsets_act_from_their_level_on(deform_from: int) -> None:
    sepc = Sepc(SepcSpec(channels=6, deform="lite", deform_from=deform_from), (6,) * 3).eval()
    levels = pyramid(6)
    before = sepc(levels)
    for branch in (sepc.cls, sepc.loc):
        torch.nn.init.constant_(branch.conv.offset.bias, 0.5)
    for a, b in zip(before, sepc(levels)):
        changed = [not torch.equal(x, y) for x, y in zip(a, b)]
        assert changed == [level >= deform_from for level in range(3)]


def test_lite_deforms_the_extra_convs_only_and_full_everything() -> None:
    offsets = {}
    for deform in ("lite", "full"):
        neck = Sepc(SepcSpec(channels=6, depth=2, deform=deform), (6,) * 3)
        names = [n.removesuffix(".offset") for n, _ in neck.named_modules() if n.endswith("offset")]
        offsets[deform] = set(names)
    assert offsets["lite"] == {"cls.conv", "loc.conv"}
    kernels = {f"blocks.{i}.conv.{name}" for i in range(2) for name in ("up", "same", "down")}
    assert offsets["full"] == kernels | offsets["lite"]


@pytest.mark.parametrize("padding", [0, 1])
def test_extra_padding_keeps_or_shrinks_the_maps(padding: int) -> None:
    neck = NECKS[PconvSpec](PconvSpec(channels=6, extra_padding=padding), (6,) * 2)
    pair = neck(pyramid(6)[:2])
    lost = 2 - 2 * padding
    assert [tuple(x.shape[2:]) for x in pair.cls] == [(h - lost, w - lost) for h, w in SIZES[:2]]


def test_maps_too_small_for_padding_0_are_named() -> None:
    neck = NECKS[PconvSpec](PconvSpec(channels=6, extra_padding=0), (6,) * 3)
    with pytest.raises(UsageError, match="one is 2x2"):
        neck(pyramid(6))


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("branches", ["combined", "separate"])
def test_every_norm_in_every_tower(norm: str, branches: str) -> None:
    spec = PconvSpec(channels=8, depth=2, norm=norm, groups=4, branches=branches)
    neck = NECKS[PconvSpec](spec, (6,) * 3)
    pair = neck(pyramid(6, batch=2))
    assert neck.out_channels == (8,) * 3
    for branch in pair:
        assert [tuple(x.shape) for x in branch] == [(2, 8, h, w) for h, w in SIZES]
        assert all(x.min() >= 0 for x in branch)


@pytest.mark.parametrize("spec", [PconvSpec(), SepcSpec()], ids=str)
def test_a_shared_kernel_needs_equal_channels(spec: PconvSpec | SepcSpec) -> None:
    with pytest.raises(UsageError, match="found 64, 128, 256"):
        NECKS[type(spec)](spec, (64, 128, 256))


def test_a_pair_has_branches_of_its_own() -> None:
    neck = NECKS[PconvSpec](PconvSpec(channels=6, branches="separate"), (6,) * 3)
    assert not torch.equal(neck(pyramid(6)).cls[0], neck(pyramid(6)).loc[0])


def test_a_narrow_pconv_starts_as_a_plain_conv_and_a_wide_one_as_published() -> None:
    """Across levels 32 channels start at zero, so that a short training suffices; 256 do not."""
    narrow = PyramidConv(32, 32)
    pyramid = [torch.randn(1, 32, 8, 8), torch.randn(1, 32, 4, 4)]
    for x, y in zip(pyramid, narrow(pyramid)):
        torch.testing.assert_close(y, narrow.same(x))
    wide = PyramidConv(256, 256)
    for kernel in (wide.up, wide.same, wide.down):
        assert kernel is not None
        assert kernel.weight.std().item() == pytest.approx(0.01, rel=0.02)
