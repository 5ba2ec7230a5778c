"""FPN and PAFPN: levels, sizes, and what depends on what."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from sepcbench.errors import UsageError
from sepcbench.necks import NECKS
from sepcbench.necks.fpn import Fpn
from sepcbench.specs import FpnSpec, NeckSpec, PafpnSpec

CHANNELS = (8, 12, 16, 20)


def features(size: tuple[int, int] = (100, 132)) -> list[Tensor]:
    torch.manual_seed(0)
    sizes = [(-(-size[0] // stride), -(-size[1] // stride)) for stride in (4, 8, 16, 32)]
    return [torch.randn(1, c, h, w) for c, (h, w) in zip(CHANNELS, sizes)]


@pytest.mark.parametrize("make", [FpnSpec, PafpnSpec])
@pytest.mark.parametrize("first", [2, 3])
@pytest.mark.parametrize("last", [5, 6, 7, 8])
@pytest.mark.parametrize("extra", ["pool", "conv_c5", "conv_p5"])
def test_every_level_has_the_size_of_its_stride(
    make: type, first: int, last: int, extra: str
) -> None:
    spec: NeckSpec = make(channels=6, first_level=first, last_level=last, extra=extra)
    neck = NECKS[make](spec, CHANNELS)
    outputs = neck(features())
    assert neck.out_channels == (6,) * (last - first + 1)
    wanted = [(1, 6, -(-100 // 2**k), -(-132 // 2**k)) for k in range(first, last + 1)]
    assert [tuple(x.shape) for x in outputs] == wanted


def moved(spec: FpnSpec, level: int) -> list[bool]:
    """Which outputs change when the backbone map with this index does."""
    neck, maps = Fpn(spec, CHANNELS), features()
    before = neck(maps)
    maps[level] = maps[level] + 1
    return [not torch.equal(a, b) for a, b in zip(before, neck(maps))]


def test_information_flows_down_but_not_up() -> None:
    spec = FpnSpec(channels=6, extra="conv_p5")
    assert moved(spec, 0) == [False] * 5  # C2 is not used
    assert moved(spec, 1) == [True, False, False, False, False]
    assert moved(spec, 3) == [True] * 5


def test_without_top_down_every_level_stands_alone() -> None:
    spec = FpnSpec(channels=6, last_level=5, top_down=False)
    assert [moved(spec, level) for level in (1, 2, 3)] == [
        [True, False, False],
        [False, True, False],
        [False, False, True],
    ]


def test_without_laterals_all_comes_from_c5() -> None:
    spec = FpnSpec(channels=6, last_level=5, lateral=False)
    assert moved(spec, 1) == moved(spec, 2) == [False] * 3
    assert moved(spec, 3) == [True] * 3
    neck, maps = Fpn(spec, CHANNELS), features()
    assert len(neck.laterals) == 1
    top = neck.laterals[0](maps[3])
    middle = F.interpolate(top, size=maps[2].shape[2:], mode="nearest")
    torch.testing.assert_close(neck(maps)[1], neck.outputs[1](middle))


def test_finest_only_is_the_finest_level_of_the_whole() -> None:
    whole = Fpn(FpnSpec(channels=6, first_level=2, last_level=6, extra="pool"), CHANNELS)
    finest = Fpn(FpnSpec(channels=6, first_level=2, finest_only=True), CHANNELS)
    finest.load_state_dict(
        {k: v for k, v in whole.state_dict().items() if k in finest.state_dict()}
    )
    (output,) = finest(features())
    assert finest.out_channels == (6,)
    assert torch.equal(output, whole(features())[0])


@pytest.mark.parametrize("between", [False, True])
def test_relu_between_the_extra_convs(between: bool) -> None:
    neck = Fpn(FpnSpec(channels=6, relu_between=between), CHANNELS)
    maps = features()
    p6, p7 = neck(maps)[3:]
    torch.testing.assert_close(p6, neck.extras.convs[0](maps[3]))  # never before P6
    torch.testing.assert_close(p7, neck.extras.convs[1](p6.relu() if between else p6))


@pytest.mark.parametrize("make", [FpnSpec, PafpnSpec])
def test_a_fusing_neck_reads_a_backbone(make: type) -> None:
    with pytest.raises(UsageError, match="put it first in the chain"):
        NECKS[make](make(), (256,) * 5)
