"""Score maps: against the head's own detections."""

from __future__ import annotations

import pytest
import torch

from sepcbench.detectors import Detector, build
from sepcbench.errors import UsageError
from sepcbench.measures.score_maps import score_maps
from sepcbench.variants import variant


def sure(name: str) -> Detector:
    """A detector with random weights whose scores are around a half."""
    detector = build(variant(name), seed=3).eval()
    for path, module in detector.head.named_modules():
        if path.split(".")[-1] == "cls_pred":
            torch.nn.init.normal_(module.weight, std=0.3)  # type: ignore[arg-type]
            torch.nn.init.zeros_(module.bias)  # type: ignore[arg-type]
    return detector


@pytest.mark.parametrize("name", ["retinanet_tiny_fpn", "fcos_tiny_fpn", "rpn_tiny_fpn"])
def test_the_best_cell_is_the_best_detection(name: str) -> None:
    detector = sure(name)
    image = torch.randn(1, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    maps = score_maps(detector, image)
    assert [m.level for m in maps] == list(detector.spec.levels)
    assert [m.stride for m in maps] == list(detector.spec.strides)
    side = [128 // stride for stride in detector.spec.strides]
    assert [m.scores.shape[1:] for m in maps] == [(s, s) for s in side]
    best = max(maps, key=lambda m: m.scores.max())
    found = detector.detect(image, [(128, 128)])[0]
    label, row, column = (int(v[0]) for v in (best.scores == best.scores.max()).nonzero())
    assert float(found.scores.max()) == pytest.approx(float(best.scores.max()), abs=1e-6)
    first = int(found.scores.argmax())
    assert int(found.labels[first]) == label
    x, y = best.first[0] + column * best.stride, best.first[1] + row * best.stride
    x1, y1, x2, y2 = found.boxes[first].tolist()
    assert x1 - best.stride <= x <= x2 + best.stride
    assert y1 - best.stride <= y <= y2 + best.stride


def test_cells_lie_where_anchors_or_points_do() -> None:
    image = torch.zeros(1, 3, 128, 128)
    places = {
        name: [m.first for m in score_maps(build(variant(name), seed=0), image)][:2]
        for name in ("retinanet_tiny_fpn", "fcos_tiny_fpn")
    }
    assert places["retinanet_tiny_fpn"] == [(0, 0), (0, 0)]
    assert places["fcos_tiny_fpn"] == [(4, 4), (8, 8)]


def test_two_stages_show_their_rpn() -> None:
    image = torch.zeros(1, 3, 128, 128)
    maps = score_maps(build(variant("faster_rcnn_tiny_fpn"), seed=0), image)
    assert {m.scores.shape[0] for m in maps} == {1}
    with pytest.raises(UsageError, match="no maps"):
        score_maps(build(variant("fast_rcnn_tiny_fpn"), seed=0), image)
