"""Decoding of a whole batch in tensors of fixed sizes, which a CUDA graph can hold.

`DenseHead.decode` is the definition: image by image, with as many candidates as pass the threshold,
which makes the host wait for the device. Here every step has the size that shapes alone decide, so
nothing waits; what there is of it is told by masks and counts. Made for GPUs: on a CPU, where
nothing has to wait, it gains nothing over the plain decode.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from sepcbench.errors import UsageError
from sepcbench.heads.dense import DenseHead, Scale, divisor_of
from sepcbench.heads.outputs import Detections, LevelOutput, cells_first
from sepcbench.heads.rep_points import RepPointsHead
from sepcbench.ops.nms import first_true, greedy_kept
from sepcbench.specs import Conventions

CANDIDATES = 2048  # best of an image that NMS sees
STEPS = 32  # of NMS: the longest chain of suppressors it is exact for
_LOW_BITS = 2**32 - 1


class Padded(NamedTuple):
    """Detections of a batch in tensors of fixed sizes, D = `Conventions.max_detections`.

    `boxes` (N, D, 4) xyxy, `scores` (N, D) and `labels` (N, D) are 0 from `counts` (N,) on. `exact`
    (N,) says whether they are those of the plain decode: of more candidates than NMS saw, or longer
    chains than it had steps for, that is not known.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    counts: Tensor
    exact: Tensor


class _Found(NamedTuple):
    """Candidates of a batch, (N, n) each: row among all priors, label, score, whether real."""

    rows: Tensor
    labels: Tensor
    scores: Tensor
    real: Tensor


class BatchedDecoder:
    """Decode outputs of one shape, again and again, without a wait for the device.

    The first call makes the priors, which needs copies from the host; from the second on a call can
    be captured in a CUDA graph:

        decoder = BatchedDecoder(detector.head, image_sizes, scale_factors, padded)
        decoder(detector(images))            # warm-up, before the capture
        found = decoder(detector(images))    # within the capture: a `Padded`
        detections = to_detections(found)    # after a replay, where the host waits once

    Args:
        head: what `unsupported` says nothing about.
        image_sizes: (height, width) of each resized, unpadded image.
        scale_factors: per image, what boxes are divided by: a float or (x, y); None for 1.
        padded: (height, width) of the padded batch.
        candidates: how many candidates of an image NMS sees, the best ones.
        steps: of NMS; see `parallel_nms`.

    Attributes:
        sizes: (N, 2) float64, of the images; copy into it to decode others with the same graph.
        divisors: (N, 4) float32, what boxes are divided by; likewise.

    Raises:
        UsageError: the head is not supported.
    """

    def __init__(
        self,
        head: nn.Module,
        image_sizes: Sequence[tuple[int, int]],
        scale_factors: Sequence[Scale] | None,
        padded: tuple[int, int],
        *,
        candidates: int = CANDIDATES,
        steps: int = STEPS,
    ) -> None:
        reason = unsupported(head)
        if reason or not isinstance(head, DenseHead):
            raise UsageError(f"{reason}; use its plain decode")
        self.head, self.padded = head, padded
        self.candidates, self.steps = candidates, steps
        factors = scale_factors if scale_factors is not None else [1.0] * len(image_sizes)
        none = torch.empty(0)
        divisors = [divisor_of(factor, none) for factor in factors]
        self.sizes = torch.tensor(list(image_sizes), dtype=torch.float64).reshape(-1, 2)
        self.divisors = torch.stack(divisors) if divisors else torch.empty(0, 4)
        self._grids: dict[tuple[object, ...], Tensor] = {}

    def __call__(self, outputs: Sequence[LevelOutput]) -> Padded:
        """Decode the outputs of the head."""
        with torch.no_grad():
            priors = self._priors(outputs)
            found = _candidates(outputs, self.head)
            total = found.real.sum(dim=1)
            found, places = _best(found, self.candidates)
            boxes = _boxes(outputs, self.head, priors, found.rows)
            return self._select(boxes, found, places, total)

    def _priors(self, outputs: Sequence[LevelOutput]) -> Tensor:
        """Those of all levels, made once per shape and device, where the sizes go too."""
        first = outputs[0].cls
        key = (first.device, *(tuple(output.cls.shape[2:]) for output in outputs))
        if key not in self._grids:
            self._grids[key] = torch.cat(self.head.priors(outputs, self.padded))
        self.sizes, self.divisors = self.sizes.to(first.device), self.divisors.to(first.device)
        return self._grids[key]

    def _select(self, boxes: Tensor, found: _Found, places: Tensor, total: Tensor) -> Padded:
        """`dense.select` of sorted candidates, which were at `places` in the plain order."""
        how, divisors = self.head.conventions, self.divisors[:, None]
        if how.clip == "before_nms":
            boxes = _clipped(boxes, self.sizes[:, None], how)
        if how.rescale == "before_nms":
            boxes = boxes / divisors
        kept, settled = greedy_kept(
            boxes, found.labels, found.real, how.nms_iou, how.nms_offset, self.steps
        )
        limit, count = how.max_detections, kept.sum(dim=1)
        chosen, valid = first_true(kept, limit)
        # the best of all are among the best that NMS saw, if those are enough
        enough = count >= limit if how.always_sorted else count > limit
        exact = settled & (enough | (total <= places.shape[1]))
        if not how.always_sorted:
            chosen, valid = _in_plain_order(chosen, valid, places, count)
        boxes = _rows_of(boxes, chosen)
        if how.rescale == "after_nms":
            boxes = boxes / divisors
        scores, labels = found.scores.gather(1, chosen), found.labels.gather(1, chosen)
        if how.clip == "after_nms":
            sizes = self.sizes[:, None] / self.divisors[:, None, :2].flip(-1).double()
            boxes = _clipped(boxes, sizes, how)
            valid = valid & (boxes[..., 2:] > boxes[..., :2]).all(dim=-1)
            order, valid = first_true(valid, limit)
            scores, labels = scores.gather(1, order), labels.gather(1, order)
            boxes = _rows_of(boxes, order)
        boxes = boxes.masked_fill(~valid[..., None], 0)
        scores, labels = scores.masked_fill(~valid, 0), labels.masked_fill(~valid, 0)
        return Padded(boxes, scores, labels, valid.sum(dim=1), exact)


def unsupported(head: nn.Module) -> str | None:
    """Why a head cannot be decoded here, or None if it can: a dense head with its own decode."""
    if not isinstance(head, DenseHead):
        return f"{type(head).__name__} is no dense head: what follows depends on what it finds"
    kind = type(head)
    known = (DenseHead.candidates, RepPointsHead.candidates)
    if kind.decode is not DenseHead.decode or kind.candidates not in known:
        return f"{type(head).__name__} decodes in a way of its own"
    return None


def to_detections(found: Padded) -> list[Detections]:
    """Detections image by image; the host waits for the device once."""
    return [
        Detections(boxes[:count], scores[:count], labels[:count])
        for boxes, scores, labels, count in zip(*found[:3], found.counts.tolist())
    ]


def _candidates(outputs: Sequence[LevelOutput], head: DenseHead) -> _Found:
    """`selection.candidates` of all levels, in the order of the plain decode."""
    how, first, levels = head.conventions, 0, []
    choose = _by_anchor if how.candidates == "anchors" else _by_pair
    for output in outputs:
        logits = cells_first(output.cls.detach(), head.num_classes)  # (N, cells, K)
        quality = None
        if output.centerness is not None:
            quality = cells_first(output.centerness.detach().float(), 1).squeeze(2).sigmoid()
        level = choose(logits, quality, how)
        levels.append(level._replace(rows=level.rows + first))
        first += logits.shape[1]
    return _Found(*(torch.cat(parts, dim=1) for parts in zip(*levels)))


def _by_anchor(logits: Tensor, quality: Tensor | None, how: Conventions) -> _Found:
    """All classes of the best anchors of a level."""
    batch, cells, classes = logits.shape
    limit = how.candidates_per_level
    if cells > limit:
        best = _scores(logits.amax(dim=2, keepdim=True), quality, how).squeeze(2)
        if quality is not None and how.quality == "after":
            best = best * quality
        rows = best.topk(limit, dim=1).indices
    else:
        rows = torch.arange(cells, device=logits.device).expand(batch, cells)
    quality = None if quality is None else quality.gather(1, rows)
    scores = _scores(_rows_of(logits, rows), quality, how).flatten(1)
    labels = torch.arange(classes, device=logits.device).expand(*rows.shape, classes).flatten(1)
    of_pairs = rows[..., None].expand(*rows.shape, classes).flatten(1)
    real = scores > how.score_threshold
    if quality is not None and how.quality == "after":
        scores = scores * quality.repeat_interleave(classes, dim=1)
    return _Found(of_pairs, labels, scores, real)


def _by_pair(logits: Tensor, quality: Tensor | None, how: Conventions) -> _Found:
    """The best (anchor, class) pairs of a level, which are of the anchors with the best class."""
    cells, classes = logits.shape[1:]
    limit = how.candidates_per_level
    best = _scores(logits.amax(dim=2, keepdim=True), quality, how).squeeze(2)
    rows = torch.arange(cells, device=logits.device).expand_as(best)
    rows = _ranked(best, rows, min(limit, cells))[1]
    of_rows = None if quality is None else quality.gather(1, rows)
    scores = _scores(_rows_of(logits, rows), of_rows, how).flatten(1)
    labels = torch.arange(classes, device=logits.device)
    pairs = (rows[..., None] * classes + labels).flatten(1)
    pairs_scores = scores.masked_fill(~(scores > how.score_threshold), -1.0)
    picked, pairs = _ranked(pairs_scores, pairs, min(limit, pairs.shape[1]))
    scores = scores.gather(1, picked)
    rows, labels = pairs // classes, pairs % classes
    real = scores > how.score_threshold
    if quality is not None and how.quality == "after":
        scores = scores * quality.gather(1, rows)
    return _Found(rows, labels, scores, real)


def _scores(logits: Tensor, quality: Tensor | None, how: Conventions) -> Tensor:
    """Scores (N, cells, K) as the threshold sees them."""
    scores = logits.float().sigmoid()
    if quality is None or how.quality != "sqrt":
        return scores
    return (scores * quality[..., None]).sqrt()


def _best(found: _Found, count: int) -> tuple[_Found, Tensor]:
    """The best `count` real ones of each image in order, and the places (N, count) they had."""
    scores = found.scores.masked_fill(~found.real, -1.0)
    places = torch.arange(scores.shape[1], device=scores.device).expand_as(scores)
    picked = _ranked(scores, places, min(count, scores.shape[1]))[0]
    return _Found(*(part.gather(1, picked) for part in found)), picked


def _ranked(scores: Tensor, numbers: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Places (N, count) of the best scores, of equal ones the lowest numbers, and those numbers.

    A stable sort, but only of the best: floats that are not negative are in the order of their
    bits, which are the upper half of a key, with the number below them. Scores below 0 come last.
    """
    bits = scores.contiguous().view(torch.int32).long()
    keys = (bits << 32) + (_LOW_BITS - numbers)
    keys, places = keys.topk(count, dim=1)
    return places, _LOW_BITS - (keys & _LOW_BITS)


def _boxes(outputs: Sequence[LevelOutput], head: DenseHead, priors: Tensor, rows: Tensor) -> Tensor:
    """Boxes (N, n, 4) in resized pixels, not clipped, of the rows (N, n) among all priors."""
    maps = [output.box.detach() for output in outputs]
    if isinstance(head, RepPointsHead):
        maps = [head.point_boxes(points, level) for level, points in enumerate(maps)]
    values = torch.cat([cells_first(of_level, 4) for of_level in maps], dim=1)
    values = _rows_of(values, rows).float()
    boxes = head.boxes(priors[rows.flatten()], values.flatten(0, 1))
    return boxes.unflatten(0, rows.shape)


def _rows_of(x: Tensor, rows: Tensor) -> Tensor:
    """The rows (N, n) of x (N, cells, C): (N, n, C)."""
    return x.gather(1, rows[..., None].expand(-1, -1, x.shape[2]))


def _clipped(boxes: Tensor, sizes: Tensor, how: Conventions) -> Tensor:
    """`ops.boxes.clip` of (N, n, 4) to images of (height, width) (N, 1, 2)."""
    highest = (sizes.flip(-1).repeat(1, 1, 2) - how.clip_inset).to(boxes.dtype)
    return boxes.clamp(min=0).minimum(highest)


def _in_plain_order(
    chosen: Tensor, valid: Tensor, places: Tensor, count: Tensor
) -> tuple[Tensor, Tensor]:
    """Where no detection is cut off, in the order of candidates: mmdetection 1.1 (`suppress`)."""
    limit = chosen.shape[1]
    rank = torch.arange(limit, device=chosen.device)
    key = torch.where((count <= limit)[:, None], places.gather(1, chosen), rank)
    order = key.masked_fill(~valid, torch.iinfo(key.dtype).max).argsort(dim=1)
    return chosen.gather(1, order), valid.gather(1, order)
