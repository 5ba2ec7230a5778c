"""Proposals files: read strictly, scaled and flipped with their images."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import coco_sets
import numpy as np
import pytest
import torch

from sepcbench.data.coco import CocoData, open_data
from sepcbench.data.evaluation_loader import evaluation_batches
from sepcbench.data.needs import check_given, check_learnable
from sepcbench.data.proposals import Proposals, check_proposals, read_proposals
from sepcbench.data.training_loader import TrainingLoader
from sepcbench.errors import DataError, UsageError
from sepcbench.specs import HEAD_TYPES, NATIVE, MaskSpec, RcnnSpec, RpnSpec
from sepcbench.variants import variant

SMALL = replace(NATIVE, short_side=64, long_side=96)
FOUND: list[dict[str, Any]] = [
    {"image_id": 10, "category_id": 1, "bbox": [5, 6, 20, 30], "score": 0.2},
    {"image_id": 10, "category_id": 1, "bbox": [0, 0, 8, 4], "score": 0.9},
    {"image_id": 11, "category_id": 99, "bbox": [1.5, 2, 3, 4], "score": -1},
    {"image_id": 12, "bbox": [10, 20, 0, 0], "score": 0},
]


@pytest.fixture
def data(tmp_path: Path) -> CocoData:
    coco_sets.write(tmp_path)
    return open_data(tmp_path)


def written(folder: Path, content: Any) -> Path:
    path = folder / "proposals.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


@pytest.fixture
def proposals(data: CocoData, tmp_path: Path) -> Proposals:
    return read_proposals(written(tmp_path, FOUND), data)


def test_boxes_per_image_best_first_whatever_their_category(proposals: Proposals) -> None:
    np.testing.assert_array_equal(proposals.of(10), [[0, 0, 8, 4], [5, 6, 25, 36]])
    np.testing.assert_array_equal(proposals.of(11), [[1.5, 2, 4.5, 6]])
    assert proposals.of(10).dtype == np.float32
    assert proposals.of(99).shape == (0, 4)


def test_the_digest_is_of_the_boxes(data: CocoData, tmp_path: Path, proposals: Proposals) -> None:
    assert read_proposals(written(tmp_path, FOUND[::-1]), data).digest == proposals.digest
    assert read_proposals(written(tmp_path, FOUND[1:]), data).digest != proposals.digest


def put(key: str, value: Any) -> Callable[[list[Any]], Any]:
    return lambda found: found[1].update({key: value})


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda found: found[1].pop("score"), "proposal 1: missing key 'score'"),
        (lambda found: found.insert(1, 3), "proposal 1 is not an object"),
        (put("bbox", [1, 2, 3]), "proposal 1: 'bbox' is not four numbers"),
        (put("bbox", [1, 2, 3, "4"]), "proposal 1: 'bbox' and 'score' are finite numbers"),
        (put("bbox", [1, 2, -3, 4]), "proposal 1: 'bbox' has a width or height below 0"),
        (put("score", float("nan")), "proposal 1: 'bbox' and 'score' are finite numbers"),
        (put("image_id", "10"), "proposal 1: 'image_id' is '10', not a whole number"),
        (put("image_id", 999), "names 1 images that are not in .* first image_id 999"),
    ],
)
def test_each_fault_has_its_line(
    data: CocoData, tmp_path: Path, change: Callable[[list[Any]], Any], line: str
) -> None:
    found = json.loads(json.dumps(FOUND))
    change(found)
    with pytest.raises(DataError, match=line) as error:
        read_proposals(written(tmp_path, found), data)
    assert "\n" not in str(error.value)


def test_files_that_hold_no_proposals_have_their_line(data: CocoData, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"proposals file .*none\.json' is not there"):
        read_proposals(tmp_path / "none.json", data)
    with pytest.raises(DataError, match="is truncated"):
        read_proposals(written(tmp_path, json.dumps(FOUND)[:-9]), data)
    with pytest.raises(DataError, match="expected a list of proposals"):
        read_proposals(data.annotations, data)


def test_an_image_without_proposals_is_named(data: CocoData, tmp_path: Path) -> None:
    some = read_proposals(written(tmp_path, FOUND[:3]), data)
    with pytest.raises(DataError, match=r"no proposals for 1 of 3 images .* first image_id 12"):
        check_proposals(some, data)
    check_proposals(some, data.first(2))


# --- batches -------------------------------------------------------------------------------


def by_order(data: CocoData, proposals: Proposals, flip: float) -> dict[float, torch.Tensor]:
    """Proposals of a training batch, by the first pixel of their images without flipping."""
    loader = TrainingLoader(data, SMALL, batch=3, flip=flip, seed=0, proposals=proposals)
    batch = loader[0]
    assert batch.proposals is not None
    assert batch.sizes == [(64, 85)] * 3
    keys = [float(image[0, 0, 84 if flip else 0]) for image in batch.images]
    return dict(zip(keys, batch.proposals, strict=True))


def test_proposals_are_scaled_and_flipped_with_their_images(
    data: CocoData, proposals: Proposals
) -> None:
    x, y = 85 / 80, 64 / 60
    wanted = torch.tensor([[0, 0, 8 * x, 4 * y], [5 * x, 6 * y, 25 * x, 36 * y]])
    plain, mirrored = by_order(data, proposals, 0.0), by_order(data, proposals, 1.0)
    (key,) = [key for key, boxes in plain.items() if len(boxes) == 2]
    torch.testing.assert_close(plain[key], wanted)
    flipped = torch.tensor([[85 - 8 * x, 0, 85, 4 * y], [85 - 25 * x, 6 * y, 85 - 5 * x, 36 * y]])
    torch.testing.assert_close(mirrored[key], flipped)


@pytest.mark.parametrize("batch", [1, 2])
def test_evaluation_brings_the_proposals_of_its_images(
    data: CocoData, proposals: Proposals, batch: int
) -> None:
    counts = {}
    for item in evaluation_batches(data, SMALL, batch, proposals):
        assert item.proposals is not None
        counts.update(zip(item.image_ids, map(len, item.proposals), strict=True))
        for image_id, boxes, scale in zip(item.image_ids, item.proposals, item.scales):
            factors = torch.tensor([*scale, *scale])
            wanted = torch.from_numpy(proposals.of(image_id)) * factors
            torch.testing.assert_close(boxes, wanted)
    assert counts == {10: 2, 11: 1, 12: 1}
    assert all(item.proposals is None for item in evaluation_batches(data, SMALL, batch))


# --- what heads need -----------------------------------------------------------------------


def test_what_each_head_needs_and_gives() -> None:
    assert RcnnSpec().needs == frozenset()
    assert RcnnSpec(mask=MaskSpec()).needs == {"masks"}
    assert RcnnSpec(rpn=None).needs == {"proposals"}
    assert RcnnSpec(rpn=None, mask=MaskSpec()).needs == {"masks", "proposals"}
    others = [cls() for cls in HEAD_TYPES.values() if cls is not RcnnSpec]
    assert not any(head.needs for head in others)
    assert [head for head in others if head.gives_proposals] == [RpnSpec()]


def test_what_a_variant_lacks_has_its_line(data: CocoData, proposals: Proposals) -> None:
    fast = variant("fast_rcnn_tiny_fpn")
    with pytest.raises(UsageError, match=r"fast_rcnn_tiny_fpn works on given proposals.*--out"):
        check_given(fast, data, None)
    check_given(fast, data, proposals)
    with pytest.raises(UsageError, match="finds its own boxes; leave out --proposals"):
        check_given(variant("retinanet_tiny_fpn"), data, proposals)
    with pytest.raises(DataError, match="mask_rcnn_tiny_fpn learns masks: 4 of 4 annotations"):
        check_learnable(variant("mask_rcnn_tiny_fpn"), data, None)
    check_learnable(variant("faster_rcnn_tiny_fpn"), data, None)
