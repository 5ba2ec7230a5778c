"""What all one-stage heads share: towers, where the necks stand in for them, empty batches."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from sepcbench.errors import UsageError
from sepcbench.heads import HEADS, LevelOutput
from sepcbench.heads.dense import DenseHead, select
from sepcbench.heads.outputs import Detections, Scene
from sepcbench.heads.selection import candidates
from sepcbench.necks import NECKS
from sepcbench.ops.convs import SharedConv
from sepcbench.specs import (
    CONVENTIONS,
    NATIVE,
    AtssSpec,
    Conventions,
    FcosSpec,
    FreeAnchorSpec,
    FsafSpec,
    PconvSpec,
    RetinaSpec,
    SepcSpec,
    TowerSpec,
)

SPECS: dict[str, TowerSpec] = {
    made.TYPE: made(depth=1, channels=8, groups=2)
    for made in (RetinaSpec, FreeAnchorSpec, FsafSpec, FcosSpec, AtssSpec)
}
SIZES, STRIDES = ((12, 16), (6, 8), (3, 4)), (8, 16, 32)
every_head = pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)


def build(spec: TowerSpec, how: Conventions = NATIVE) -> DenseHead:
    torch.manual_seed(0)
    if isinstance(spec, FcosSpec):
        spec = replace(spec, ranges=(64.0, 128.0))
    return HEADS[type(spec)](spec, (8,) * 3, 3, STRIDES, how)  # type: ignore[return-value]


def pyramid(batch: int = 2) -> list[Tensor]:
    torch.manual_seed(1)
    return [torch.randn(batch, 8, *size) for size in SIZES]


@every_head
def test_a_head_has_a_tower_per_branch_and_does_not_need_a_scene(spec: TowerSpec) -> None:
    head = build(spec).eval()
    plain, told = head(pyramid()), head(pyramid(), Scene((96, 128), [(90, 120)] * 2))
    assert all(torch.equal(a.cls, b.cls) and torch.equal(a.box, b.box) for a, b in zip(plain, told))
    names = {name.split(".")[0] for name, _ in head.named_parameters()}
    assert {"cls_tower", "box_tower", "cls_pred", "box_pred"} <= names


@every_head
def test_there_is_a_prior_and_a_box_per_row_of_the_maps(spec: TowerSpec) -> None:
    head = build(spec)
    outputs = head(pyramid())
    for output, priors in zip(outputs, head.priors(outputs, (96, 128)), strict=True):
        values = output.box[0].unflatten(0, (-1, 4)).permute(2, 3, 0, 1).flatten(0, 2)
        assert len(priors) == len(values) == output.cls[0].numel() // 3
        assert head.boxes(priors, values).shape == (len(priors), 4)


@every_head
@pytest.mark.parametrize("neck", [PconvSpec(8, 1), SepcSpec(8, 1)], ids=["pconv", "sepc"])
def test_a_tower_neck_stands_in_for_the_towers(spec: TowerSpec, neck: PconvSpec | SepcSpec) -> None:
    """From the pyramid pair straight to the predictions, and gradients back through both."""
    head, tower = build(replace(spec, depth=0)), NECKS[type(neck)](neck, (8,) * 3)
    assert not list(head.cls_tower.parameters())
    outputs = head(tower(pyramid()))
    assert [o.cls.shape[2:] for o in outputs] == [torch.Size(size) for size in SIZES]
    sum(m.sum() for o in outputs for m in o if m is not None).backward()
    assert all(p.grad is not None for p in head.parameters())
    found = head.decode(outputs, [(90, 120)] * 2, None, (96, 128))
    assert len(found) == 2


@every_head
def test_the_dcn_head_deforms_every_conv_of_the_towers(spec: TowerSpec) -> None:
    """Offsets start at zero, so it starts as the plain head."""
    plain, deformed = build(spec).eval(), build(replace(spec, deform=True)).eval()
    missing, unexpected = deformed.load_state_dict(plain.state_dict(), strict=False)
    assert not unexpected
    assert {key.split(".")[0] for key in missing} == {"cls_tower", "box_tower"}
    assert all(".offset." in key for key in missing)
    for a, b in zip(plain(pyramid()), deformed(pyramid())):
        torch.testing.assert_close(a.cls, b.cls, atol=1e-5, rtol=1e-4)
    convs = [m for m in deformed.modules() if isinstance(m, SharedConv)]
    for conv in convs:
        torch.nn.init.constant_(conv.offset.bias, 1.0)  # type: ignore[union-attr]
    moved = zip(plain(pyramid()), deformed(pyramid()))
    assert all(not torch.allclose(a.cls, b.cls) for a, b in moved), "on all levels"


@every_head
def test_an_empty_batch_has_empty_maps_and_no_detections(spec: TowerSpec) -> None:
    """As counting does it."""
    head = build(spec).eval()
    outputs = head(pyramid(0))
    assert all(len(maps) == 0 for o in outputs for maps in o if maps is not None)
    assert head.decode(outputs, [], None, (96, 128)) == []


def test_a_head_needs_equal_channels() -> None:
    with pytest.raises(UsageError, match="equal channels"):
        HEADS[FcosSpec](SPECS["fcos"], (8, 16, 8), 3, STRIDES, NATIVE)  # type: ignore[arg-type]


def test_quality_after_the_threshold_or_all_along() -> None:
    """Threshold 0.3, two kept, of scores 0.9, 0.5, 0.4 with centerness 0.2, 0.9, 1."""
    scores = torch.tensor([[0.9], [0.5], [0.4]])
    quality = torch.tensor([0.2, 0.9, 1.0])
    how = replace(NATIVE, score_threshold=0.3, candidates_per_level=2)
    wanted = {
        # the threshold on the plain score; the rank of a pair plain, of an anchor the product
        ("pairs", "after"): [(0, 0.18), (1, 0.45)],
        ("anchors", "after"): [(1, 0.45), (2, 0.4)],
        ("pairs", "sqrt"): [(1, 0.45**0.5), (2, 0.4**0.5)],
        ("anchors", "sqrt"): [(1, 0.45**0.5), (2, 0.4**0.5)],
    }
    for (rule, when), expected in wanted.items():
        rows, labels, found = candidates(
            scores, replace(how, candidates=rule, quality=when), quality
        )
        got = dict(zip(rows.tolist(), found.tolist()))
        assert got == pytest.approx(dict(expected)), (rule, when)
        assert labels.tolist() == [0, 0]


def test_select_puts_levels_together_before_nms() -> None:
    """The same object on two levels is one detection."""
    box, one = torch.tensor([[0.0, 0, 10, 10]]), torch.zeros(1, dtype=torch.int64)
    levels = [Detections(box, torch.tensor([score]), one) for score in (0.5, 0.9)]
    found = select(levels, (64, 64), 2.0, CONVENTIONS["mmdet2"])
    assert found.scores.tolist() == pytest.approx([0.9])
    assert found.boxes.tolist() == [[0, 0, 5, 5]]


def test_centerness_scales_the_score() -> None:
    head = build(SPECS["atss"])
    outputs = [
        LevelOutput(
            torch.full((1, 3, *size), -9.0), torch.zeros(1, 4, *size), torch.zeros(1, 1, *size)
        )
        for size in SIZES
    ]
    outputs[1].cls[0, 2, 3, 4] = 4.0
    outputs[1].centerness[0, 0, 3, 4] = 1.0  # type: ignore[index]
    (found,) = head.decode(outputs, [(96, 128)], None, (96, 128))
    score = torch.tensor(4.0).sigmoid() * torch.tensor(1.0).sigmoid()
    torch.testing.assert_close(found.scores, score[None])
    assert found.labels.tolist() == [2]
