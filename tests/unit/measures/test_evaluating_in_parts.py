"""`detect_all` by several processes, and where it was stopped: every image exactly once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from sepcbench.data.coco import CocoData, open_data
from sepcbench.data.shapes import generate
from sepcbench.detectors import Detector, build
from sepcbench.errors import DataError, StoreError, UsageError
from sepcbench.measures import accuracy
from sepcbench.measures.accuracy import detect_all
from sepcbench.variants import variant

IMAGES = 7
LOW = {"short_side": 64, "long_side": 64, "score_threshold": 0.005, "max_detections": 20}


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> CocoData:
    folder = tmp_path_factory.mktemp("shapes")
    generate(folder, images=1, val_images=IMAGES, seed=0, size=(48, 64))
    return open_data(folder, "val")


@pytest.fixture(scope="module")
def detector() -> Detector:
    return build(variant("retinanet_tiny_fpn", LOW), seed=0)


@pytest.fixture(scope="module")
def wanted(detector: Detector, shapes: CocoData) -> list[dict[str, Any]]:
    found = detect_all(detector, shapes, shapes.classes)
    assert len({item["image_id"] for item in found}) == IMAGES
    return found


class Seen:
    """Counts the images that the network runs on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count, real = 0, accuracy.detect

        def counting(detector: Any, batches: Sequence[Any], *rest: Any, **more: Any) -> Any:
            self.count += len(batches[0].image_ids)
            return real(detector, batches, *rest, **more)

        monkeypatch.setattr(accuracy, "detect", counting)


def test_results_do_not_depend_on_workers(
    detector: Detector, shapes: CocoData, wanted: list[dict[str, Any]]
) -> None:
    assert detect_all(detector, shapes, shapes.classes, workers=2) == wanted


@pytest.mark.parametrize("world", [1, 2, 3, 9])
def test_every_image_is_for_exactly_one_process(
    detector: Detector,
    shapes: CocoData,
    wanted: list[dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    world: int,
) -> None:
    seen = Seen(monkeypatch)
    found = [
        detect_all(detector, shapes, shapes.classes, rank=rank, world=world, keep=tmp_path)
        for rank in reversed(range(world))  # the first one last: there is no one to wait for
    ]
    assert found[-1] == wanted
    assert not any(found[:-1])
    assert seen.count == IMAGES


def test_a_gap_is_an_error(detector: Detector, shapes: CocoData, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"3 of 7 images were not done, first image_id 2"):
        detect_all(detector, shapes, shapes.classes, rank=0, world=2, keep=tmp_path)
    with pytest.raises(UsageError, match="name one with --keep"):
        detect_all(detector, shapes, shapes.classes, rank=0, world=2)


class Stop:
    """A progress display that is interrupted after some images."""

    def __call__(self, done: int, total: int, label: str) -> None:
        if done >= 4:
            raise KeyboardInterrupt


def _stopped(detector: Detector, shapes: CocoData, folder: Path) -> Path:
    """Stop after four images; the file they are kept in."""
    with pytest.raises(KeyboardInterrupt):
        detect_all(detector, shapes, shapes.classes, keep=folder, progress=Stop())
    (kept,) = folder.glob("*/*.jsonl")
    return kept


@pytest.mark.parametrize("world", [1, 2])
def test_a_run_goes_on_where_it_was_stopped(
    detector: Detector,
    shapes: CocoData,
    wanted: list[dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    world: int,
) -> None:
    _stopped(detector, shapes, tmp_path)
    seen = Seen(monkeypatch)
    for rank in reversed(range(world)):
        found = detect_all(detector, shapes, shapes.classes, keep=tmp_path, rank=rank, world=world)
    assert found == wanted
    assert seen.count == IMAGES - 4
    assert detect_all(detector, shapes, shapes.classes, keep=tmp_path) == wanted
    assert seen.count == IMAGES - 4, "nothing is left to do"


@pytest.mark.parametrize("cut", [1, 40, -1])
def test_a_line_that_was_cut_off_or_damaged_is_done_again(
    detector: Detector,
    shapes: CocoData,
    wanted: list[dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    cut: int,
) -> None:
    kept = _stopped(detector, shapes, tmp_path)
    content = kept.read_bytes()
    last = content.rstrip(b"\n").rindex(b"\n") + 1
    line = content[last:]
    damaged = line[:cut] if cut > 0 else line.replace(b"1", b"2")
    kept.write_bytes(content[:last] + damaged)
    seen = Seen(monkeypatch)
    assert detect_all(detector, shapes, shapes.classes, keep=tmp_path) == wanted
    assert seen.count == IMAGES - 3


def test_what_was_kept_is_of_the_same_weights_data_and_options(
    detector: Detector, shapes: CocoData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    detect_all(detector, shapes, shapes.classes, keep=tmp_path)
    seen = Seen(monkeypatch)
    others = [
        (build(variant("retinanet_tiny_fpn", LOW), seed=1), shapes, {}),
        (build(variant("retinanet_tiny_fpn", {**LOW, "nms_iou": 0.6}), seed=0), shapes, {}),
        (detector, shapes.first(6), {}),
        (detector, shapes, {"levels": True}),
    ]
    for number, (other, data, options) in enumerate(others, start=1):
        before = seen.count
        detect_all(other, data, data.classes, keep=tmp_path, **options)  # type: ignore[arg-type]
        assert seen.count - before == len(data.images), number


def test_a_folder_that_cannot_be_written_has_its_line(
    detector: Detector, shapes: CocoData, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(
        StoreError, match=r"cannot be written: .*; make room or name another folder"
    ):
        detect_all(detector, shapes, shapes.classes, keep=tmp_path / "file")
