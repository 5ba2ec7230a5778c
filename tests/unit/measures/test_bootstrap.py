"""Bootstrap over images, against sets in which images literally are there several times."""

from __future__ import annotations

import numpy as np
import pytest
from scored_sets import Case, fuzzed, realistic

from sepcbench.measures.bootstrap import (
    MIN_IMAGES,
    Draws,
    bootstrap,
    compare,
    difference,
    draw,
    intervals,
)
from sepcbench.measures.coco_curves import curves, twelve
from sepcbench.measures.coco_matching import Found, Matched, Objects, match
from sepcbench.measures.weighted_scores import NUMBERS, weighted

# where each of `NUMBERS` is among the twelve
AT = dict(zip(NUMBERS, (0, 1, 2, 3, 4, 5, 8, 9, 10, 11)))


def matched(case: Case) -> Matched:
    return match(case.found, case.objects, **case.sizes)


def plain(case: Case) -> dict[str, float]:
    stats = twelve(curves(matched(case)))
    return {name: stats[index] for name, index in AT.items()}


def repeated(case: Case, times: np.ndarray) -> Case:
    """Each image so many times, its copies next to each other."""
    starts = np.cumsum(times) - times

    def copies(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        source = np.repeat(np.arange(len(image)), times[image])
        number = np.concatenate([np.arange(times[i]) for i in image] or [np.empty(0, int)])
        return source, starts[image[source]] + number

    f, o = case.found, case.objects
    d, of_found = copies(f.image)
    g, of_object = copies(o.image)
    return Case(
        Found(of_found, f.label[d], f.box[d], f.score[d]),
        Objects(of_object, o.label[g], o.box[g], o.area[g], o.crowd[g]),
        int(times.sum()),
        case.classes,
    )


def without_ties_within_images(case: Case) -> Case:
    """Ties within an image would be sorted otherwise among its copies; those between stay."""
    rng = np.random.default_rng(0)
    score = np.empty(len(case.found.score))
    for image in range(case.images):
        mine = case.found.image == image
        score[mine] = rng.permutation(mine.sum()) / 200
    f = case.found
    return case._replace(found=Found(f.image, f.label, f.box, score))


def assert_same(found: dict[str, np.ndarray], wanted: dict[str, float], index: int = 0) -> None:
    values = {name: -1.0 if np.isnan(v[index]) else v[index] for name, v in found.items()}
    assert values == pytest.approx(wanted, abs=1e-12, rel=0)


@pytest.mark.parametrize("seed", range(40))
def test_weights_of_one_are_the_plain_numbers(seed: int) -> None:
    case = fuzzed(seed)
    ones = np.ones((1, case.images), dtype=np.int32)
    assert_same(weighted(matched(case), ones, tuple(NUMBERS)), plain(case))


@pytest.mark.parametrize("seed", range(40))
def test_weights_are_copies_of_images(seed: int) -> None:
    case = without_ties_within_images(fuzzed(seed))
    weights = np.random.default_rng(seed).integers(0, 4, (3, case.images)).astype(np.int32)
    found = weighted(matched(case), weights, tuple(NUMBERS))
    for index, times in enumerate(weights):
        if times.sum():
            assert_same(found, plain(repeated(case, times)), index)


def test_copies_of_images_in_a_medium_set() -> None:
    case = without_ties_within_images(realistic(60, classes=8))
    weights = np.random.default_rng(0).integers(0, 3, (2, 60)).astype(np.int32)
    found = weighted(matched(case), weights, tuple(NUMBERS))
    for index, times in enumerate(weights):
        wanted = plain(repeated(case, times))
        assert 0.1 < wanted["ap"] < 0.9
        assert_same(found, wanted, index)


def test_interval_holds_the_value_and_narrows_with_more_images() -> None:
    widths = []
    for images in (40, 640):
        made = bootstrap(matched(realistic(images, classes=4)), resamples=100)
        assert [name for name, _ in made.numbers] == list(NUMBERS)
        assert (made.images, made.resamples) == (images, 100)
        estimate = dict(made.numbers)["ap"]
        low, high = estimate.ci95
        assert low < estimate.value < high
        widths.append(high - low)
    # by the square root of the number, 4, give or take
    assert 2.5 < widths[0] / widths[1] < 6.5


def test_intervals_lie_around_the_value() -> None:
    """The draws are 0.1 too high on average; 2.5 % of them lie below -0.95 and above 0.95."""
    drawn = np.linspace(-1, 1, 1001)
    draws = Draws(100, 0, (1, 1), {"ap": 0.4}, {"ap": 0.5 + drawn})
    ((_, estimate),) = intervals(draws).numbers
    assert estimate.value == 0.4
    assert estimate.ci95 == pytest.approx((0.4 - 0.95, 0.4 + 0.95))
    lower = Draws(100, 0, (1, 1), {"ap": 0.1}, {"ap": np.full(1001, 0.2)})
    found = difference(draws, lower)
    assert found.delta == pytest.approx(0.3)
    assert found.ci95 == pytest.approx((0.3 - 0.95, 0.3 + 0.95))


def test_spread_is_that_between_sets() -> None:
    """The standard deviation over draws of one set, against that over sets made alike."""
    sets = [matched(realistic(150, classes=3, seed=seed)) for seed in range(40)]
    spread = np.std([twelve(curves(one))[0] for one in sets])
    drawn = np.mean([np.std(draw(m, resamples=100, names=("ap",)).drawn["ap"]) for m in sets[:5]])
    assert drawn == pytest.approx(spread, rel=0.35)


def test_seed_decides() -> None:
    one = matched(realistic(30, classes=2))
    assert bootstrap(one, resamples=20, seed=1) == bootstrap(one, resamples=20, seed=1)
    assert bootstrap(one, resamples=20, seed=1) != bootstrap(one, resamples=20, seed=2)


def blurred(case: Case, pixels: float) -> Case:
    f = case.found
    moved = f.box + np.random.default_rng(1).normal(0, pixels, f.box.shape) * [1, 1, 0, 0]
    return case._replace(found=Found(f.image, f.label, moved, f.score))


def test_a_clear_difference_is_resolved_and_none_is_not() -> None:
    case = realistic(80, classes=3)
    better, worse = matched(case), matched(blurred(case, 3))
    found = compare(better, worse, resamples=200)
    expected = twelve(curves(better))[0] - twelve(curves(worse))[0]
    assert found.delta == pytest.approx(expected, abs=1e-12)
    assert found.resolved
    assert 0 < found.ci95[0] < found.delta < found.ci95[1]
    back = compare(worse, better, resamples=200)
    assert back.delta == pytest.approx(-found.delta)
    assert back.ci95 == pytest.approx((-found.ci95[1], -found.ci95[0]))
    same = compare(better, better, resamples=200)
    assert (same.delta, same.ci95, same.resolved) == (0.0, (0.0, 0.0), False)


def test_pairing_narrows() -> None:
    case = realistic(80, classes=3)
    ours, theirs = (draw(matched(c), names=("ap",)) for c in (case, blurred(case, 0.5)))
    low, high = difference(ours, theirs).ci95
    unpaired = np.hypot(np.std(ours.drawn["ap"]), np.std(theirs.drawn["ap"]))
    assert (high - low) / (2 * 1.96) < 0.5 * unpaired


def test_few_images_resolve_nothing() -> None:
    case = realistic(MIN_IMAGES - 1, classes=2)
    found = compare(matched(case), matched(blurred(case, 20)), resamples=100)
    assert found.ci95[0] > 0
    assert not found.resolved


def test_other_images_cannot_be_paired() -> None:
    one, other = (matched(realistic(30, classes=2, seed=seed)) for seed in (0, 1))
    with pytest.raises(ValueError, match="same images"):
        compare(one, other, resamples=5)


def test_no_ground_truth_gives_none() -> None:
    case = realistic(30, classes=2)
    o = case.objects
    crowds = Objects(o.image, o.label, o.box, o.area, np.ones_like(o.crowd))
    made = bootstrap(matched(case._replace(objects=crowds)), resamples=5)
    assert all(number.value is None and number.ci95 is None for _, number in made.numbers)


def test_progress() -> None:
    told = []
    bootstrap(
        matched(realistic(30, classes=2)), resamples=120, progress=lambda *step: told.append(step)
    )
    assert [step[:2] for step in told] == [(50, 120), (100, 120), (120, 120)]
