"""Scale invariance: on Gaussian pyramids exact, and what the numbers mean."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from sepcbench import detectors
from sepcbench.errors import UsageError
from sepcbench.measures import invariance
from sepcbench.measures.agreement import agreement, level_correlations
from sepcbench.measures.invariance import on_gaussian, on_network
from sepcbench.necks.lengthening import lengthened
from sepcbench.ops.gaussian import gaussian_pyramid, shrink
from sepcbench.specs import PconvSpec
from sepcbench.variants import variant


def image(height: int = 128, width: int = 160) -> Tensor:
    return torch.randn(1, 3, height, width, generator=torch.Generator().manual_seed(0))


# --- Gaussian pyramids ---------------------------------------------------------------------


def test_shrinking_puts_pixel_2i_at_i() -> None:
    """Symmetric around each even pixel: what is linear in the coordinates stays so."""
    rows, columns = torch.meshgrid(torch.arange(12.0), torch.arange(15.0), indexing="ij")
    x = (3 * rows + 5 * columns)[None, None]
    assert shrink(x).shape == (1, 1, 6, 8)
    torch.testing.assert_close(shrink(x)[:, :, 1:5, 1:7], x[:, :, 2:10:2, 2:14:2])
    assert shrink(torch.full((1, 2, 1, 2), 7.0)).flatten().tolist() == [7.0, 7.0]


def test_shrinking_blurs_by_a_variance_of_one_pixel() -> None:
    x = torch.zeros(1, 1, 17, 17)
    x[0, 0, 8, 8] = 1
    y = shrink(x)[0, 0]  # cell 4 is at pixel 8
    kernel = torch.tensor([1, 6, 1]) / 16
    torch.testing.assert_close(y[3:6, 3:6], torch.outer(kernel, kernel))


def test_a_level_of_the_half_size_image_is_the_next_one_of_the_whole() -> None:
    whole, half = gaussian_pyramid(image(101, 77), 7), gaussian_pyramid(shrink(image(101, 77)), 6)
    for coarser, finer in zip(whole[1:], half):
        assert torch.equal(coarser, finer)


# Appendix 3: with x[l] of the image equal to x[l-1] of its half-size version, every term of
# equation 1 is the same in y[l] of one and y[l-1] of the other. The maps have the same sizes, too,
# so that bilinear upsampling with aligned corners, whose grid depends on the sizes, and the zero
# padding of the kernels act alike: the statement holds at the borders of the maps. It does not at
# the ends of the pyramid, where a term is left out, and each further PConv carries that one level
# further in.
@pytest.mark.parametrize("size", [(128, 160), (101, 77)])
@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("neck", ["pconv", "pconv_ibn", "pconv_gn", "sepc_lite", "sepc"])
def test_appendix_3(neck: str, depth: int, size: tuple[int, int]) -> None:
    small = {"necks.1.depth": depth, "necks.1.channels": 8, "necks.1.groups": 2}
    spec = variant(f"retinanet_tiny_{neck}", small)
    detector = detectors.build(spec, seed=0)
    found = on_gaussian(detector, image(*size), lengthened, seed=1, border=0)
    inside = [pair for pair in found.pairs if pair.inside]
    assert [pair.level for pair in inside] == [4, 5, 6, 7]
    for pair in found.pairs:
        assert pair.before.error == 0
        assert pair.after is not None
        assert pair.after.error is not None
        if pair.inside:
            assert pair.after.error < 1e-6
    ends = [pair.after.error for pair in (found.pairs[0], found.pairs[-1]) if pair.after]
    assert min(error or 0 for error in ends) > 1e-3  # else the kernels would not matter
    assert found.removed is None


def test_appendix_3_through_modules_alone() -> None:
    """The same without the measure: one PConv with random kernels on five levels."""
    from sepcbench.necks.pconv import PyramidConv

    torch.manual_seed(0)
    pconv = PyramidConv(3, 4)
    for kernel in (pconv.up, pconv.same, pconv.down):
        nn.init.normal_(kernel.weight)
    whole = pconv(gaussian_pyramid(image(), 5))
    half = pconv(gaussian_pyramid(shrink(image()), 5))
    for level in (2, 3):  # of 0..4; level 1 and the finest, and the coarsest, lack a term
        torch.testing.assert_close(whole[level], half[level - 1], rtol=0, atol=0)
    assert (whole[1] - half[0]).abs().max() > 1
    assert (whole[4] - half[3]).abs().max() > 0.1


def test_independent_norms_are_not_invariant() -> None:
    """Statistics of their own for each level: figure 7 b of the paper."""
    torch.manual_seed(0)
    spec = variant("retinanet_tiny_pconv", {"norm": "independent", "depth": 1})
    detector = detectors.build(spec)
    with pytest.raises(UsageError, match="parameters for each level"):
        on_gaussian(detector, image(), lengthened)
    wide = lengthened(spec.necks[1:], detector.necks[1:], (32,) * 9, seed=0)
    for norm in (m for m in wide.modules() if isinstance(m, nn.BatchNorm2d)):
        nn.init.uniform_(norm.weight)
    x = torch.randn(1, 32, 64, 64)
    whole, half = (invariance._joined(wide, gaussian_pyramid(y, 9)) for y in (x, shrink(x)))
    error = agreement(whole[4].detach(), half[3].detach()).error
    assert error is not None
    assert error > 0.05


def test_a_variant_without_pconvs_has_nothing_to_measure_on_a_gaussian_pyramid() -> None:
    detector = detectors.build(variant("retinanet_tiny_fpn"))
    with pytest.raises(UsageError, match="has no PConv"):
        on_gaussian(detector, image(), lengthened)


# --- networks ------------------------------------------------------------------------------


class Blurring(nn.Module):
    """Stands in for a detector: its backbone is a Gaussian pyramid, its necks are PConvs."""

    def __init__(self) -> None:
        super().__init__()
        neck = PconvSpec(channels=3, depth=1, branches="none")
        levels = (2, 3, 4, 5)
        self.spec = SimpleNamespace(name="blurring", necks=(neck,), levels=levels)
        from sepcbench.necks import NECKS

        self.necks = nn.ModuleList([NECKS[PconvSpec](neck, (3,) * 4)])

    def features(self, images: Tensor) -> list[Tensor]:
        return gaussian_pyramid(images, 6)[2:]


def test_the_right_levels_are_compared() -> None:
    found = on_network(Blurring(), image(128, 192))  # type: ignore[arg-type]
    assert [pair.level for pair in found.pairs] == [3, 4, 5]
    assert [pair.before.error for pair in found.pairs] == [0, 0, 0]
    # 128 / 8 = 16 rows without two at each side
    assert [pair.cells for pair in found.pairs] == [(12, 20), (4, 8), (2, 2)]
    assert [pair.inside for pair in found.pairs] == [False, True, False]


@pytest.mark.parametrize("neck", ["fpn", "nas_fpn", "pconv", "sepc"])
def test_a_real_backbone_is_not_invariant(neck: str) -> None:
    detector = detectors.build(variant(f"retinanet_tiny_{neck}"), seed=0)
    found = on_network(detector, image(256, 256))
    assert [pair.level for pair in found.pairs] == [4, 5, 6, 7]
    assert all((pair.before.error or 0) > 0.1 for pair in found.pairs)
    assert (found.removed is None) == (neck in ("fpn", "nas_fpn"))
    names = [matrix.name for matrix in found.matrices]
    assert names[:2] == ["backbone", "after the fusing necks"]
    assert ("after plain PConvs" in names) == (neck == "sepc")


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_of_the_detector_stays(training: bool) -> None:
    detector = detectors.build(variant("retinanet_tiny_sepc"), seed=0).train(training)
    before = {key: value.clone() for key, value in detector.state_dict().items()}
    modes = [module.training for module in detector.modules()]
    on_network(detector, image(256, 256))
    on_gaussian(detector, image(), lengthened)
    assert [module.training for module in detector.modules()] == modes
    assert all(torch.equal(value, before[key]) for key, value in detector.state_dict().items())


def test_lengthened_necks_keep_their_parameters_or_draw_them() -> None:
    detector = detectors.build(variant("retinanet_tiny_pconv"), seed=0)
    chain = detector.spec.necks[1:], detector.necks[1:], (32,) * 9
    kept, drawn, again, other = (lengthened(*chain, seed) for seed in (None, 1, 1, 2))
    x = [torch.randn(1, 32, 2 ** (9 - i), 2 ** (9 - i)) for i in range(4, 9)]
    given = invariance._joined(detector.necks[1:], x)
    assert all(map(torch.equal, invariance._joined(kept, x), given))
    assert not kept[0].training
    first, same, different = (necks[0].blocks[0].conv.up.weight for necks in (drawn, again, other))
    assert torch.equal(first, same)
    assert not torch.equal(first, different)
    assert first.any()


def test_the_share_that_deforming_repairs() -> None:
    """None before training, when offsets are zero; then 1 - after / plain, over all pairs."""
    detector = detectors.build(variant("retinanet_tiny_sepc"), seed=0)
    assert on_network(detector, image(256, 256)).repaired == 0
    for name, parameter in detector.named_parameters():
        if name.endswith("offset.weight"):
            nn.init.normal_(parameter, std=0.05)
    found = on_network(detector, image(256, 256))
    after, plain, before = (
        sum(getattr(pair, stage).error for pair in found.pairs)
        for stage in ("after", "plain", "before")
    )
    assert found.repaired == pytest.approx(1 - after / plain)
    assert found.repaired != 0
    assert found.removed == pytest.approx(1 - after / before)
    # the kernels deform again afterwards
    assert {m.deform_from for m in detector.modules() if hasattr(m, "deform_from")} == {1}


# --- numbers -------------------------------------------------------------------------------


def test_agreement() -> None:
    a, b = image(), torch.randn(1, 3, 128, 160)
    assert agreement(a, a).error == 0
    assert agreement(a, a).correlation == pytest.approx(1)
    assert agreement(a, b).error == pytest.approx(math.sqrt(2), abs=0.02)
    assert agreement(a + 100, b + 100).error == pytest.approx(math.sqrt(2), abs=0.02)
    assert agreement(a, -a).correlation == pytest.approx(-1)
    assert agreement(torch.ones(1, 3, 2, 2), b[:, :, :2, :2]).correlation is None
    assert agreement(torch.ones(1, 1, 2, 2), torch.ones(1, 1, 2, 2)).error is None


def test_level_correlations() -> None:
    x = torch.rand(1, 4, 32, 32)
    empty = torch.zeros(1, 0, 64, 64)
    names, rows = level_correlations(["C2", "C3", "C4", "C5"], [empty, x, 3 * x, x[:, :, :1, :1]])
    assert names == ("C3", "C4", "C5")
    assert rows[0][:2] == pytest.approx((1, 1))
    assert rows[0][2] is rows[2][2] is None  # one cell has no pattern
