"""Effective receptive fields: against exact Jacobians and the theoretical field."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sepcbench.detectors import build
from sepcbench.measures.receptive_field import ReceptiveField, receptive_fields
from sepcbench.ops.convs import LevelConv
from sepcbench.variants import variant


def test_the_weights_are_the_norm_of_the_jacobian() -> None:
    """Over many random directions, sqrt(sum over channels in and out of squared derivatives)."""
    detector = build(variant("retinanet_tiny_fpn", {"necks.0.channels": 8}), seed=0).eval()
    torch.manual_seed(0)
    image = torch.randn(1, 3, 64, 64)
    found = receptive_fields(detector, [image] * 60, (32.0, 32.0))
    first = found[0]
    assert (first.stage, first.level, first.cell, first.centre) == ("fpn", 3, (4, 4), (32, 32))

    pixels = image.clone().requires_grad_()
    p3 = detector.fuse(detector.features(pixels))[0]
    exact = torch.zeros(64, 64)
    for channel in range(8):
        (gradient,) = torch.autograd.grad(p3[0, channel, 4, 4], pixels, retain_graph=True)
        exact += gradient[0].square().sum(dim=0)
    expected = exact.sqrt().numpy()
    correlation = np.corrcoef(first.weights.ravel(), expected.ravel())[0, 1]
    assert correlation > 0.95
    assert np.array_equal(first.weights == 0, expected == 0)


def test_stages_of_necks_and_of_the_heads_own_towers() -> None:
    images = [torch.randn(1, 3, 128, 128, generator=torch.Generator().manual_seed(0))]
    calls: list[tuple[int, int]] = []

    def stages(name: str) -> list[str]:
        fields = receptive_fields(
            build(variant(name), seed=0),
            images,
            (64.0, 64.0),
            progress=lambda done, total, _: calls.append((done, total)),
        )
        assert [field.level for field in fields[:5]] == [3, 4, 5, 6, 7]
        assert all(field.weights.max() == 1 for field in fields)
        return list(dict.fromkeys(field.stage for field in fields))

    assert stages("retinanet_tiny_sepc") == ["fpn", "sepc, class branch", "sepc, box branch"]
    assert stages("retinanet_tiny_fpn") == [
        "fpn",
        "head's tower, class branch",
        "head's tower, box branch",
    ]
    assert calls == [(1, 1), (1, 1)]


def test_a_field_lies_around_its_cell_and_grows_with_the_towers() -> None:
    """Cell i of a map is at pixel i * stride, and convs on top can only see more."""
    torch.manual_seed(0)
    noise = [torch.randn(1, 3, 256, 256) for _ in range(3)]
    detector = build(variant("retinanet_tiny_fpn"), seed=0)
    found = {(f.stage, f.level): f for f in receptive_fields(detector, noise, (128.0, 128.0))}
    fpn, tower = found["fpn", 3], found["head's tower, class branch", 3]
    y, x = np.mgrid[:256, :256]
    energy = fpn.weights**2 / (fpn.weights**2).sum()
    # the nearest-neighbour upsampling of FPN is off by up to half a cell of what it repeats
    assert abs((energy * x).sum() - 128) < 8
    assert abs((energy * y).sum() - 128) < 8
    assert fpn.size < tower.size
    assert not fpn.cut_off


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_of_every_module_is_restored(training: bool) -> None:
    detector = build(variant("retinanet_tiny_sepc"), seed=0).train(training)
    detector.backbone.eval()  # one part may have another mode than the rest
    before = [module.training for module in detector.modules()]
    receptive_fields(detector, [torch.zeros(1, 3, 64, 64)], (32.0, 32.0))
    convs = [module for module in detector.modules() if isinstance(module, LevelConv)]
    assert convs
    assert [module.training for module in detector.modules()] == before


@pytest.mark.parametrize(("corner", "cut"), [(10, False), (0, True)])
def test_size_and_border(corner: int, cut: bool) -> None:
    weights = np.zeros((40, 60))
    weights[corner : corner + 8, 20:28] = 0.0456
    weights[corner + 1, 21] = 1
    weights[30:, :10] = 0.0454  # below the share
    field = ReceptiveField("fpn", 3, (0, 0), (0.0, 0.0), weights)
    assert field.size == pytest.approx(8)
    assert field.cut_off is cut
