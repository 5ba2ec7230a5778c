"""AP by size, against pycocotools with the same areas."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from scored_sets import Case, evaluate, pycocotools_evaluation, realistic

from sepcbench.errors import DataError
from sepcbench.measures.coco_curves import curves, twelve
from sepcbench.measures.coco_matching import match
from sepcbench.measures.scale_wise import ABSOLUTE, RELATIVE, SizeRange, scale_wise


@pytest.fixture(scope="module")
def case() -> Case:
    return realistic(60, classes=4)


def test_edges_are_octaves() -> None:
    for edges in (ABSOLUTE, RELATIVE):
        assert edges[0] == 0
        assert all(high == 2 * low for low, high in itertools.pairwise(edges[1:]))
    assert (ABSOLUTE[1], ABSOLUTE[-1], RELATIVE[-1]) == (8, 1024, 1)


def test_cocos_own_edges_give_cocos_numbers(case: Case) -> None:
    stats = twelve(curves(match(case.found, case.objects, **case.sizes)))
    found = scale_wise(case.found, case.objects, **case.sizes, edges=(0, 32, 96, 1e5))
    assert [size.ap for size in found] == stats[3:6].tolist()
    assert [size.recall for size in found] == stats[9:12].tolist()


def by_pycocotools(case: Case, edges: tuple[float, ...]) -> list[tuple[float | None, ...]]:
    evaluation = pycocotools_evaluation(case)
    evaluation.params.areaRng = [[low**2, high**2] for low, high in itertools.pairwise(edges)]
    made = evaluate(evaluation, summarize=False).eval
    rows = []
    for area in range(len(edges) - 1):
        parts = (
            made["precision"][:, :, :, area, -1],
            made["precision"][0, :, :, area, -1],
            made["recall"][:, :, area, -1],
        )
        rows.append(tuple(p[p > -1].mean() if (p > -1).any() else None for p in parts))
    return rows


def numbers(found: tuple[SizeRange, ...]) -> list[tuple[float | None, ...]]:
    return [(size.ap, size.ap50, size.recall) for size in found]


def test_absolute(case: Case) -> None:
    found = scale_wise(case.found, case.objects, **case.sizes)
    assert numbers(found) == by_pycocotools(case, ABSOLUTE)
    assert found[-1].ap is None or found[-1].objects > 0
    assert sum(size.ap is not None for size in found) >= 6
    assert [(size.low, size.high) for size in found] == list(itertools.pairwise(ABSOLUTE))
    assert sum(size.objects for size in found) == (~case.objects.crowd).sum()


def test_relative_sizes_go_with_the_image(case: Case) -> None:
    """Images of different sizes; pycocotools is given the relative areas."""
    side = np.random.default_rng(0).uniform(300, 900, case.images)
    found = scale_wise(case.found, case.objects, **case.sizes, edges=RELATIVE, image_areas=side**2)
    area = case.found.box[:, 2] * case.found.box[:, 3] / (side**2)[case.found.image]
    relative = case._replace(
        found=replace(case.found, area=area),
        objects=replace(case.objects, area=case.objects.area / (side**2)[case.objects.image]),
    )
    assert numbers(found) == by_pycocotools(relative, RELATIVE)


def test_relative_sizes_do_not_change_with_resizing(case: Case) -> None:
    areas = np.full(case.images, 640.0**2)
    double = [replace(part, box=2 * part.box) for part in (case.found, case.objects)]
    double[1] = replace(double[1], area=4 * case.objects.area)
    assert scale_wise(*double, **case.sizes, edges=RELATIVE, image_areas=4 * areas) == scale_wise(
        case.found, case.objects, **case.sizes, edges=RELATIVE, image_areas=areas
    )


def test_sizes_without_objects_are_none(case: Case) -> None:
    empty = scale_wise(case.found, case.objects, **case.sizes, edges=(5000, 6000))
    assert empty == (SizeRange(5000, 6000, 0, None, None, None),)


@pytest.mark.parametrize("edges", [(), (8,), (8, 8), (0, 16, 8)])
def test_edges_that_do_not_increase(case: Case, edges: tuple[float, ...]) -> None:
    with pytest.raises(DataError, match="must increase"):
        scale_wise(case.found, case.objects, **case.sizes, edges=edges)


def test_images_without_area(case: Case) -> None:
    areas = np.ones(case.images)
    areas[3] = 0
    with pytest.raises(DataError, match="image 3 has no area"):
        scale_wise(case.found, case.objects, **case.sizes, image_areas=areas)
