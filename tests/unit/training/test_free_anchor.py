"""FreeAnchor's objective against the formulas of its paper."""

from __future__ import annotations

import math

import pytest
import torch

from sepcbench.ops.boxes import decode, encode
from sepcbench.specs import NATIVE, FreeAnchorSpec
from sepcbench.training.objectives import Target
from sepcbench.training.objectives.free_anchor import (
    bag_losses,
    bag_probability,
    match_probabilities,
)

NOTHING = Target(torch.empty(0, 4), torch.empty(0, dtype=torch.int64))
SPEC = FreeAnchorSpec()
STDS = SPEC.box_stds


def box(width: float, x: float = 0.0) -> list[float]:
    return [x, 0.0, x + width, 10.0]


def test_mean_max_is_the_mean_of_small_and_the_largest_of_sure_probabilities() -> None:
    small, sure = torch.tensor([[0.01, 0.02, 0.03]]), torch.tensor([[0.1, 0.2, 0.999999]])
    assert float(bag_probability(small)) == pytest.approx(0.02, rel=1e-2)
    assert float(bag_probability(sure)) == pytest.approx(0.999999, abs=1e-4)
    weights = [1 / (1 - p) for p in (0.5, 0.8)]  # 2 and 5
    wanted = (0.5 * weights[0] + 0.8 * weights[1]) / sum(weights)
    assert float(bag_probability(torch.tensor([[0.5, 0.8]]))) == pytest.approx(wanted)


def test_match_probability_saturates_between_the_threshold_and_the_best() -> None:
    boxes = torch.tensor([[box(9), box(7.5), box(6), box(3), box(10, x=50)]])
    target = Target(torch.tensor([box(10), box(10, x=50)]), torch.tensor([1, 0]))
    got = match_probabilities(boxes, [target], 3, 0.6, NATIVE)[0]
    # IoU with the first object 0.9, 0.75, 0.6, 0.3, 0
    assert got[:, 1].tolist() == pytest.approx([1, 0.5, 0, 0, 0], abs=1e-5)
    assert got[:, 0].tolist() == pytest.approx([0, 0, 0, 0, 1], abs=1e-5)
    assert got[:, 2].tolist() == [0] * 5


def test_the_best_of_the_objects_of_a_class_counts() -> None:
    boxes = torch.tensor([[box(9), box(8)]])
    target = Target(torch.tensor([box(10), box(8)]), torch.tensor([1, 1]))
    assert match_probabilities(boxes, [target], 2, 0.6, NATIVE)[0, :, 1].tolist() == [1, 1]


def test_no_prediction_above_the_threshold_is_no_match() -> None:
    got = match_probabilities(
        torch.tensor([[box(6)]]),
        [Target(torch.tensor([box(10)]), torch.tensor([0]))],
        1,
        0.6,
        NATIVE,
    )
    assert got.tolist() == [[[0.0]]]


def test_losses_of_a_small_batch() -> None:
    """Two images, the second without objects; bags of two of three anchors."""
    spec = FreeAnchorSpec(bag_anchors=2, smooth_l1_beta=0.5)
    anchors = torch.tensor([box(10), box(6), box(10, x=50)])
    torch.manual_seed(0)
    logits, deltas = torch.randn(2, 3, 2), torch.randn(2, 3, 4) * 0.1
    target = Target(torch.tensor([box(8)]), torch.tensor([1]))
    got = bag_losses(logits, deltas, anchors, [target, NOTHING], spec, NATIVE)

    chances = []
    for a in (0, 1):  # the anchors with the largest IoU
        wanted = encode(anchors[a], target.boxes[0], STDS, NATIVE)
        off = (deltas[0, a] - wanted).abs()
        smooth = torch.where(off < 0.5, off**2, off - 0.25).sum()
        chances.append(torch.sigmoid(logits[0, a, 1]) * math.exp(-0.75 * float(smooth)))
    bag = bag_probability(torch.stack(chances)[None])
    assert float(got.positive) == pytest.approx(-0.5 * math.log(float(bag)), rel=1e-4)

    matched = match_probabilities(
        decode(anchors, deltas, STDS, NATIVE), [target, NOTHING], 2, 0.6, NATIVE
    )
    shown = logits.sigmoid() * (1 - matched)
    focal = -(shown**2) * (1 - shown).log()
    assert float(got.negative) == pytest.approx(0.5 * float(focal.sum()) / 2, rel=1e-4)


def test_no_objects_at_all() -> None:
    logits = torch.randn(1, 3, 2, requires_grad=True)
    deltas = torch.zeros(1, 3, 4, requires_grad=True)
    anchors = torch.tensor([box(10), box(6), box(10, x=50)])
    got = bag_losses(logits, deltas, anchors, [NOTHING], FreeAnchorSpec(), NATIVE)
    assert float(got.positive.detach()) == 0
    sum(got).backward()
    assert float(logits.grad.abs().sum()) > 0  # type: ignore[union-attr]


def test_certain_predictions_stay_finite() -> None:
    anchors = torch.tensor([box(10), box(6)])
    logits = torch.tensor([[[200.0], [-200.0]]], requires_grad=True)
    deltas = torch.zeros(1, 2, 4, requires_grad=True)
    target = Target(torch.tensor([box(10)]), torch.tensor([0]))
    got = bag_losses(logits, deltas, anchors, [target], FreeAnchorSpec(), NATIVE)
    sum(got).backward()
    assert all(bool(x.isfinite()) for x in got)
    assert bool(logits.grad.isfinite().all())  # type: ignore[union-attr]
    assert bool(deltas.grad.isfinite().all())  # type: ignore[union-attr]


def test_rounding_does_not_lift_a_bag_above_1() -> None:
    """The weights of equal probabilities may add up to a little more than 1."""
    sizes = range(2, 80)
    bags = [torch.ones(1, size) for size in sizes]
    weights = [torch.full((1, size), 1e12) for size in sizes]
    shares = [weight / weight.sum(dim=1, keepdim=True) for weight in weights]
    assert any(float(share.sum()) > 1 for share in shares)  # without the limit
    assert all(float(bag_probability(bag)) <= 1 for bag in bags)


@pytest.mark.parametrize("spoilt", ["logits", "deltas"])
def test_what_is_no_number_gives_losses_that_are_none(spoilt: str) -> None:
    """Torch's own cross entropy raises there, and on a GPU it ends the process."""
    given = {"logits": torch.zeros(1, 3, 2), "deltas": torch.zeros(1, 3, 4)}
    given[spoilt][0, 1] = math.nan
    for value in given.values():
        value.requires_grad_()
    anchors = torch.tensor([box(10), box(12), box(10, x=50)])
    target = Target(torch.tensor([box(10)]), torch.tensor([1]))
    losses = bag_losses(given["logits"], given["deltas"], anchors, [target], SPEC, NATIVE)
    total = torch.stack(losses).sum()
    assert total.isnan()
    total.backward()
