from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import coco_sets
import pytest
import torch

from sepcbench.data.coco import CocoData, open_data
from sepcbench.data.loading import TrainingLoader, evaluation_batches
from sepcbench.specs import NATIVE

SMALL = replace(NATIVE, short_side=64, long_side=96)


@pytest.fixture
def data(tmp_path: Path) -> CocoData:
    content = coco_sets.document(7)
    for index in (1, 4):
        content["images"][index].update(width=60, height=80)
    coco_sets.write(tmp_path, content)
    return open_data(tmp_path)


@pytest.mark.parametrize("batch", [1, 2, 3, 16])
def test_evaluation_shows_every_image_once_and_never_pads_further(
    data: CocoData, batch: int
) -> None:
    seen = []
    for item in evaluation_batches(data, SMALL, batch):
        assert len(item.images) == len(item.image_ids) <= batch
        for image, size in zip(item.images, item.sizes):
            assert all(0 <= p - s < 32 for p, s in zip(image.shape[1:], size))
        seen += item.image_ids
    assert sorted(seen) == [image.id for image in data.images]


def test_evaluation_does_not_depend_on_the_batch(data: CocoData) -> None:
    def images(batch: int) -> dict[int, torch.Tensor]:
        return {
            key: image
            for item in evaluation_batches(data, SMALL, batch)
            for key, image in zip(item.image_ids, item.images)
        }

    single, grouped = images(1), images(4)
    assert all(torch.equal(single[key], grouped[key]) for key in single)


def _loader(data: CocoData, **changes: float) -> TrainingLoader:
    settings = {"batch": 3, "flip": 0.5, "seed": 0, **changes}
    return TrainingLoader(data, SMALL, **settings)  # type: ignore[arg-type]


def test_training_goes_through_all_images_in_each_epoch(data: CocoData) -> None:
    loader = _loader(data, batch=7, flip=0.0)
    sums = [sorted(loader[i].images.sum(dim=(1, 2, 3)).tolist()) for i in range(3)]
    assert sums[0] == sums[1] == sums[2]
    assert not torch.equal(loader[0].images, loader[1].images), "a new order in each epoch"


def test_a_batch_depends_on_seed_and_iteration_alone(data: CocoData) -> None:
    one, two = _loader(data), _loader(data)
    for iteration in range(6):
        one[iteration]
    for iteration in (5, 2):
        first, second = one[iteration], two[iteration]
        assert torch.equal(first.images, second.images)
        assert all(torch.equal(a, b) for a, b in zip(first.boxes, second.boxes))
        assert all(torch.equal(a, b) for a, b in zip(first.labels, second.labels))
    assert not torch.equal(one[0].images, _loader(data, seed=1)[0].images)


def test_boxes_follow_resizing_and_flipping(data: CocoData) -> None:
    plain, mirrored = _loader(data, batch=7, flip=0.0)[0], _loader(data, batch=7, flip=1.0)[0]
    with_boxes = [i for i, boxes in enumerate(plain.boxes) if len(boxes)]
    assert len(with_boxes) == 1
    (index,) = with_boxes
    # 60x80 -> 64x85; the first box is 5, 6, 25, 36 in the file
    assert plain.sizes[index] == (64, 85)
    x, y = 85 / 80, 64 / 60
    wanted = torch.tensor([5 * x, 6 * y, 25 * x, 36 * y])
    torch.testing.assert_close(plain.boxes[index][0], wanted)
    torch.testing.assert_close(
        mirrored.boxes[index][0], torch.tensor([85 - 25 * x, 6 * y, 85 - 5 * x, 36 * y])
    )
    assert torch.equal(mirrored.images[index, :, :, :85], plain.images[index, :, :, :85].flip(-1))
    assert torch.equal(plain.labels[index], mirrored.labels[index])


def test_images_are_read_once_when_they_fit_in_memory(data: CocoData, tmp_path: Path) -> None:
    loader = _loader(data, batch=7)
    first = loader[0]
    for path in (tmp_path / "val").iterdir():
        path.unlink()
    assert loader[1].images.shape == first.images.shape
