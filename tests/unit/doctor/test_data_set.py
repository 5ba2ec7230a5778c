"""A data set's health: what is missing, malformed or doubtful."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import coco_sets
import pytest
from PIL import Image

from sepcbench.doctor.data_set import annotation_files, check_data
from sepcbench.doctor.finding import Finding


def healthy() -> dict[str, Any]:
    content = coco_sets.document()
    content["annotations"].pop()  # of no width
    content["annotations"].append(
        {"id": 4, "image_id": 12, "category_id": 3, "bbox": [70, 50, 10.5, 10.5]}
    )
    return content


def check(folder: Path) -> list[Finding]:
    return list(check_data(folder))


def test_a_healthy_set(tmp_path: Path) -> None:
    coco_sets.write(tmp_path, healthy())
    found = check(tmp_path)
    assert {finding.status for finding in found} == {"ok"}
    text = " ".join(finding.text for finding in found)
    assert "3 images, 4 boxes, 2 categories" in text
    assert "all images are there" in text
    assert "sizes of 3 images are as annotated" in text


def test_every_split_is_checked_and_captions_are_not(tmp_path: Path) -> None:
    for split in ("train", "val"):
        coco_sets.write(tmp_path, healthy(), split)
    (tmp_path / "annotations" / "captions_val.json").write_text("{}")
    names = [path.stem for path in annotation_files(tmp_path)]
    assert names == ["instances_train", "instances_val"]
    assert {finding.topic for finding in check(tmp_path)} == {f"data {name}" for name in names}


def test_no_set(tmp_path: Path) -> None:
    for folder, text in ((tmp_path, "no annotations"), (tmp_path / "none", "not there")):
        (found,) = check(folder)
        assert found.status == "problem"
        assert text in found.text


Change = Callable[[dict[str, Any]], Any]


@pytest.mark.parametrize(
    ("change", "status", "text"),
    [
        (lambda c: c["images"][0].update(width=99), "problem", "1 of 3 images have another size"),
        (lambda c: c["annotations"][0].update(id=2), "problem", "annotation id 2 is there more"),
        (lambda c: c["annotations"][0].update(image_id=5), "problem", "image ids that are not"),
        (lambda c: c.pop("categories"), "problem", "no list 'categories'"),
        (lambda c: c["annotations"][0].update(bbox=[70, 6, 20, 30]), "warning", "annotations 1"),
        (lambda c: c["annotations"][0].update(bbox=[-5, 6, 20, 30]), "warning", "1 boxes reach"),
        (lambda c: c["annotations"][0].update(bbox=[5, 6, 0, 30]), "warning", "no width or height"),
        (
            lambda c: c["annotations"].append({**c["annotations"][0], "id": 9}),
            "warning",
            "1 boxes are there more than once",
        ),
        (lambda c: c["categories"].append({"id": 1, "name": "cow"}), "info", "no object: cow"),
        (lambda c: c["annotations"].pop(), "info", "1 images have no object"),
        (lambda c: c["annotations"].clear(), "warning", "0 boxes"),
    ],
)
def test_what_is_wrong_in_the_annotations(
    change: Change, status: str, text: str, tmp_path: Path
) -> None:
    content = healthy()
    coco_sets.write(tmp_path, content)
    change(content)
    (tmp_path / "annotations" / "instances_val.json").write_text(coco_sets.json.dumps(content))
    found = [finding for finding in check(tmp_path) if text in finding.text]
    assert [finding.status for finding in found] == [status]


def test_missing_and_broken_images(tmp_path: Path) -> None:
    coco_sets.write(tmp_path, healthy())
    (tmp_path / "val" / "0.png").unlink()
    (tmp_path / "val" / "1.png").write_text("no image")
    problems = [finding for finding in check(tmp_path) if finding.status == "problem"]
    assert [finding.text for finding in problems] == [
        "1 of 3 images are missing: 0.png",
        "1 of 2 images cannot be read: 1.png",
    ]


def test_an_image_listed_twice(tmp_path: Path) -> None:
    content = healthy()
    coco_sets.write(tmp_path, content)
    content["images"][1]["file_name"] = "0.png"
    (tmp_path / "annotations" / "instances_val.json").write_text(coco_sets.json.dumps(content))
    (found,) = [finding for finding in check(tmp_path) if finding.status == "warning"]
    assert "0.png" in found.text


def test_no_image_folder(tmp_path: Path) -> None:
    coco_sets.write(tmp_path, healthy())
    (tmp_path / "val").rename(tmp_path.parent / f"{tmp_path.name}_elsewhere")
    (found,) = [finding for finding in check(tmp_path) if finding.status != "ok"]
    assert found.status == "warning"
    assert "nothing can be trained" in found.text


def test_size_is_that_of_the_file_as_stored(tmp_path: Path) -> None:
    content = healthy()
    coco_sets.write(tmp_path, content)
    Image.new("RGB", (60, 80)).save(tmp_path / "val" / "2.png")  # turned by 90 degrees
    (found,) = [finding for finding in check(tmp_path) if finding.status == "problem"]
    assert "2.png (60 by 80 pixels)" in found.text
