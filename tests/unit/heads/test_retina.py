"""RetinaNet's head: layout of its outputs, start, and which predictions become detections."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from sepcbench.errors import UsageError
from sepcbench.heads import Detections, LevelOutput
from sepcbench.heads.anchor import AnchorHead
from sepcbench.heads.outputs import cells_first
from sepcbench.heads.retina import RetinaHead
from sepcbench.heads.selection import candidates, suppress
from sepcbench.ops.pyramid import PyramidPair
from sepcbench.specs import CONVENTIONS, NATIVE, Conventions, RetinaSpec

SPEC = RetinaSpec(depth=1, channels=8)
SIZES = ((8, 8), (4, 4))


def build(how: Conventions = NATIVE, spec: RetinaSpec = SPEC) -> RetinaHead:
    torch.manual_seed(0)
    return RetinaHead(spec, (8, 8), 3, (8, 16), how)


def pyramid(seed: int = 0) -> list[Tensor]:
    torch.manual_seed(seed)
    return [torch.randn(2, 8, h, w) for h, w in SIZES]


def silent() -> list[LevelOutput]:
    """Outputs without any detection, 3 classes and 9 anchors per cell."""
    return [
        LevelOutput(torch.full((1, 27, h, w), -9.0), torch.zeros(1, 36, h, w)) for h, w in SIZES
    ]


def test_outputs_have_the_layout_of_anchors_and_classes() -> None:
    outputs = build()(pyramid())
    assert [tuple(o.cls.shape) for o in outputs] == [(2, 27, 8, 8), (2, 27, 4, 4)]
    assert [tuple(o.box.shape) for o in outputs] == [(2, 36, 8, 8), (2, 36, 4, 4)]


def test_cells_first_goes_by_row_column_anchor() -> None:
    maps = torch.arange(2 * 6 * 3 * 4).reshape(2, 6, 3, 4)
    cells = cells_first(maps, 2)
    assert cells.shape == (2, 36, 2)
    n, anchor, value, row, column = 1, 2, 1, 1, 3
    got = cells[n, (row * 4 + column) * 3 + anchor, value]
    assert got == maps[n, anchor * 2 + value, row, column]


def test_a_pair_feeds_each_branch_its_own_pyramid() -> None:
    head, one, two = build(), pyramid(1), pyramid(2)
    mixed = head(PyramidPair(one, two))
    assert torch.equal(mixed[0].cls, head(one)[0].cls)
    assert torch.equal(mixed[0].box, head(two)[0].box)


def test_scores_start_at_the_prior() -> None:
    scores = build(spec=replace(SPEC, prior=0.02))([0 * x for x in pyramid()])[0].cls.sigmoid()
    torch.testing.assert_close(scores, torch.full_like(scores, 0.02))


def test_depth_0_reads_the_necks_channels() -> None:
    head = RetinaHead(RetinaSpec(depth=0, channels=256), (8, 8), 3, (8, 16), NATIVE)
    assert head.cls_pred.in_channels == 8
    assert not list(head.cls_tower.parameters())


def test_a_head_needs_equal_channels() -> None:
    with pytest.raises(UsageError, match="equal channels"):
        RetinaHead(SPEC, (8, 16), 3, (8, 16), NATIVE)


def test_one_loud_cell_is_one_detection_at_its_anchor() -> None:
    """Level 1, row 2, column 3, anchor 4 (ratio 1, second size), class 2, no deltas."""
    outputs = silent()
    outputs[1].cls[0, 4 * 3 + 2, 2, 3] = 4.0
    (found,) = build().decode(outputs, [(500, 500)], None, (512, 512))
    half = 4 * 16 * 2 ** (1 / 3) / 2
    wanted = torch.tensor([[48 - half, 32 - half, 48 + half, 32 + half]]).clamp(min=0)
    torch.testing.assert_close(found.boxes, wanted)
    assert found.labels.tolist() == [2]
    torch.testing.assert_close(found.scores, torch.tensor([4.0]).sigmoid())


def test_boxes_are_clipped_and_divided_by_the_scale_factor() -> None:
    outputs = silent()
    outputs[1].cls[0, 4 * 3, 2, 3] = 4.0
    head = build()
    (plain,) = head.decode(outputs, [(40, 50)], None, (64, 64))
    assert plain.boxes[0].tolist()[2:] == [50, 40]
    (scaled,) = head.decode(outputs, [(40, 50)], [(2.0, 4.0)], (64, 64))
    torch.testing.assert_close(scaled.boxes, plain.boxes / torch.tensor([2.0, 4.0, 2.0, 4.0]))
    (single,) = head.decode(outputs, [(40, 50)], [2.0], (64, 64))
    torch.testing.assert_close(single.boxes, plain.boxes / 2)


def _two_in_the_corner() -> list[LevelOutput]:
    """On level 0 two boxes of one class 32 wide and high, the less sure one 24 to the left."""
    outputs = silent()
    for column, logit in ((0, 3.0), (3, 4.0)):
        outputs[0].cls[0, 3 * 3, 0, column] = logit  # ratio 1, first size
    return outputs


def test_boxes_may_be_clipped_before_or_after_nms() -> None:
    """[-16, 16] and [8, 40]: in an image 12 wide they are [0, 12] and [8, 12]; then one overlaps.

    Before clipping they overlap by 8 / 56; after it by 4 / 12.
    """
    outputs, fields = _two_in_the_corner(), {"nms_iou": 0.2, "rescale": "after_nms"}
    boxes = {}
    for when in ("before_nms", "after_nms"):
        how = replace(NATIVE, clip=when, **fields)
        (found,) = build(how).decode(outputs, [(64, 12)], [(2.0, 4.0)], (64, 64))
        boxes[when] = found.boxes.tolist()
    assert boxes["before_nms"] == [[4, 0, 6, 4]]
    assert boxes["after_nms"] == [[4, 0, 6, 4], [0, 0, 6, 4]]
    how = replace(NATIVE, clip="after_nms", nms_iou=0.2, rescale="before_nms")
    (found,) = build(how).decode(outputs, [(64, 12)], [(2.0, 4.0)], (64, 64))
    assert found.boxes.tolist() == boxes["after_nms"], "clipped to the original image"


def test_detectron2_drops_what_clipping_leaves_empty() -> None:
    """[8, 40] lies outside an image 8 wide; [-16, 16] is cut by it."""
    (found,) = build(CONVENTIONS["detectron2"]).decode(
        _two_in_the_corner(), [(64, 8)], [2.0], (64, 64)
    )
    assert found.boxes.tolist() == [[0, 0, 4, 8]]
    torch.testing.assert_close(found.scores, torch.tensor([3.0]).sigmoid())
    kept = replace(CONVENTIONS["detectron2"], clip="before_nms")
    (found,) = build(kept).decode(_two_in_the_corner(), [(64, 8)], [2.0], (64, 64))
    assert found.boxes.tolist() == [[4, 0, 4, 8], [0, 0, 4, 8]]


def test_a_head_has_to_say_how_its_maps_become_boxes() -> None:
    with pytest.raises(TypeError, match="boxes"):
        AnchorHead(SPEC, (8, 8), 3, (8, 16), NATIVE)  # type: ignore[abstract]


def test_half_precision_maps_are_decoded_in_single() -> None:
    outputs = silent()
    outputs[0].cls[0, 0, 0, 0] = 3.0
    half = [LevelOutput(o.cls.half(), o.box.half()) for o in outputs]
    (found,) = build().decode(half, [(64, 64)], None, (64, 64))
    assert found.boxes.dtype == found.scores.dtype == torch.float32
    assert len(found.boxes) == 1


def test_nothing_above_the_threshold_gives_empty_detections() -> None:
    (found,) = build().decode(silent(), [(64, 64)], None, (64, 64))
    assert found.boxes.shape == (0, 4)
    assert found.scores.shape == found.labels.shape == (0,)
    assert found.labels.dtype == torch.int64


def test_the_two_selection_rules() -> None:
    scores = torch.tensor([[0.9, 0.8, 0.7], [0.6, 0.01, 0.0], [0.3, 0.2, 0.5]])
    pairs = replace(NATIVE, candidates_per_level=3, candidates="pairs")
    rows, labels, found = candidates(scores, pairs)
    assert list(zip(rows.tolist(), labels.tolist())) == [(0, 0), (0, 1), (0, 2)]
    torch.testing.assert_close(found, torch.tensor([0.9, 0.8, 0.7]))
    anchors = replace(NATIVE, candidates_per_level=2, candidates="anchors")
    rows, labels, found = candidates(scores, anchors)
    assert list(zip(rows.tolist(), labels.tolist())) == [(0, 0), (0, 1), (0, 2), (1, 0)]
    torch.testing.assert_close(found, torch.tensor([0.9, 0.8, 0.7, 0.6]))


@pytest.mark.parametrize(
    ("name", "order"), [("mmdet1", [0.5, 0.9, 0.7]), ("native", [0.9, 0.7, 0.5])]
)
def test_order_when_no_cut_is_needed(name: str, order: list[float]) -> None:
    boxes = torch.tensor([[0.0, 0, 9, 9], [20, 0, 29, 9], [40, 0, 49, 9]])
    found = Detections(boxes, torch.tensor([0.5, 0.9, 0.7]), torch.zeros(3, dtype=torch.int64))
    kept = suppress(found, CONVENTIONS[name])
    torch.testing.assert_close(kept.scores, torch.tensor(order))
    cut = suppress(found, replace(CONVENTIONS[name], max_detections=2))
    torch.testing.assert_close(cut.scores, torch.tensor([0.9, 0.7]))
