"""The roofline: traffic by hand-computed formulas, rates that a device can have."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sepcbench.detectors import build
from sepcbench.measures import roofline
from sepcbench.measures.cost import count
from sepcbench.measures.roofline import Rates, floor, rates, traffic
from sepcbench.records import Floor
from sepcbench.variants import variant

# P3..P7 of 800x1280; S, S' and S'' cells of all levels, of P4..P7 and of P5..P7
LEVELS = ((100, 160), (50, 80), (25, 40), (13, 20), (7, 10))
S, S1, S2 = 21_330, 5_330, 1_330
LAST = 70
M, O = 9 * 256**2, 9 * 256 * 18  # noqa: E741  (multiply-adds per cell of a conv, of its offsets)


def test_floor_is_the_larger_of_both_times() -> None:
    given = Rates(macs_per_s=1e12, bytes_per_s=1e9)
    assert floor(2 * 10**12, 10**9, given) == Floor(2 * 10**12, 10**9, 1e12, 1e9, 2.0)
    assert floor(10**12, 3 * 10**9, given).seconds == 3.0


@pytest.mark.parametrize(
    ("dtype", "size"), [(torch.float32, 4), (torch.float64, 8), (torch.bfloat16, 2)]
)
def test_a_stack_of_convs(dtype: torch.dtype, size: int) -> None:
    stack = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1),  # (2, 3, 12, 8) -> (2, 8, 6, 4)
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1, groups=4, bias=False),
        nn.ConvTranspose2d(8, 4, 2, stride=2),  # -> (2, 4, 12, 8)
    )
    stack = stack.to(dtype).eval()
    cells, finer = 2 * 6 * 4, 2 * 12 * 8
    macs = cells * 8 * 3 * 9 + cells * 8 * 2 * 9 + cells * 8 * 4 * 4
    weights = (8 * 3 * 9 + 8) + 8 * 2 * 9 + (8 * 4 * 4 + 4)
    moved = (finer * 3 + cells * 8) + 2 * cells * 8 + (cells * 8 + finer * 4)
    x = torch.randn(2, 3, 12, 8).to(dtype)
    assert traffic(stack, (x,)) == (macs, size * (weights + moved))
    with torch.inference_mode():
        assert traffic(stack, (x,)) == (macs, size * (weights + moved))


def test_a_linear_layer_and_a_product() -> None:
    layer = nn.Linear(6, 5)
    expected = 3 * 5 * 6, 4 * (6 * 5 + 5 + 3 * 6 + 3 * 5)
    assert traffic(layer, (torch.randn(3, 6),)) == expected
    with torch.inference_mode():
        assert traffic(layer, (torch.randn(3, 6),)) == expected
    batched = torch.bmm, (torch.randn(2, 3, 4), torch.randn(2, 4, 7))
    assert traffic(*batched) == (2 * 3 * 4 * 7, 4 * 2 * (3 * 4 + 4 * 7 + 3 * 7))


def test_weights_used_on_every_level_are_read_once() -> None:
    conv = nn.Conv2d(4, 4, 1, bias=False)
    maps = [torch.zeros(1, 4, side, side) for side in (4, 2)]
    macs, moved = traffic(lambda pyramid: [conv(x) for x in pyramid], (maps,))
    assert (macs, moved) == (20 * 16, 4 * (16 + 2 * 20 * 4))


def test_a_deformable_conv_reads_its_offsets_too() -> None:
    from torchvision.ops import deform_conv2d

    x, weight, bias = torch.randn(1, 4, 5, 5), torch.randn(6, 4, 3, 3), torch.randn(6)
    offset, mask = torch.zeros(1, 18, 5, 5), torch.ones(1, 9, 5, 5)
    macs, moved = traffic(
        lambda *args: deform_conv2d(*args, bias=bias, padding=1, mask=mask), (x, offset, weight)
    )
    assert macs == 25 * 6 * 4 * 9
    assert moved == 4 * (25 * (4 + 18 + 9 + 6) + 6 * 4 * 9 + 6)


def tower(name: str) -> tuple[nn.Module, list[torch.Tensor]]:
    """A published tower and a pyramid for it, without memory."""
    with torch.device("meta"):
        detector = build(variant(name), init=False).eval().to("meta")
    return detector.necks[1], [torch.empty(1, 256, h, w, device="meta") for h, w in LEVELS]


@pytest.mark.parametrize(
    ("name", "macs"),
    [
        ("retinanet_r50_pconv", (4 * (S + 2 * S1) + 2 * S) * M),
        ("retinanet_r50_sepc_lite", (4 * (S + 2 * S1) + 2 * S) * M + 2 * S1 * O),
        ("retinanet_r50_sepc", (4 * (S + 2 * S1) + 2 * S) * M + (2 * S1 + 4 * (2 * S1 + S2)) * O),
    ],
)
def test_arithmetic_of_the_published_towers(name: str, macs: int) -> None:
    neck, pyramid = tower(name)
    assert traffic(neck, (pyramid,))[0] == macs


def test_the_sepc_tower_has_its_published_number() -> None:
    neck, pyramid = tower("retinanet_r50_sepc")
    assert round(traffic(neck, (pyramid,))[0] / 1e9, 6) == 103.066860


def test_memory_traffic_of_pconv() -> None:
    """Per PConv and output level: reads of the level and its neighbours, writes of each kernel.

    The kernel from the coarser level writes on its own, coarser map, before that is enlarged.
    """
    neck, pyramid = tower("retinanet_r50_pconv")
    reads, writes = S + (S - LAST) + S1, S + S1 + S1
    cells = 4 * (reads + writes) + 2 * 2 * S  # four PConvs, then a conv for each branch
    weights = (4 * 3 + 2) * (M + 256)
    assert traffic(neck, (pyramid,))[1] == 4 * (256 * cells + weights)


@pytest.mark.parametrize("name", ["retinanet_tiny_fpn", "retinanet_tiny_sepc"])
def test_arithmetic_is_that_of_the_cost(name: str) -> None:
    torch.manual_seed(0)
    detector = build(variant(name)).eval()
    macs, _ = traffic(detector, (torch.randn(2, 3, 64, 64),))
    assert macs == 2 * count(detector, (64, 64)).total


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sizes that take no time."""
    monkeypatch.setattr(roofline, "_SIDES", {"cpu": (64, 128)})
    monkeypatch.setattr(roofline, "_COPY_BYTES", {"cpu": 2**20})
    for cached in (roofline._macs_per_s, roofline._bytes_per_s):
        cached.cache_clear()
    yield
    for cached in (roofline._macs_per_s, roofline._bytes_per_s):
        cached.cache_clear()


@pytest.mark.usefixtures("small")
def test_rates_are_measured_once() -> None:
    told: list[tuple[int, int, str]] = []
    found = rates("cpu", "fp32", progress=lambda *what: told.append(what))
    # from a pocket calculator to a rack of GPUs
    assert 1e6 < found.macs_per_s < 1e16
    assert 1e6 < found.bytes_per_s < 1e15
    assert rates("cpu", "fp32") == found
    assert rates("cpu", "bf16").bytes_per_s == found.bytes_per_s
    assert [done for done, _, _ in told] == [0, 1]


@pytest.mark.usefixtures("small")
def test_measuring_rates_leaves_the_flags_as_they_were() -> None:
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    rates("cpu", "tf32")
    assert (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32) == before


def test_a_matmul_is_timed_as_what_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a clock that says 1 ms per call the rate is exact; the larger side is the faster."""
    monkeypatch.setattr(roofline, "_SIDES", {"cpu": (8, 16)})
    monkeypatch.setattr(roofline, "_COPY_BYTES", {"cpu": 1000})
    monkeypatch.setattr(roofline, "_fastest", lambda device, call: (call(), 1e-3)[1])
    assert roofline._macs_per_s.__wrapped__("cpu", "fp32", 1) == pytest.approx(16**3 / 1e-3)
    assert roofline._bytes_per_s.__wrapped__("cpu", 1) == pytest.approx(2 * 1000 / 1e-3)


@pytest.mark.parametrize(("device", "sides"), [("cpu", [8, 16]), ("cuda", [8, 16, 32])])
def test_a_gpu_takes_all_sides_and_a_cpu_stops_in_time(
    device: str, sides: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a side costs grows 8 times; on a GPU the first one may only be slow to launch."""
    seconds = {8: 0.005, 16: 0.04, 32: 0.3}
    monkeypatch.setattr(roofline, "_SIDES", {device: tuple(seconds)})
    monkeypatch.setattr(roofline, "_matmul", lambda side, device, dtype: side)
    taken: list[int] = []
    monkeypatch.setattr(
        roofline, "_fastest", lambda device, side: (taken.append(side), seconds[side])[1]
    )
    roofline._macs_per_s.__wrapped__(device, "fp32", 1)
    assert taken == sides


@pytest.mark.gpu
def test_half_precision_is_faster_on_a_gpu() -> None:
    half, single = rates("cuda", "fp16"), rates("cuda", "fp32")
    assert half.macs_per_s > 2 * single.macs_per_s
    assert half.bytes_per_s == single.bytes_per_s > 5e10
    assert rates("cuda", "tf32").macs_per_s > 1.5 * single.macs_per_s
