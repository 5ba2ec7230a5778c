"""`referee`: pycocotools scores too, and a difference is an error."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import coco_sets
import numpy as np
import pytest

from sepcbench.data.coco import CocoData, open_data
from sepcbench.errors import DataError
from sepcbench.measures import coco_curves, scoring
from sepcbench.variants import variant


@pytest.fixture
def data(tmp_path: Path) -> CocoData:
    coco_sets.write(tmp_path, coco_sets.with_rectangles(coco_sets.document()))
    return open_data(tmp_path)


def near(data: CocoData) -> list[dict[str, Any]]:
    return [
        {
            "image_id": box.image_id,
            "category_id": box.category_id,
            "bbox": [box.bbox[0] + 1, *box.bbox[1:]],
            "score": 0.5,
        }
        for box in data.boxes
    ]


def every_score(data: CocoData, referee: bool) -> list[Any]:
    found = near(data)
    return [
        scoring.score(data, found, variant="v", referee=referee),
        scoring.recall(data, found, variant="v", referee=referee),
        *scoring.scores(data, found, variant("retinanet_tiny_fpn"), referee=referee).values(),
        *scoring.scores(data, found, variant("rpn_tiny_fpn"), referee=referee).values(),
    ]


def test_refereed_records_are_the_same(data: CocoData) -> None:
    refereed, alone = every_score(data, referee=True), every_score(data, referee=False)
    assert len(refereed) == len(alone) > 1
    for one, other in zip(refereed, alone):
        assert one.refereed
        assert not other.refereed
        assert one == replace(other, refereed=True)


def test_only_the_referee_needs_pycocotools(
    data: CocoData, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("pycocotools", "pycocotools.coco", "pycocotools.cocoeval", "pycocotools.mask"):
        monkeypatch.setitem(sys.modules, name, None)
    every_score(data, referee=False)
    with pytest.raises(ImportError):
        every_score(data, referee=True)


@pytest.mark.parametrize("which", range(4))
def test_a_wrong_matcher_is_found_out(
    data: CocoData, monkeypatch: pytest.MonkeyPatch, which: int
) -> None:
    found = near(data)
    calls = [
        lambda **k: scoring.score(data, found, variant="v", **k),
        lambda **k: scoring.recall(data, found, variant="v", **k),
        lambda **k: scoring.scores(data, found, variant("retinanet_tiny_fpn"), **k),
        lambda **k: scoring.scores(data, found, variant("rpn_tiny_fpn"), **k),
    ]

    def wrong(matched: Any) -> Any:
        made = coco_curves.curves(matched)
        return replace(made, recall=np.where(made.recall > 0, made.recall / 2, made.recall))

    monkeypatch.setattr(scoring, "curves", wrong)
    calls[which]()
    with pytest.raises(DataError, match="the referee disagrees on recall"):
        calls[which](referee=True)
