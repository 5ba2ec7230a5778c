"""Which detections are hits: COCO's greedy matching, vectorised, equal to pycocotools to the bit.

Detections meet objects of their image and class only: such a pair is called a cell here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sepcbench.measures.coco_greedy import candidates, greedy
from sepcbench.measures.coco_overlaps import PairOverlaps, box_overlaps, place_in_group

Range = tuple[float, float]


@dataclass(frozen=True)
class Rules:
    """What is evaluated; the defaults are COCO's for boxes and masks.

    Areas are in square pixels, both ends included. `max_detections` are per image and class, or
    per image if `agnostic`: then classes have no say.
    """

    thresholds: tuple[float, ...] = tuple(np.linspace(0.5, 0.95, 10).tolist())
    recalls: tuple[float, ...] = tuple(np.linspace(0.0, 1.0, 101).tolist())
    areas: tuple[Range, ...] = ((0, 1e5**2), (0, 32**2), (32**2, 96**2), (96**2, 1e5**2))
    max_detections: tuple[int, ...] = (1, 10, 100)
    agnostic: bool = False


COCO = Rules()
# class-agnostic recall of proposals
PROPOSALS = Rules(max_detections=(100, 1000), agnostic=True)


@dataclass(frozen=True)
class Found:
    """Detections: image (n,) and class (n,) as indices from 0, box (n, 4) as x, y, width, height.

    `area` (n,) is the area by which a detection is small or large, of the box if not given.
    """

    image: np.ndarray
    label: np.ndarray
    box: np.ndarray
    score: np.ndarray
    area: np.ndarray | None = None


@dataclass(frozen=True)
class Objects:
    """The ground truth: image (m,) and class (m,) as indices from 0, box (m, 4), crowd (m,) bool.

    `area` (m,) is the annotated one: with COCO that of the mask, not of the box.
    """

    image: np.ndarray
    label: np.ndarray
    box: np.ndarray
    area: np.ndarray
    crowd: np.ndarray


@dataclass(frozen=True)
class Matched:
    """Detections of all images by class, best score first, and which of them are hits.

    n detections are kept of those given, m objects, T thresholds, A areas. Only `hits` (h,) of
    the detections are matched at any threshold: `counted` (T, A, h) to an object that counts,
    `ignored` (T, A, h) to one that does not (a crowd, or of another size). `index` (n,) says which
    of the detections given each is.
    """

    rules: Rules
    images: int
    classes: int
    image: np.ndarray  # (n,)
    score: np.ndarray  # (n,)
    rank: np.ndarray  # (n,): place in its image and class, 0 is the best
    inside: np.ndarray  # (A, n): its own area is within the range
    starts: np.ndarray  # (classes + 1,): where each class begins in (n,)
    hits: np.ndarray
    counted: np.ndarray
    ignored: np.ndarray
    object_image: np.ndarray  # (m,)
    object_label: np.ndarray  # (m,)
    object_counts: np.ndarray  # (A, m)
    index: np.ndarray  # (n,)


def match(
    found: Found,
    objects: Objects,
    *,
    images: int,
    classes: int,
    rules: Rules = COCO,
    overlaps: PairOverlaps | None = None,
) -> Matched:
    """Match detections to objects.

    Where scores are equal the detection given first comes first, so give them in the order that
    pycocotools would read them in; images and classes in the order of their ids.

    Args:
        found: the detections.
        objects: the ground truth.
        images: how many images there are, also empty ones.
        classes: how many classes there are.
        rules: thresholds, areas and most detections.
        overlaps: IoU of pairs; that of the boxes if not given.
    """
    area = found.box[:, 2] * found.box[:, 3] if found.area is None else found.area
    overlaps = overlaps or box_overlaps(found.box, objects.box, objects.crowd)
    kept, cell, rank = _best_of_each_cell(found, images, rules)
    order, object_cell = _sorted_objects(objects, images, rules)
    counts = ~objects.crowd[order] & _within(objects.area[order], rules)
    thresholds = _thresholds(rules)
    pairs = candidates(cell, object_cell, kept, order, overlaps, thresholds.min())
    hits, counted, ignored = greedy(pairs, cell, counts, objects.crowd[order], thresholds)
    # by class and score; equal scores stay in the order of images, as in pycocotools
    label = cell // images
    by_score = np.lexsort((-found.score[kept], label))
    moved = np.empty_like(by_score)
    moved[by_score] = np.arange(len(by_score))
    resorted = np.argsort(moved[hits])
    kept = kept[by_score]
    count = 1 if rules.agnostic else classes
    return Matched(
        rules=rules,
        images=images,
        classes=count,
        image=found.image[kept],
        score=found.score[kept],
        rank=rank[by_score],
        inside=_within(area[kept], rules),
        starts=np.searchsorted(label[by_score], np.arange(count + 1)),
        hits=moved[hits][resorted],
        counted=counted[:, :, resorted],
        ignored=ignored[:, :, resorted],
        object_image=objects.image[order],
        object_label=object_cell // images,
        object_counts=counts,
        index=kept,
    )


def _within(area: np.ndarray, rules: Rules) -> np.ndarray:
    """(n,) -> (A, n)."""
    return np.array([(low <= area) & (area <= high) for low, high in rules.areas])


def _best_of_each_cell(
    found: Found, images: int, rules: Rules
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The best detections of each cell: their indices, cells and places there, (n,) each."""
    if rules.agnostic:
        # pycocotools lines up the classes of an image before it sorts by score
        cell = found.image
        order = np.lexsort((found.label, -found.score, cell))
    else:
        cell = found.label * images + found.image
        order = np.lexsort((-found.score, cell))
    rank = place_in_group(cell[order])
    best = rank < max(rules.max_detections)
    return order[best], cell[order][best], rank[best]


def _sorted_objects(objects: Objects, images: int, rules: Rules) -> tuple[np.ndarray, np.ndarray]:
    """Objects by cell, else as given; their indices and cells, (m,) each."""
    cell = objects.label * images + objects.image
    if rules.agnostic:
        order = np.lexsort((objects.label, objects.image))
        return order, objects.image[order]
    order = np.argsort(cell, kind="stable")
    return order, cell[order]


def _thresholds(rules: Rules) -> np.ndarray:
    """A threshold of 1 lets a perfect match pass that is off by rounding, as pycocotools does."""
    return np.minimum(rules.thresholds, 1 - 1e-10)
