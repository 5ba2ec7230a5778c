from __future__ import annotations

import gc
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import count, islice
from pathlib import Path
from typing import Any
from unittest import mock

import coco_sets
import pytest
import torch

from sepcbench.data.coco import CocoData, open_data
from sepcbench.data.evaluation_loader import evaluation_batches
from sepcbench.data.order import EpochOrder
from sepcbench.data.training_loader import TrainingBatch, TrainingLoader
from sepcbench.data.workers import AHEAD, prefetched
from sepcbench.errors import DataError
from sepcbench.specs import CONVENTIONS, NATIVE

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


def _loader(data: CocoData, **changes: Any) -> TrainingLoader:
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


def test_workers_change_nothing_of_an_evaluation(data: CocoData) -> None:
    for how in (SMALL, replace(CONVENTIONS["torchvision"], short_side=64, long_side=96)):
        here = list(evaluation_batches(data, how, 2))
        there = list(evaluation_batches(data, how, 2, workers=2))
        assert [item.image_ids for item in here] == [item.image_ids for item in there]
        assert [item[2:] for item in here] == [item[2:] for item in there]
        assert all(torch.equal(a.images, b.images) for a, b in zip(here, there, strict=True))


# --- training: several processes, groups, sizes, workers -------------------------------------


def same(one: TrainingBatch, two: TrainingBatch) -> bool:
    return (
        torch.equal(one.images, two.images)
        and one.sizes == two.sizes
        and all(torch.equal(a, b) for a, b in zip(one.boxes, two.boxes, strict=True))
        and all(torch.equal(a, b) for a, b in zip(one.labels, two.labels, strict=True))
    )


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("short_sides", [None, (48, 64)])
def test_processes_share_out_what_one_would_take(
    data: CocoData, grouped: bool, short_sides: tuple[int, int] | None
) -> None:
    how = {"group_by_aspect": grouped, "short_sides": short_sides}
    alone = _loader(data, batch=6, **how)
    parts = [_loader(data, batch=2, rank=rank, world=3, **how) for rank in range(3)]
    for number in range(4):
        whole, shares = alone[number], [loader[number] for loader in parts]
        assert whole.sizes == [size for share in shares for size in share.sizes]
        boxes = [box for share in shares for box in share.boxes]
        assert all(torch.equal(a, b) for a, b in zip(whole.boxes, boxes, strict=True))
        for place, image in enumerate(image for share in shares for image in share.images):
            height, width = whole.sizes[place]
            assert torch.equal(whole.images[place, :, :height, :width], image[:, :height, :width])


@pytest.mark.parametrize("batch", [2, 3, 9])
def test_a_group_of_aspects_goes_through_all_images_in_each_epoch(
    data: CocoData, batch: int
) -> None:
    wide = [image.width > image.height for image in data.images]
    order = EpochOrder(
        [[i for i, w in enumerate(wide) if w], [i for i, w in enumerate(wide) if not w]], batch, 0
    )
    assert 0 < sum(wide) < len(wide)
    epochs = 18  # a multiple of every batch: no batch is left open at the end
    batches = [order[number] for number in range(epochs * len(wide) // batch)]
    assert all(len({wide[i] for i in images}) == 1 for images in batches)
    counts = Counter(i for images in batches for i in images)
    assert set(counts.values()) == {epochs}
    kinds = [wide[images[0]] for images in batches]
    assert kinds != sorted(kinds), "in random order"
    assert kinds != sorted(kinds, reverse=True)
    loader = _loader(data, batch=batch, group_by_aspect=True)
    assert all(len({w > h for h, w in loader[i].sizes}) == 1 for i in range(5))


def test_short_sides_are_drawn_for_each_image(data: CocoData) -> None:
    loader = _loader(data, batch=7, short_sides=(40, 64))
    sides = {min(size) for number in range(5) for size in loader[number].sizes}
    assert min(sides) >= 40
    assert max(sides) <= 64
    assert len(sides) > 10
    fixed = _loader(data, batch=7, short_sides=(64, 64))
    assert same(fixed[1], _loader(data, batch=7)[1])


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stream_is_the_batches_one_after_the_other(data: CocoData, workers: int) -> None:
    how = {"short_sides": (40, 64), "group_by_aspect": True, "workers": workers}
    loader = _loader(data, **how)
    streamed = list(islice(loader.stream(3), 5))
    assert all(same(batch, loader[3 + i]) for i, batch in enumerate(streamed))


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_is_damaged_has_its_line_from_workers_too(
    data: CocoData, workers: int
) -> None:
    data.path(data.images[2]).write_bytes(b"no image")
    with pytest.raises(DataError, match="is corrupt or truncated") as error:
        list(islice(_loader(data, workers=workers).stream(), 5))
    assert "\n" not in str(error.value)
    with pytest.raises(DataError, match="is corrupt or truncated"):
        list(evaluation_batches(data, SMALL, workers=workers))


def test_what_fails_ahead_fails_in_its_turn() -> None:
    def load(number: int) -> int:
        if number == 3:
            raise MemoryError
        return number

    items = prefetched(load, count(), 2, taken=4)
    assert list(islice(items, 3)) == [0, 1, 2]
    with pytest.raises(MemoryError):
        next(items)


@pytest.mark.parametrize("workers", [1, 3])
def test_workers_load_so_much_ahead_and_no_more(workers: int) -> None:
    asked: list[int] = []

    def work() -> Iterator[int]:
        for number in count():
            asked.append(threading.get_ident())
            yield number

    items = prefetched(_slowly, work(), workers, taken=5)
    assert list(islice(items, 10)) == list(range(10))
    assert len(asked) == 10 + workers * AHEAD + 5
    assert set(asked) == {threading.get_ident()}, "it need not be safe for threads"


def _slowly(number: int) -> int:
    time.sleep(0.003 * (number % 3))
    return number


def test_workers_leave_no_thread_and_no_setting() -> None:
    before, running = torch.get_num_threads(), threading.active_count()
    torch.set_num_threads(2)
    try:
        items = prefetched(_threads, range(20), 2)
        assert next(items) == 1
        assert threading.active_count() == running + 2
        with ThreadPoolExecutor(1) as later:
            assert later.submit(_threads, 0).result() == 2
        torch.set_num_threads(before)  # somebody else does, meanwhile
        items.close()
        assert threading.active_count() == running
        assert torch.get_num_threads() == before
    finally:
        torch.set_num_threads(before)


def _threads(number: int) -> int:
    torch.ones(100_000).sum()
    return torch.get_num_threads()


def test_a_stream_that_is_dropped_may_be_collected_by_a_worker() -> None:
    """It then cannot wait for that thread, which ends by itself."""
    running, dropped = threading.active_count(), threading.Event()

    def load(number: int) -> int:
        if number == 2:
            dropped.wait(5)
            gc.collect()
        return number

    def drop() -> None:
        cycle: list[object] = [prefetched(load, range(20), 1)]
        cycle.append(cycle)
        assert next(cycle[0]) == 0  # type: ignore[call-overload]

    failed: list[object] = []
    with mock.patch.object(sys, "unraisablehook", failed.append):
        gc.disable()
        try:
            drop()
            dropped.set()
            ends = time.monotonic() + 5
            while threading.active_count() > running and time.monotonic() < ends:
                time.sleep(0.01)
        finally:
            gc.enable()
    assert threading.active_count() == running
    assert not failed


def test_a_worker_that_cannot_begin_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(card: int) -> None:
        raise RuntimeError("no such card")

    monkeypatch.setattr(torch.cuda, "set_device", fails)
    with pytest.raises(RuntimeError, match="no such card"):
        next(prefetched(_slowly, range(3), 2, device="cuda:9"))


def test_workers_share_what_is_kept_in_memory(data: CocoData, tmp_path: Path) -> None:
    loader = _loader(data, batch=7, workers=2)
    seen = list(islice(loader.stream(), 4))
    for path in (tmp_path / "val").iterdir():
        path.unlink()
    again = list(islice(loader.stream(), 4))
    assert all(same(a, b) for a, b in zip(seen, again, strict=True))


@pytest.mark.parametrize(("device", "card"), [("cuda", 5), ("cuda:3", 3)])
def test_workers_pin_their_items_on_the_card_in_use(
    monkeypatch: pytest.MonkeyPatch, device: str, card: int
) -> None:
    class Item:
        def pin_memory(self) -> str:
            return f"pinned in {threading.current_thread().name[:7]}"

    used: list[int] = []
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 5)
    monkeypatch.setattr(torch.cuda, "set_device", used.append)
    items = list(prefetched(lambda number: Item(), range(3), 1, device=device))
    assert items == ["pinned in loading"] * 3
    assert used == [card]
