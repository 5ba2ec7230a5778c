"""`--referee`: pycocotools scores too, and a difference ends in one line."""

import json

import pytest

from sepcbench.cli.app import run
from sepcbench.measures import coco_referee

SET = {
    "images": [{"id": 1, "file_name": "1.jpg", "width": 64, "height": 64}],
    "categories": [{"id": 1, "name": "thing"}],
    "annotations": [
        {
            "id": 1,
            "image_id": 1,
            "category_id": 1,
            "bbox": [8, 8, 16, 16],
            "area": 256,
            "iscrowd": 0,
        }
    ],
}
FOUND = [{"image_id": 1, "category_id": 1, "bbox": [8, 8, 16, 15], "score": 0.9}]


@pytest.mark.parametrize("task", ["bbox", "proposals"])
def test_the_referee_is_asked_only_if_wanted(tmp_path, monkeypatch, capsys, task):
    (tmp_path / "set.json").write_text(json.dumps(SET))
    (tmp_path / "found.json").write_text(json.dumps(FOUND))
    words = ["score", str(tmp_path / "found.json"), "--annotations", str(tmp_path / "set.json")]
    words += ["--task", task]
    assert run([*words, "--referee", "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["refereed"] is True

    def other(name, ours, theirs):
        same(name, ours + 1e-9, theirs)

    same = coco_referee._check_same
    monkeypatch.setattr(coco_referee, "_check_same", other)
    assert run([*words, "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["refereed"] is False
    assert run([*words, "--referee"]) == 2
    said = capsys.readouterr().err
    assert "the referee disagrees" in said
    assert len(said.splitlines()) == 1
