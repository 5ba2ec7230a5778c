"""How sure an AP is: paired bootstrap over images, of AP and of differences of AP.

The images of a set are drawn anew with replacement, as often as it has images; an image drawn
twice counts twice. Matching does not depend on which other images there are, so it is done once:
each draw only weighs what every image brought to the curves.

AP is biased: on few images it is higher (the best later precision is taken at each recall, and
classes with few objects scatter), and on drawn images, of which some are the same, higher still. So
intervals are the percentiles of the draws, moved so that the mean of the draws lies on the value
itself: they are for the AP on other images, as many as these. On generated sets of 200 images and
10 classes they held that AP in 93 % of 60 sets, the percentiles alone in 85 %; for differences
both did in 95 %.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from sepcbench.measures.coco_matching import Matched
from sepcbench.measures.weighted_scores import NUMBERS, weighted
from sepcbench.stats import MIN_IMAGES, centred

Interval = tuple[float, float]
Progress = Callable[[int, int, str], None]

RESAMPLES = 1000
# Draws that are worked on at once: so many, or fewer where that would be too many numbers.
BATCH = 50
MOST_NUMBERS = 20_000_000


@dataclass(frozen=True)
class Estimate:
    """A number as a fraction of 1 with its 95 % interval; None where there is no ground truth."""

    value: float | None
    ci95: Interval | None


@dataclass(frozen=True)
class Intervals:
    """The numbers of one variant by the names in `NUMBERS`."""

    images: int
    resamples: int
    seed: int
    numbers: tuple[tuple[str, Estimate], ...]


@dataclass(frozen=True)
class Difference:
    """How much one variant is above another, as a fraction of 1, on the same draws of images.

    `resolved` when the interval leaves out 0 and comes from at least `MIN_IMAGES` images.
    """

    delta: float | None
    ci95: Interval | None
    resolved: bool


@dataclass(frozen=True)
class Draws:
    """The numbers of a variant on the whole set, and on each draw (resamples,); NaN if none."""

    images: int
    seed: int
    objects: tuple[int, int]  # how many, and a check sum of where they are
    whole: dict[str, float]
    drawn: dict[str, np.ndarray]


def bootstrap(
    matched: Matched,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
    progress: Progress | None = None,
) -> Intervals:
    """95 % intervals of AP and AR over draws of images.

    Args:
        matched: detections and objects, matched by COCO's areas; AP and AR are taken at the most
            detections of its rules.
        resamples: how many draws.
        seed: of the draws.
        progress: told how many draws are done.
    """
    return intervals(draw(matched, resamples=resamples, seed=seed, progress=progress))


def compare(
    ours: Matched,
    reference: Matched,
    *,
    number: str = "ap",
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Difference:
    """The difference of two variants that were scored on the same images.

    For more than two, `draw` each once and take the `difference` of any two.

    Raises:
        ValueError: they were not scored on the same images and objects.
    """
    both = [draw(m, resamples=resamples, seed=seed, names=(number,)) for m in (ours, reference)]
    return difference(both[0], both[1], number)


def intervals(draws: Draws) -> Intervals:
    """Summarise draws by the middle 95 % of them, moved to the value itself."""
    numbers = tuple(
        (name, Estimate(_known(draws.whole[name]), centred(drawn, draws.whole[name])))
        for name, drawn in draws.drawn.items()
    )
    resamples = len(next(iter(draws.drawn.values()), ()))
    return Intervals(draws.images, resamples, draws.seed, numbers)


def difference(ours: Draws, reference: Draws, number: str = "ap") -> Difference:
    """The difference of two variants in one number, draw by draw.

    Raises:
        ValueError: they were not drawn from the same images and objects in the same way.
    """
    same = (ours.images, ours.seed, ours.objects, len(ours.drawn[number]))
    if same != (
        reference.images,
        reference.seed,
        reference.objects,
        len(reference.drawn[number]),
    ):
        raise ValueError("a paired comparison needs the same images, objects and draws of both")
    delta = ours.whole[number] - reference.whole[number]
    ci95 = centred(ours.drawn[number] - reference.drawn[number], delta)
    resolved = ci95 is not None and ours.images >= MIN_IMAGES and not ci95[0] <= 0 <= ci95[1]
    return Difference(_known(delta), ci95, resolved)


def draw(
    matched: Matched,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
    names: Sequence[str] = tuple(NUMBERS),
    progress: Progress | None = None,
) -> Draws:
    """Score draws of the images; the same seed draws the same images for every variant.

    Args:
        matched: detections and objects, matched by COCO's areas.
        resamples: how many draws.
        seed: of the draws.
        names: which of `NUMBERS` are wanted; fewer take less time.
        progress: told how many draws are done.
    """
    rng = np.random.default_rng(seed)
    whole = weighted(matched, np.ones((1, matched.images), dtype=np.int32), names)
    parts: list[dict[str, np.ndarray]] = []
    at_once = _at_once(matched)
    for done in range(0, resamples, at_once):
        batch = min(at_once, resamples - done)
        parts.append(weighted(matched, _weights(rng, batch, matched.images), names))
        if progress:
            progress(done + batch, resamples, "draws of images")
    drawn = {name: np.concatenate([part[name] for part in parts]) for name in names}
    where = matched.object_image.astype(np.int64) * (matched.classes + 1) + matched.object_label
    # in what order the objects of a cell are given has no say
    mark = int((where * (where % 1009 + 1)).sum())
    return Draws(
        images=matched.images,
        seed=seed,
        objects=(len(where), mark),
        whole={name: float(values[0]) for name, values in whole.items()},
        drawn=drawn,
    )


def _at_once(matched: Matched) -> int:
    """Draws per batch: the detections of a class are weighed together, for each draw of it."""
    largest = int(np.diff(matched.starts).max(initial=1))
    return min(BATCH, max(1, MOST_NUMBERS // max(largest, 1)))


def _weights(rng: np.random.Generator, batch: int, images: int) -> np.ndarray:
    """How often each image is drawn, (batch, images)."""
    picks = rng.integers(0, images, (batch, images))
    return np.array([np.bincount(row, minlength=images) for row in picks], dtype=np.int32)


def _known(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
