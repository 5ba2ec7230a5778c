"""A set and detections with ids as they come, and the referee that finds any difference."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import coco_sets
import numpy as np
import pytest

from sepcbench.data.coco import CocoData, open_data
from sepcbench.data.shapes import generate
from sepcbench.errors import DataError
from sepcbench.measures.coco_arrays import Detection, arrays
from sepcbench.measures.coco_curves import Curves, curves, twelve
from sepcbench.measures.coco_matching import COCO, PROPOSALS, Rules
from sepcbench.measures.coco_referee import check, evaluate


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> CocoData:
    folder = tmp_path_factory.mktemp("shapes")
    generate(folder, images=1, val_images=12, seed=0, size=(128, 128))
    data = open_data(folder, "val")
    # images listed in another order than that of their ids
    return replace(data, images=data.images[::-1])


@pytest.fixture(scope="module")
def found(shapes: CocoData) -> list[Detection]:
    """Near the objects, of any class, tied scores, not in the order of images."""
    rng = np.random.default_rng(0)
    made = []
    for box in shapes.boxes * 4:
        moved = np.array(box.bbox) * (1 + rng.normal(0, 0.05, 4))
        category = box.category_id if rng.random() < 0.8 else shapes.categories[0][0]
        made.append(
            {
                "image_id": box.image_id,
                "category_id": category,
                "bbox": moved.tolist(),
                "score": float(rng.integers(1, 10) / 10),
                "segmentation": rectangle(moved, 128),
            }
        )
    return [made[i] for i in rng.permutation(len(made))]


def rectangle(box: np.ndarray, size: int) -> dict[str, Any]:
    from sepcbench.data.segmentations import encode_mask

    x, y, width, height = np.maximum(box.round(), 0).astype(int)
    mask = np.zeros((size, size), dtype=bool)
    mask[y : y + height, x : x + width] = True
    return encode_mask(mask)


def drawn(data: CocoData, found: list[Detection], task: Any, rules: Rules = COCO) -> Curves:
    return curves(arrays(data, found, task, rules.agnostic).match(rules))


@pytest.mark.parametrize("task", ["bbox", "segm"])
def test_the_referee_agrees(shapes: CocoData, found: list[Detection], task: Any) -> None:
    made = drawn(shapes, found, task)
    assert 0.1 < twelve(made)[0] < 0.9
    check(made, shapes, found, task)


def test_the_referee_agrees_on_proposals(shapes: CocoData, found: list[Detection]) -> None:
    check(drawn(shapes, found, "bbox", PROPOSALS), shapes, found)
    unknown = [{**item, "category_id": 12345} for item in found]
    check(drawn(shapes, unknown, "bbox", PROPOSALS), shapes, unknown)


@pytest.mark.parametrize("name", ["precision", "recall", "scores"])
def test_one_bit_is_a_difference(shapes: CocoData, found: list[Detection], name: str) -> None:
    made = drawn(shapes, found, "bbox")
    values = getattr(made, name).copy()
    at = tuple(int(i[0]) for i in np.nonzero((values > 0) & (values < 1)))
    values[at] = np.nextafter(values[at], 2)
    with pytest.raises(
        DataError, match=rf"disagrees on {name}: 1 of .* first at {[*at]}".replace("[", r"\[")
    ):
        check(replace(made, **{name: values}), shapes, found)


def test_a_set_with_gaps_in_its_ids(tmp_path: Path) -> None:
    coco_sets.write(tmp_path, coco_sets.document())
    data = open_data(tmp_path)
    near = [
        {"image_id": b.image_id, "category_id": b.category_id, "bbox": [*b.bbox], "score": 0.5}
        for b in data.boxes
    ]
    made = drawn(data, near, "bbox")
    check(made, data, near)
    # one of the two cats is a box without width, which nothing can meet: recalls up to 0.5
    assert twelve(made)[0] == pytest.approx((1 + 51 / 101) / 2)


def test_none_at_all(shapes: CocoData) -> None:
    made = drawn(shapes, [], "bbox")
    check(made, shapes, [])
    assert twelve(made)[0] == 0.0


def test_images_and_categories_of_other_sets_are_left_out(
    shapes: CocoData, found: list[Detection]
) -> None:
    stray = [{**found[0], "image_id": 999}, {**found[1], "category_id": 999}]
    made = drawn(shapes, stray + found, "bbox")
    assert np.array_equal(made.precision, drawn(shapes, found, "bbox").precision)
    check(made, shapes, stray + found)


def test_image_areas_are_in_the_order_of_ids(shapes: CocoData) -> None:
    images = tuple(replace_size(image, 10 + i) for i, image in enumerate(shapes.images))
    made = arrays(replace(shapes, images=images), [])
    assert made.image_areas.tolist() == [10.0 * (10 + i) for i in range(len(images))][::-1]


def replace_size(image: Any, width: int) -> Any:
    return image._replace(width=width, height=10)


def test_evaluation_follows_the_rules_of_the_curves(
    shapes: CocoData, found: list[Detection]
) -> None:
    made = drawn(shapes, found, "bbox", Rules(thresholds=(0.5, 0.75), max_detections=(1, 2, 100)))
    evaluation = evaluate(shapes, found, "bbox", made)
    assert evaluation.eval["precision"].shape == made.precision.shape == (2, 101, 3, 4, 3)
