"""FSAF's and FreeAnchor's heads: where they differ from RetinaNet's."""

from __future__ import annotations

import pytest
import torch

from sepcbench.heads import HEADS, LevelOutput
from sepcbench.specs import CONVENTIONS, FreeAnchorSpec, FsafSpec, RetinaSpec

SIZES = ((8, 8), (4, 4))


def build(name: str = "mmdet2", spec: FsafSpec | FreeAnchorSpec | RetinaSpec | None = None):
    torch.manual_seed(0)
    spec = spec or FsafSpec(depth=1, channels=8)
    return HEADS[type(spec)](spec, (8, 8), 3, (8, 16), CONVENTIONS[name])


def one_box(values: list[float]) -> list[LevelOutput]:
    """One detection of class 1 with these values, at row 2, column 3 of level 1."""
    outputs = [LevelOutput(torch.full((1, 3, *s), -9.0), torch.zeros(1, 4, *s)) for s in SIZES]
    outputs[1].cls[0, 1, 2, 3] = 4.0
    outputs[1].box[0, :, 2, 3] = torch.tensor(values)
    return outputs


def test_one_anchor_per_cell_and_no_negative_distance() -> None:
    torch.manual_seed(0)
    outputs = build()([5 * torch.randn(2, 8, *size) for size in SIZES])
    assert [tuple(o.cls.shape) for o in outputs] == [(2, 3, 8, 8), (2, 3, 4, 4)]
    assert [tuple(o.box.shape) for o in outputs] == [(2, 4, 8, 8), (2, 4, 4, 4)]
    assert all((o.box >= 0).all() for o in outputs)
    assert any((o.cls < 0).any() for o in outputs)


@pytest.mark.parametrize(
    ("name", "box"),
    [
        # top, bottom, left, right in 4 strides of 16, from the cell at (48, 32)
        ("mmdet2", [48 - 19.2, 32 - 6.4, 48 + 25.6, 32 + 12.8]),
        # bottom, top, left, right in strides, from the middle of pixels 48..63, 32..47
        ("mmdet1", [56 - 4.8, 40 - 3.2, 56 + 6.4 - 1, 40 + 1.6 - 1]),
    ],
)
def test_one_loud_cell_is_one_box_around_it(name: str, box: list[float]) -> None:
    (found,) = build(name).decode(one_box([0.1, 0.2, 0.3, 0.4]), [(500, 500)], None, (512, 512))
    torch.testing.assert_close(found.boxes, torch.tensor([box]))
    assert found.labels.tolist() == [1]


@pytest.mark.parametrize("name", ["mmdet1", "mmdet2"])
def test_boxes_start_two_strides_wide(name: str) -> None:
    head = build(name)
    outputs = head([torch.zeros(1, 8, *size) for size in SIZES])
    outputs[1].cls[0, 1, 2, 2] = 4.0
    (found,) = head.decode(outputs, [(500, 500)], None, (512, 512))
    wide = found.boxes[0, 2:] - found.boxes[0, :2] + head.conventions.box_offset
    torch.testing.assert_close(wide, torch.tensor([32.0, 32.0]))


def test_free_anchor_has_retinanets_parameters_and_a_tenth_of_its_shifts() -> None:
    retina, free = (build(spec=kind(depth=1, channels=8)) for kind in (RetinaSpec, FreeAnchorSpec))
    free.load_state_dict(retina.state_dict())
    outputs = [LevelOutput(torch.full((1, 27, *s), -9.0), torch.zeros(1, 36, *s)) for s in SIZES]
    outputs[1].cls[0, 4 * 3, 2, 2] = 4.0
    outputs[1].box[0, 16:20, 2, 2] = torch.tensor([0.2, 0.3, 0.4, 0.5])
    (scaled,) = free.decode(outputs, [(500, 500)], None, (512, 512))
    outputs[1].box[0, 16:20, 2, 2] *= torch.tensor([0.1, 0.1, 0.2, 0.2])
    (plain,) = retina.decode(outputs, [(500, 500)], None, (512, 512))
    torch.testing.assert_close(scaled.boxes, plain.boxes)
