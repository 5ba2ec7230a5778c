from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import coco_sets
import pytest

from sepcbench.data.annotations import read_annotations
from sepcbench.errors import DataError


def _read(folder: Path, content: Any) -> Any:
    path = folder / "instances.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return read_annotations(path)


def test_categories_are_sorted_by_id_and_missing_fields_have_their_defaults(
    tmp_path: Path,
) -> None:
    content = _read(tmp_path, coco_sets.document())
    assert content.categories == ((3, "cat"), (7, "dog"))
    assert [box.area for box in content.boxes] == [600, 900, 2500, 0]
    assert [box.iscrowd for box in content.boxes] == [0, 0, 1, 0]


def test_a_truncated_file_is_called_truncated_and_a_malformed_one_malformed(
    tmp_path: Path,
) -> None:
    text = json.dumps(coco_sets.document())
    for cut in (len(text) // 3, len(text) // 2, len(text) - 1):
        with pytest.raises(DataError, match=r"instances\.json' is truncated"):
            _read(tmp_path, text[:cut])
    with pytest.raises(DataError, match="is not valid JSON"):
        _read(tmp_path, text.replace(":", "=", 1))


@pytest.mark.parametrize("content", ["[1, 2]", '"text"', "{}", '{"images": {}}'])
def test_other_json_is_not_an_annotation_file(tmp_path: Path, content: str) -> None:
    with pytest.raises(DataError, match="is not a COCO annotation file"):
        _read(tmp_path, content)


def _drop(key: str, of: str) -> Callable[[dict[str, Any]], None]:
    return lambda content: content[of][0].pop(key)


def _set(of: str, index: int, key: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda content: content[of][index].update({key: value})


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (_drop("file_name", "images"), r"images\[0\]: missing key 'file_name'"),
        (_drop("width", "images"), r"images\[0\]: missing key 'width'"),
        (_drop("name", "categories"), r"categories\[0\]: missing key 'name'"),
        (_drop("bbox", "annotations"), r"annotations\[0\]: missing key 'bbox'"),
        (_drop("id", "annotations"), r"annotations\[0\]: missing key 'id'"),
        (_set("annotations", 1, "bbox", [1, 2, 3]), r"annotations\[1\]: 'bbox' is not four"),
        (_set("annotations", 1, "bbox", [1, 2, 3, None]), r"annotations\[1\]: 'bbox' is not four"),
        (_set("annotations", 1, "area", "big"), r"annotations\[1\]: 'area' is not a number"),
        (_set("annotations", 1, "iscrowd", 2), r"annotations\[1\]: 'iscrowd' is 2"),
        (_set("annotations", 1, "id", 1), "annotation id 1 is there more than once"),
        (_set("annotations", 1, "image_id", 99), "1 image ids that are not listed, first 99"),
        (_set("annotations", 1, "category_id", 5), "1 category ids that are not listed, first 5"),
        (_set("images", 1, "id", 10), "image id 10 is there more than once"),
        (_set("images", 1, "height", 0), r"images\[1\]: an image of 80 by 0 pixels"),
        (_set("images", 1, "id", "a"), r"images\[1\]: 'id' is 'a', not a whole number"),
        (_set("categories", 1, "id", 7), "category id 7 is there more than once"),
        (_set("categories", 1, "name", "dog"), "category name 'dog' is there more than once"),
        (lambda content: content["images"].clear(), "it lists no images"),
        (lambda content: content["categories"].clear(), "it lists no categories"),
        (lambda content: content["annotations"].insert(0, 5), r"annotations\[0\] is not an object"),
    ],
)
def test_each_fault_has_its_line(
    tmp_path: Path, change: Callable[[dict[str, Any]], None], line: str
) -> None:
    content = coco_sets.document()
    change(content)
    with pytest.raises(DataError, match=line) as error:
        _read(tmp_path, content)
    assert "\n" not in str(error.value)


def test_a_file_that_is_not_there_or_not_text(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not there"):
        read_annotations(tmp_path / "none.json")
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="it is not text"):
        read_annotations(tmp_path / "binary.json")
