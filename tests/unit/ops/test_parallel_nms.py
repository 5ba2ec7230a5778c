"""Suppression without a wait for the device: exactly what greedy suppression keeps."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from waiting import NoWaiting

from sepcbench.ops.nms import batched_nms, first_true, greedy_kept, parallel_nms

Boxes = tuple[Tensor, Tensor, Tensor]


@st.composite
def small_sets(draw: st.DrawFn) -> Boxes:
    """Up to 24 boxes on a small grid: many ties, copies, chains and boxes without area."""
    count = draw(st.integers(0, 24))
    numbers = st.integers(0, 2**31 - 1)
    drawn = np.random.default_rng(draw(numbers))
    corner = drawn.integers(0, draw(st.sampled_from([2, 12, 40])), (count, 2))
    size = drawn.integers(0, draw(st.sampled_from([3, 10])) + 1, (count, 2))
    boxes = torch.tensor(np.concatenate([corner, corner + size], axis=1)).float().reshape(-1, 4)
    scores = torch.tensor(drawn.integers(0, draw(st.sampled_from([1, 4, 1000])) + 1, count) / 1000)
    labels = torch.tensor(drawn.integers(0, draw(st.integers(1, 4)), count))
    return boxes, scores.float(), labels


@settings(max_examples=120, deadline=None)
@given(
    small_sets(),
    st.sampled_from([0.0, 0.3, 0.5, 0.6, 0.7, 1.0]),
    st.sampled_from([0, 1]),
    st.integers(1, 30),
)
def test_it_keeps_what_greedy_suppression_keeps(
    of: Boxes, threshold: float, offset: int, limit: int
) -> None:
    found = parallel_nms(*of, threshold, offset, limit)
    wanted = batched_nms(*of, threshold, offset)
    if not offset and len(of[0]):
        # whole numbers: moving the classes apart, as torchvision does, loses nothing
        assert wanted.sort().values.equal(torchvision.ops.batched_nms(*of, threshold).sort().values)
    assert found.indices.shape == found.valid.shape == (limit,)
    assert found.indices[found.valid].tolist() == wanted[:limit].tolist()
    assert found.valid.tolist() == [i < len(wanted) for i in range(limit)]
    assert not found.indices[~found.valid].any()
    assert int(found.total) == len(wanted)
    assert found.settled


@settings(max_examples=40, deadline=None)
@given(small_sets(), st.integers(1, 6))
def test_with_fewer_steps_it_is_right_or_says_that_it_may_not_be(of: Boxes, steps: int) -> None:
    found = parallel_nms(*of, 0.3, limit=30, steps=steps)
    if found.settled:
        assert found.indices[found.valid].tolist() == batched_nms(*of, 0.3).tolist()


@settings(max_examples=40, deadline=None)
@given(small_sets(), st.integers(0, 2**31 - 1))
def test_what_fills_up_suppresses_nothing(of: Boxes, seed: int) -> None:
    boxes, scores, labels = of
    real = torch.tensor(np.random.default_rng(seed).integers(0, 2, len(boxes)) == 1)
    real = real.reshape(-1)
    scores = torch.where(real, scores, scores + 5)  # also with the best scores
    found = parallel_nms(boxes, scores, labels, 0.5, limit=30, real=real)
    places = real.nonzero().squeeze(1)
    wanted = places[batched_nms(boxes[places], scores[places], labels[places], 0.5)]
    assert found.indices[found.valid].tolist() == wanted.tolist()


def chain(count: int) -> Boxes:
    """Each box overlaps the next one alone: every second one is kept, decided one by one."""
    x = torch.arange(count) * 4.0
    boxes = torch.stack([x, torch.zeros(count), x + 10, torch.ones(count)], dim=1)
    return boxes, torch.linspace(1, 0.1, count), torch.zeros(count, dtype=torch.int64)


@pytest.mark.parametrize("count", [2, 9, 40])
def test_a_chain_needs_as_many_steps_as_it_has_boxes(count: int) -> None:
    of = chain(count)
    wanted = list(range(0, count, 2))
    found = parallel_nms(*of, 0.3, limit=count)
    assert found.indices[found.valid].tolist() == wanted == batched_nms(*of, 0.3).tolist()
    short = parallel_nms(*of, 0.3, limit=count, steps=count // 2)
    assert not short.settled


def test_all_on_one_place_leave_the_first_of_the_best() -> None:
    boxes = torch.tensor([[0.0, 0, 4, 4]]).repeat(50, 1)
    scores = torch.full((50,), 0.5)
    scores[[7, 9]] = 0.75
    found = parallel_nms(boxes, scores, torch.zeros(50, dtype=torch.int64), 0.5, steps=2)
    assert found.indices[found.valid].tolist() == [7]
    assert found.settled
    apart = parallel_nms(boxes, scores, torch.arange(50), 0.5)
    assert int(apart.total) == 50, "each of another class"


@pytest.mark.parametrize("threshold", [0.6, 0.7, 0.3, 0.1])
def test_the_threshold_is_compared_as_torchvision_compares_it(threshold: float) -> None:
    """An IoU that is the float32 nearest to the threshold: above it or below it in float64."""
    share = round(threshold * 10)
    boxes = torch.tensor([[0.0, 0, 10, 1], [0.0, 0, share, 1]])
    of = (boxes, torch.tensor([0.9, 0.8]), torch.zeros(2, dtype=torch.int64))
    found = parallel_nms(*of, threshold)
    assert found.indices[found.valid].tolist() == batched_nms(*of, threshold).tolist()


def test_several_images_at_once_are_each_as_alone() -> None:
    drawn = np.random.default_rng(0)
    corner = torch.tensor(drawn.integers(0, 20, (3, 4, 30, 2))).float()
    boxes = torch.cat([corner, corner + 8], dim=-1)
    labels = torch.tensor(drawn.integers(0, 2, (3, 4, 30)))
    real = torch.tensor(drawn.integers(0, 5, (3, 4, 30)) > 0)
    kept, settled = greedy_kept(boxes, labels, real, 0.4)
    assert settled.shape == (3, 4)
    for i in range(3):
        for j in range(4):
            alone, _ = greedy_kept(boxes[i, j], labels[i, j], real[i, j], 0.4)
            assert torch.equal(kept[i, j], alone)
    assert not (kept & ~real).any()


def test_the_first_true_ones() -> None:
    flags = torch.tensor([[0, 1, 0, 1, 1], [0, 0, 0, 0, 1]], dtype=torch.bool)
    places, valid = first_true(flags, 2)
    assert places.tolist() == [[1, 3], [4, 0]]
    assert valid.tolist() == [[True, True], [True, False]]
    places, valid = first_true(flags, 7)
    assert places[0].tolist() == [1, 3, 4, 0, 0, 0, 0]
    assert valid.sum(dim=1).tolist() == [3, 1]


def test_nothing_waits_for_the_device() -> None:
    of = chain(12)
    with pytest.raises(AssertionError, match="waits"), NoWaiting():
        batched_nms(*of, 0.5)
    with NoWaiting():
        parallel_nms(*of, 0.5, 1, 5, real=torch.ones(12, dtype=torch.bool), steps=4)
