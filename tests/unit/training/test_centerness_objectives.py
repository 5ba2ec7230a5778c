"""FCOS's and ATSS's objectives: who learns which object, and batches without objects."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from sepcbench.detectors import build
from sepcbench.errors import UsageError
from sepcbench.ops.anchors import grid_points
from sepcbench.ops.boxes import aligned_iou
from sepcbench.specs import NATIVE, AtssSpec, FcosSpec
from sepcbench.training.objectives import Target, atss, fcos, loss
from sepcbench.training.objectives.matches import NEGATIVE
from sepcbench.variants import variant

SPEC = FcosSpec(ranges=(32.0,))
# points at 4, 12, ... 60 on stride 8; at 8, 24, 40, 56 on stride 16
GRIDS = [grid_points(s, (64 // s, 64 // s), (s, s), NATIVE) for s in (8, 16)]
POINTS = fcos.lay_points(GRIDS, (8, 16), SPEC)
NONE = torch.zeros(0, 4)


def positives(boxes: Tensor, spec: FcosSpec = SPEC) -> dict[tuple[float, ...], int]:
    """(x, y, stride) of every positive point, and its object."""
    match = fcos.assign(POINTS, boxes, spec, NATIVE)
    rows = zip(POINTS.xy.tolist(), POINTS.stride.tolist(), match.tolist())
    return {(*xy, stride): which for xy, stride, which in rows if which != NEGATIVE}


def test_points_inside_learn_an_object_of_their_levels_size() -> None:
    got = positives(torch.tensor([[10.0, 10.0, 30.0, 22.0]]))
    assert got == {(x, y, 8.0): 0 for x in (12.0, 20.0, 28.0) for y in (12.0, 20.0)}


def test_a_point_far_from_a_side_is_of_the_next_level() -> None:
    """64 wide: distances are 32 at least, and 32 belongs to both levels."""
    got = positives(torch.tensor([[0.0, 30.0, 64.0, 34.0]]))
    assert got == {}  # no point of stride 16 is between 30 and 34, those of stride 8 are too far
    got = positives(torch.tensor([[0.0, 36.0, 64.0, 44.0]]))
    assert got == {(x, 40.0, 16.0): 0 for x in (8.0, 24.0, 40.0, 56.0)}


def test_the_smallest_object_wins() -> None:
    boxes = torch.tensor([[2.0, 2.0, 30.0, 30.0], [10.0, 10.0, 22.0, 22.0]])
    got = positives(boxes)
    assert {key for key, which in got.items() if which == 1} == {
        (x, y, 8.0) for x in (12.0, 20.0) for y in (12.0, 20.0)
    }
    assert got[4.0, 4.0, 8.0] == 0


def test_centre_sampling_keeps_points_near_the_centre() -> None:
    """Centre (16, 16), radius 1.5 strides of 8: less than 12 away."""
    box = torch.tensor([[0.0, 0.0, 32.0, 32.0]])
    got = positives(box, replace(SPEC, centre_radius=1.5))
    near = {(x, y, 8.0) for x in (12.0, 20.0) for y in (12.0, 20.0)}
    assert set(got) == near
    assert near < set(positives(box))


def test_centerness_is_1_in_the_middle_and_0_at_a_side() -> None:
    distances = torch.tensor([[5.0, 7, 5, 7], [1, 4, 4, 4], [0, 3, 9, 3]])
    torch.testing.assert_close(fcos.centerness(distances), torch.tensor([1.0, 0.5, 0.0]))


def test_ranges_have_to_fit_the_levels() -> None:
    with pytest.raises(UsageError, match="4 ranges for 2 levels"):
        fcos.lay_points(GRIDS, (8, 16), FcosSpec())


def test_fcos_box_losses() -> None:
    given, wanted = torch.tensor([[0.0, 0, 10, 10]]), torch.tensor([[0.0, 0, 10, 20]])
    torch.testing.assert_close(
        fcos.box_losses(given, wanted, SPEC, NATIVE), -torch.tensor([0.5]).log()
    )
    apart = wanted + 30  # IoU 0; hull 40 x 50, union 300
    generalised = replace(SPEC, box_loss="giou")
    torch.testing.assert_close(
        fcos.box_losses(given, apart, generalised, NATIVE), torch.tensor([1 + 1700 / 2000])
    )


# --- ATSS ----------------------------------------------------------------------------------


def anchors() -> list[Tensor]:
    """Squares of eight strides around cells (i * stride), on levels of stride 8 and 16."""
    grids = []
    for stride, cells in ((8, 8), (16, 4)):
        at = torch.arange(cells, dtype=torch.float32) * stride
        y, x = torch.meshgrid(at, at, indexing="ij")
        centre = torch.stack([x, y, x, y], dim=-1).flatten(0, 1)
        grids.append(centre + 4 * stride * torch.tensor([-1.0, -1, 1, 1]))
    return grids


def test_atss_assigns_by_mean_plus_deviation_of_the_candidates() -> None:
    """One object, 60 wide: re-derived from the paper's algorithm 1, box by box."""
    spec, grids = AtssSpec(candidates=4), anchors()
    box = torch.tensor([2.0, 3.0, 62.0, 65.0])
    middle = torch.tensor([32.0, 34.0])
    rows, start = [], 0
    for grid in grids:
        centres = (grid[:, :2] + grid[:, 2:]) / 2
        away = (centres - middle).norm(dim=1)
        rows += [start + int(i) for i in away.argsort()[:4]]
        start += len(grid)
    joined = torch.cat(grids)
    overlaps = {row: float(aligned_iou(joined[row], box, 0)) for row in rows}
    values = torch.tensor(list(overlaps.values()))
    threshold = float(values.mean() + values.std())
    wanted = {row for row, value in overlaps.items() if value >= threshold}
    assert wanted
    match = atss.assign(grids, box[None], spec, NATIVE)
    assert set((match == 0).nonzero().squeeze(1).tolist()) == wanted


def test_atss_gives_a_disputed_anchor_to_the_highest_overlap() -> None:
    grids, spec = anchors(), AtssSpec(candidates=4)
    centred = torch.tensor([8.0, 8.0, 72.0, 72.0])  # the anchor at (40, 40) itself
    other = centred + torch.tensor([0.0, 0.0, 1.0, 1.0])
    match = atss.assign(grids, torch.stack([other, centred]), spec, NATIVE)
    assert match[5 * 8 + 5] == 1
    assert (match == 0).sum() == 0, "it was the only one good enough"


def test_atss_positives_have_their_centre_in_the_object() -> None:
    """Between four cells: the nearest anchors overlap, but their centres lie outside."""
    box = torch.tensor([[9.0, 9.0, 15.0, 15.0]])
    assert (atss.assign(anchors(), box, AtssSpec(), NATIVE) == NEGATIVE).all()


def test_atss_gives_an_object_its_only_candidate() -> None:
    """One anchor on one level: there is no deviation to exceed."""
    anchor = torch.tensor([[0.0, 0.0, 64.0, 64.0]])
    match = atss.assign([anchor], torch.tensor([[5.0, 5.0, 50.0, 60.0]]), AtssSpec(), NATIVE)
    assert match.tolist() == [0]


def test_nothing_to_assign() -> None:
    assert (fcos.assign(POINTS, NONE, SPEC, NATIVE) == NEGATIVE).all()
    assert (atss.assign(anchors(), NONE, AtssSpec(), NATIVE) == NEGATIVE).all()


@pytest.mark.parametrize("name", ["fcos_tiny_fpn", "atss_tiny_fpn"])
def test_losses_and_gradients_are_finite_without_objects_and_at_the_edge(name: str) -> None:
    torch.manual_seed(0)
    detector = build(variant(name)).train()
    images, empty = torch.randn(2, 3, 64, 64), torch.zeros(0, dtype=torch.int64)
    edge = Target(torch.tensor([[0.0, 0, 64, 64], [4, 4, 4.5, 4.5]]), torch.tensor([0, 2]))
    for targets in ([Target(NONE, empty)] * 2, [edge, Target(NONE, empty)]):
        losses = loss(detector, detector(images), targets, [(64, 64)] * 2)
        assert set(losses) == {"cls", "box", "centerness"}
        total = torch.stack(list(losses.values())).sum()
        detector.zero_grad()
        total.backward()
        assert total.isfinite()
        grads = [p.grad for p in detector.parameters() if p.grad is not None]
        assert all(g.isfinite().all() for g in grads)


@pytest.mark.parametrize("name", ["fcos_tiny_fpn", "atss_tiny_fpn"])
def test_each_image_learns_its_own_objects(name: str) -> None:
    """The losses of a batch do not depend on the order of its images."""
    torch.manual_seed(0)
    detector = build(variant(name)).eval()
    images = torch.randn(2, 3, 64, 64)
    one = Target(torch.tensor([[5.0, 5, 30, 40]]), torch.tensor([1]))
    two = Target(torch.tensor([[20.0, 10, 60, 50], [2, 30, 20, 60]]), torch.tensor([0, 2]))
    forward = loss(detector, detector(images), [one, two], [(64, 64)] * 2)
    backward = loss(detector, detector(images.flip(0)), [two, one], [(64, 64)] * 2)
    for key, value in forward.items():
        torch.testing.assert_close(value, backward[key])
    crossed = loss(detector, detector(images), [two, one], [(64, 64)] * 2)
    assert not torch.isclose(forward["box"], crossed["box"], rtol=1e-4)
