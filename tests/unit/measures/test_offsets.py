"""Where deformable kernels read: against the convs themselves."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sepcbench.detectors import Detector, build
from sepcbench.errors import UsageError
from sepcbench.measures.offsets import kernel_offsets
from sepcbench.necks.pconv import PyramidConv
from sepcbench.ops.convs import LevelConv
from sepcbench.variants import variant

IMAGE = torch.zeros(1, 3, 128, 128)


def sepc() -> Detector:
    return build(variant("retinanet_tiny_sepc"), seed=0)


def first_pconv(detector: Detector) -> PyramidConv:
    return next(m for m in detector.modules() if isinstance(m, PyramidConv))


def test_a_new_detector_reads_where_plain_kernels_do() -> None:
    detector = sepc()
    found = kernel_offsets(detector, IMAGE)
    # P4..P7 are deformed: a PConv has up for three of them, same and down for four
    layers = [entry.layer for entry in found]
    assert layers.count("PConv 1") == layers.count("PConv 2") == 3 + 4 + 4
    assert layers.count("extra conv") == 2 * 4
    assert {entry.level for entry in found} == {4, 5, 6, 7}
    for entry in found:
        assert np.array_equal(entry.taps, entry.plain)
        assert entry.length == 0
    up = next(e for e in found if (e.kernel, e.level) == ("up", 4))
    down = next(e for e in found if (e.kernel, e.level) == ("down", 4))
    assert (up.reads, up.pitch, up.stride, up.taps.shape) == (5, 32, 1, (4, 4, 9, 2))
    assert (down.reads, down.pitch, down.stride, down.taps.shape) == (3, 8, 2, (8, 8, 9, 2))
    # output cell (row 1, column 2) of a stride-2 kernel is around cell (2, 4) of the finer map
    assert down.plain[1, 2, 4].tolist() == [4 * 8, 2 * 8]
    assert down.plain[1, 2, 0].tolist() == [3 * 8, 1 * 8]


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_of_every_module_is_restored(training: bool) -> None:
    detector = sepc().train(training)
    detector.backbone.eval()  # one part may have another mode than the rest
    before = [module.training for module in detector.modules()]
    kernel_offsets(detector, IMAGE)
    assert [module.training for module in detector.modules()] == before


def test_offsets_are_dy_dx_in_cells_of_the_map_that_is_read() -> None:
    detector = sepc()
    down = first_pconv(detector).down
    assert down is not None
    assert down.offset is not None
    with torch.no_grad():
        down.offset.bias.view(9, 2)[5] = torch.tensor([1.0, -0.5])  # type: ignore[union-attr]
    found = [e for e in kernel_offsets(detector, IMAGE) if e.length]
    assert [(e.layer, e.kernel, e.level) for e in found] == [
        ("PConv 1", "down", level) for level in (4, 5, 6, 7)
    ]
    moved = found[0].taps - found[0].plain
    assert np.allclose(moved[..., 5, :], [-0.5 * 8, 1.0 * 8])
    assert found[0].length == pytest.approx(1.25**0.5 / 9)
    plain, taps = found[0].at((33.0, 20.0))  # the nearest output cell is (1, 2), at (32, 16)
    assert plain[4].tolist() == [32, 16]
    assert (taps - plain)[5].tolist() == [-4, 8]
    assert np.array_equal(found[0].at((1e4, -1e4))[0], found[0].plain[0, -1])


@pytest.mark.parametrize("stride", [1, 2])
def test_the_conv_reads_the_cells_around_these_places(stride: int) -> None:
    """Gradients of one output cell reach the cells that bilinear sampling at the taps needs."""
    detector = sepc()
    block = first_pconv(detector)
    conv = block.same if stride == 1 else block.down
    assert isinstance(conv, LevelConv)
    assert conv.offset is not None
    torch.manual_seed(1)
    with torch.no_grad():
        conv.weight.normal_()
        conv.offset.bias.uniform_(-1.5, 1.5)  # type: ignore[union-attr]
    kernel = "same" if stride == 1 else "down"
    entry = next(e for e in kernel_offsets(detector, IMAGE) if (e.kernel, e.level) == (kernel, 4))
    size = 128 // entry.pitch
    x = torch.randn(1, conv.in_channels, size, size, requires_grad=True)
    row, column = 3, 2
    (gradient,) = torch.autograd.grad(conv.eval()(x, 1)[0, :, row, column].square().sum(), x)
    read = set(map(tuple, gradient[0].abs().sum(dim=0).nonzero().tolist()))
    expected = {
        (i, j)
        for x, y in entry.taps[row, column] / entry.pitch
        for i in range(size)
        for j in range(size)
        if abs(i - y) < 1 and abs(j - x) < 1
    }
    assert read == expected
    assert expected


def test_deformable_head_towers() -> None:
    detector = build(variant("retinanet_tiny_fpn", {"head.deform": True}), seed=0)
    found = kernel_offsets(detector, IMAGE)
    depth = len(detector.head.cls_tower)  # type: ignore[arg-type]
    assert len(found) == depth * 2 * 5
    assert {e.layer for e in found} == {f"tower conv {i + 1}" for i in range(depth)}
    assert {e.kernel for e in found} == {"class branch", "box branch"}


def test_without_deformable_kernels() -> None:
    with pytest.raises(UsageError, match="no deformable kernels"):
        kernel_offsets(build(variant("retinanet_tiny_pconv"), seed=0), IMAGE)
