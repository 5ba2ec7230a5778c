from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import coco_sets
import numpy as np
import pytest

from sepcbench.data.coco import category_ids, check_images, open_data
from sepcbench.errors import DataError


def test_the_usual_layout_is_found(tmp_path: Path) -> None:
    coco_sets.write(tmp_path / "pets")
    data = open_data(tmp_path / "pets", "val")
    assert data.name == "pets/instances_val"
    assert data.image_folder == tmp_path / "pets" / "val"
    assert data.classes == ("cat", "dog")
    check_images(data)


@pytest.mark.parametrize(
    "images", ["val2017", "val", "images/val2017", "images/val", "images", "."]
)
def test_image_folders_of_the_usual_names_are_found(tmp_path: Path, images: str) -> None:
    coco_sets.write(tmp_path)
    (tmp_path / "annotations/instances_val.json").rename(
        tmp_path / "annotations/instances_val2017.json"
    )
    (tmp_path / "val").rename(tmp_path / "moved")
    target = tmp_path / images
    target.mkdir(parents=True, exist_ok=True)
    for image in (tmp_path / "moved").iterdir():
        image.rename(target / image.name)
    data = open_data(tmp_path, "val")
    check_images(data)
    assert data.image_folder is not None
    assert data.image_folder.resolve() == target.resolve()


def test_of_cocos_own_files_the_instances_are_taken(tmp_path: Path) -> None:
    coco_sets.write(tmp_path, split="val2017")
    for other in ("captions_val2017", "person_keypoints_val2017", "instances_train2017"):
        (tmp_path / "annotations" / f"{other}.json").write_text("{}")
    assert open_data(tmp_path).annotations.name == "instances_val2017.json"
    assert open_data(tmp_path, "val2017").annotations.name == "instances_val2017.json"


def test_the_only_annotation_file_is_taken_unless_a_split_is_asked_for(tmp_path: Path) -> None:
    coco_sets.write(tmp_path, split="test")
    assert open_data(tmp_path).annotations.name == "instances_test.json"
    with pytest.raises(DataError, match=r"no split 'train'.*found instances_test\.json.*--split"):
        open_data(tmp_path, "train")


def test_two_files_of_one_split_are_ambiguous(tmp_path: Path) -> None:
    coco_sets.write(tmp_path)
    for name in ("a_val", "b_val"):
        (tmp_path / "annotations/instances_val.json").with_stem(name).write_text("{}")
    (tmp_path / "annotations/instances_val.json").unlink()
    with pytest.raises(DataError, match=r"several .* of split 'val'.*a_val\.json, b_val\.json"):
        open_data(tmp_path, "val")


def test_a_minival_is_not_a_val(tmp_path: Path) -> None:
    coco_sets.write(tmp_path)
    (tmp_path / "annotations/instances_minival.json").write_text("{}")
    assert open_data(tmp_path, "val").annotations.name == "instances_val.json"


def test_missing_folders_have_their_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere' is not there.*data shapes"):
        open_data(tmp_path / "nowhere")
    with pytest.raises(DataError, match="no annotations in"):
        open_data(tmp_path)
    with pytest.raises(DataError, match="no data set given"):
        open_data(None)
    with pytest.raises(DataError, match=r"image folder .* is not there"):
        open_data(None, annotations=coco_sets.write(tmp_path), images=tmp_path / "nowhere")


def test_explicit_annotations_and_images(tmp_path: Path) -> None:
    path = coco_sets.write(tmp_path / "a")
    (tmp_path / "a/val").rename(tmp_path / "pictures")
    data = open_data(None, annotations=path, images=tmp_path / "pictures")
    check_images(data)
    without = open_data(None, annotations=path)
    assert without.image_folder is None
    with pytest.raises(DataError, match=r"no image folder found.*--images"):
        check_images(without)


def test_missing_images_are_counted_and_the_first_is_named(tmp_path: Path) -> None:
    coco_sets.write(tmp_path)
    for name in ("1.png", "2.png"):
        (tmp_path / "val" / name).unlink()
    with pytest.raises(DataError, match=r"2 of 3 images are missing.*first '1\.png'"):
        check_images(open_data(tmp_path))


def test_objects_leave_out_crowds_and_boxes_of_no_size(tmp_path: Path) -> None:
    coco_sets.write(tmp_path)
    data = open_data(tmp_path)
    objects = data.objects(10)
    np.testing.assert_array_equal(objects.boxes, [[5, 6, 25, 36], [30, 6, 70, 46]])
    assert objects.labels.tolist() == [0, 1]
    for image in (11, 12):
        assert data.objects(image).boxes.shape == (0, 4)
        assert data.objects(image).labels.shape == (0,)


def test_the_first_images_keep_their_annotations_only(tmp_path: Path) -> None:
    coco_sets.write(tmp_path)
    data = open_data(tmp_path).first(1)
    assert [image.id for image in data.images] == [10]
    assert [box.id for box in data.boxes] == [1, 2]


def test_classes_are_matched_by_exact_name_whatever_their_order(tmp_path: Path) -> None:
    coco_sets.write(tmp_path)
    data = open_data(tmp_path)
    assert category_ids(data, ("dog", "cat")) == (7, 3)
    with pytest.raises(DataError, match=r"not in the data: 'dogs' \(nearest 'dog'\)") as error:
        category_ids(data, ("dogs", "cat"))
    assert "not in the checkpoint: 'dog' (nearest 'dogs')" in str(error.value)
    with pytest.raises(DataError, match="not in the checkpoint: 'dog'"):
        category_ids(data, ("cat",))


def test_many_classes_that_differ_are_shortened(tmp_path: Path) -> None:
    coco_sets.write(tmp_path)
    with pytest.raises(DataError, match="and 75 more"):
        category_ids(open_data(tmp_path), [f"thing {i}" for i in range(80)])


def test_reading_and_scoring_need_no_torch() -> None:
    code = (
        "import sys, sepcbench.data.coco, sepcbench.measures.scoring; "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_images_without_objects_go_with_their_crowds(tmp_path: Path) -> None:
    """Of three images one has objects, one a crowd and a box of no width, one nothing."""
    coco_sets.write(tmp_path)
    data = open_data(tmp_path)
    kept = data.with_objects()
    assert [image.id for image in kept.images] == [10]
    assert {box.image_id for box in kept.boxes} == {10}
    assert len(kept.objects(10).boxes) == 2
    assert kept.with_objects() is kept


def test_the_digest_is_of_what_is_learnt(tmp_path: Path) -> None:
    path = coco_sets.write(tmp_path, coco_sets.with_rectangles(coco_sets.document()))
    data = open_data(tmp_path)
    text = path.read_text()
    assert open_data(tmp_path, segmentations=False).digest == data.digest
    for old, new in (('"bbox": [5, 6, 20, 30]', '"bbox": [5, 6, 20, 31]'), ('"dog"', '"cow"')):
        assert old in text
        path.write_text(text.replace(old, new))
        assert open_data(tmp_path).digest != data.digest


def test_segmentations_can_be_left_out(tmp_path: Path) -> None:
    coco_sets.write(tmp_path, coco_sets.with_rectangles(coco_sets.document()))
    assert all(box.segmentation is not None for box in open_data(tmp_path).boxes)
    lean = open_data(tmp_path, segmentations=False)
    assert all(box.segmentation is None for box in lean.boxes)
    assert [box[:-1] for box in lean.boxes] == [box[:-1] for box in open_data(tmp_path).boxes]
