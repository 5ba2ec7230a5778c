"""Which predictions become detections: candidates per level, then NMS over all levels."""

from __future__ import annotations

from torch import Tensor

from sepcbench.heads.outputs import Detections
from sepcbench.ops.nms import batched_nms
from sepcbench.specs import Conventions


def candidates(
    scores: Tensor, how: Conventions, quality: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Choose the candidates of one level of one image.

    `anchors`: the best anchors by their best class, then every class of them above the
    threshold. `pairs`: the best (anchor, class) pairs above the threshold.

    A quality in 0..1 scales scores as `quality` of the conventions says. `after`: the threshold
    and the rank of pairs are those of the plain score, the rank of anchors that of the product;
    the product is the score. `sqrt`: the score is the root of the product from the beginning.

    Args:
        scores: (cells, classes).
        how: fields `candidates`, `candidates_per_level`, `score_threshold`, `quality`.
        quality: (cells,) or None.

    Returns:
        Row in `scores`, label and score of each candidate, three tensors (n,).
    """
    if quality is not None and how.quality == "sqrt":
        scores, quality = (scores * quality[:, None]).sqrt(), None
    choose = _by_anchor if how.candidates == "anchors" else _by_pair
    rows, labels = choose(scores, how, quality)
    found = scores[rows, labels]
    return rows, labels, found if quality is None else found * quality[rows]


def _by_anchor(scores: Tensor, how: Conventions, quality: Tensor | None) -> tuple[Tensor, Tensor]:
    """In rank order if the level has too many anchors, otherwise in grid order."""
    limit = how.candidates_per_level
    if scores.shape[0] > limit:
        best = scores.amax(dim=1)
        chosen = (best if quality is None else best * quality).topk(limit).indices
        inner, labels = (scores[chosen] > how.score_threshold).nonzero(as_tuple=True)
        return chosen[inner], labels
    rows, labels = (scores > how.score_threshold).nonzero(as_tuple=True)
    return rows, labels


def _by_pair(scores: Tensor, how: Conventions, quality: Tensor | None) -> tuple[Tensor, Tensor]:
    rows, labels = (scores > how.score_threshold).nonzero(as_tuple=True)
    order = scores[rows, labels].sort(descending=True, stable=True).indices
    order = order[: how.candidates_per_level]
    return rows[order], labels[order]


def suppress(found: Detections, how: Conventions) -> Detections:
    """NMS per class, then the best `max_detections` by score.

    Without `always_sorted` (mmdetection 1.1), detections that need no cut keep their order.
    """
    kept = batched_nms(found.boxes, found.scores, found.labels, how.nms_iou, how.nms_offset)
    if not how.always_sorted and len(kept) <= how.max_detections:
        kept = kept.sort().values
    kept = kept[: how.max_detections]
    return found.at(kept)
