"""Which predictions become detections: candidates per level, then NMS over all levels."""

from __future__ import annotations

from torch import Tensor

from sepcbench.heads.outputs import Detections
from sepcbench.ops.nms import batched_nms
from sepcbench.specs import Conventions


def candidates(scores: Tensor, how: Conventions) -> tuple[Tensor, Tensor, Tensor]:
    """Choose the candidates of one level of one image.

    `anchors`: the best anchors by their best class, then every class of them above the
    threshold. `pairs`: the best (anchor, class) pairs above the threshold.

    Args:
        scores: (cells, classes).
        how: fields `candidates`, `candidates_per_level`, `score_threshold`.

    Returns:
        Row in `scores`, label and score of each candidate, three tensors (n,).
    """
    if how.candidates == "anchors":
        return _by_anchor(scores, how)
    return _by_pair(scores, how)


def _by_anchor(scores: Tensor, how: Conventions) -> tuple[Tensor, Tensor, Tensor]:
    """In rank order if the level has too many anchors, otherwise in grid order."""
    limit = how.candidates_per_level
    if scores.shape[0] > limit:
        rows = scores.amax(dim=1).topk(limit).indices
        inner, labels = (scores[rows] > how.score_threshold).nonzero(as_tuple=True)
        return rows[inner], labels, scores[rows[inner], labels]
    rows, labels = (scores > how.score_threshold).nonzero(as_tuple=True)
    return rows, labels, scores[rows, labels]


def _by_pair(scores: Tensor, how: Conventions) -> tuple[Tensor, Tensor, Tensor]:
    rows, labels = (scores > how.score_threshold).nonzero(as_tuple=True)
    found = scores[rows, labels]
    found, order = found.sort(descending=True, stable=True)
    order = order[: how.candidates_per_level]
    return rows[order], labels[order], found[: how.candidates_per_level]


def suppress(found: Detections, how: Conventions) -> Detections:
    """NMS per class, then the best `max_detections` by score.

    Without `always_sorted` (mmdetection 1.1), detections that need no cut keep their order.
    """
    kept = batched_nms(found.boxes, found.scores, found.labels, how.nms_iou, how.nms_offset)
    if not how.always_sorted and len(kept) <= how.max_detections:
        kept = kept.sort().values
    kept = kept[: how.max_detections]
    return Detections(found.boxes[kept], found.scores[kept], found.labels[kept])
