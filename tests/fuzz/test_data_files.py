"""Damaged annotations, detections and proposals: read, or refused in one line."""

import json
import warnings

import pytest
from damage import FUZZ, LONG, NASTY, damaged, damaged_bytes, one_line, write
from hypothesis import given
from hypothesis import strategies as st

from sepcbench.cli.app import run
from sepcbench.data.coco import check_images, open_data
from sepcbench.data.proposals import check_proposals, read_proposals
from sepcbench.errors import SepcbenchError
from sepcbench.measures import scoring

RLE = {"size": [16, 20], "counts": [20, 30, 270]}
TRUTH = {
    "info": {"description": "x"},
    "images": [
        {"id": 1, "file_name": "1.png", "height": 16, "width": 20},
        {"id": 7, "file_name": "a/7.png", "height": 16, "width": 20},
    ],
    "categories": [{"id": 1, "name": "circle"}, {"id": 5, "name": "square"}],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 8, 6.5], "area": 40.0,
         "iscrowd": 0, "segmentation": [[1, 2, 9, 2, 9, 8, 1, 8]]},
        {"id": 2, "image_id": 1, "category_id": 5, "bbox": [0, 0, 5, 5], "iscrowd": 1,
         "segmentation": RLE},
        {"id": 3, "image_id": 7, "category_id": 5, "bbox": [3, 3, 5, 5], "segmentation": RLE},
    ],
}  # fmt: skip
FOUND = [
    {"image_id": 1, "category_id": 1, "bbox": [1, 2, 8, 6], "score": 0.9, "segmentation": RLE},
    {"image_id": 7, "category_id": 5, "bbox": [3, 3, 5, 5], "score": 0.5, "segmentation": RLE},
    {"image_id": 7, "category_id": 5, "bbox": [2.5, 3, 0, 5], "score": 1, "segmentation": RLE},
]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "annotations").mkdir()
    (tmp_path / "val").mkdir()
    write(tmp_path / "annotations" / "instances_val.json", TRUTH)
    write(tmp_path / "found.json", FOUND)
    return tmp_path


def use_truth(folder):
    """All that a set is used for."""
    data = open_data(folder)
    for image in data.images:
        data.objects(image.id)
        one_line(data.masks, image)
    one_line(check_images, data)
    known = {image.id for image in data.images}, {key for key, _ in data.categories}
    found = [f for f in FOUND if f["image_id"] in known[0] and f["category_id"] in known[1]]
    score_all(data, found)


def score_all(data, found):
    one_line(lambda: scoring.score(data, found, variant="v"))
    one_line(lambda: scoring.score(data, found, variant="v", task="segm"))
    one_line(lambda: scoring.recall(data, found, variant="v"))


def use_found(folder):
    data = open_data(folder)
    for task in ("bbox", "segm", "proposals"):
        try:
            found = scoring.read_detections(folder / "found.json", data, task)
        except SepcbenchError:
            continue
        if task == "proposals":
            scoring.recall(data, found, variant="v")
        else:
            one_line(lambda: scoring.score(data, found, variant="v", task=task))  # noqa: B023
    given = one_line(read_proposals, folder / "found.json", data)
    if given is not None:
        one_line(check_proposals, given, data)
        assert len(given.digest) == 16


def test_the_undamaged_files_are_used(folder):
    use_truth(folder)
    use_found(folder)
    data = open_data(folder)
    assert scoring.score(data, FOUND, variant="v").ap > 0


@FUZZ
@given(damaged(TRUTH))
def test_a_damaged_annotation_file(folder, tree):
    write(folder / "annotations" / "instances_val.json", tree)
    one_line(use_truth, folder)


@FUZZ
@given(damaged(FOUND))
def test_a_damaged_detections_file(folder, tree):
    write(folder / "found.json", tree)
    one_line(use_found, folder)


@FUZZ
@given(st.data())
def test_files_of_damaged_bytes(folder, data):
    for path, tree, use in (
        (folder / "annotations" / "instances_val.json", TRUTH, use_truth),
        (folder / "found.json", FOUND, use_found),
    ):
        path.write_bytes(data.draw(damaged_bytes(json.dumps(tree).encode())))
        one_line(use, folder)
        write(path, tree)


@pytest.mark.slow
@LONG
@given(st.one_of(damaged(TRUTH), damaged(FOUND)))
def test_many_damaged_files(folder, tree):
    write(folder / ("found.json" if isinstance(tree, list) else TRUTH_FILE), tree)
    one_line(use_found if isinstance(tree, list) else use_truth, folder)
    write(folder / "found.json", FOUND)
    write(folder / TRUTH_FILE, TRUTH)


TRUTH_FILE = "annotations/instances_val.json"


@pytest.mark.parametrize("value", NASTY, ids=lambda value: repr(value)[:20])
def test_no_value_anywhere_in_a_detection_is_a_traceback(folder, value):
    data = open_data(folder)
    for key in FOUND[0]:
        for broken in (value, [value] * 4, {"size": [16, 20], "counts": value}):
            write(folder / "found.json", [{**FOUND[0], key: broken}, *FOUND])
            with warnings.catch_warnings():
                warnings.simplefilter("error", RuntimeWarning)
                one_line(use_found, folder)
    assert data.name


@pytest.mark.parametrize("text", ["[" * 100_000, "[" + "1" * 5000 + "]", "", "\x00", "1", "nul"])
def test_json_without_end_is_one_line(folder, capsys, text):
    for path in (folder / TRUTH_FILE, folder / "found.json"):
        before = path.read_text()
        path.write_text(text)
        assert run(["score", str(folder / "found.json"), "--data", str(folder)]) == 2
        err = capsys.readouterr().err
        assert err.count("\n") == 1
        assert path.name in err
        path.write_text(before)
