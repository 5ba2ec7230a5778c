"""Decoding in tensors of fixed sizes: the same detections as the plain decode, without waiting."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from waiting import NoWaiting

from sepcbench.errors import UsageError
from sepcbench.heads import HEADS, Detections, LevelOutput
from sepcbench.heads.batched_decode import (
    BatchedDecoder,
    to_detections,
    unsupported,
)
from sepcbench.heads.dense import DenseHead
from sepcbench.heads.retina import RetinaHead
from sepcbench.specs import (
    CONVENTIONS,
    NATIVE,
    AtssSpec,
    Conventions,
    FcosSpec,
    FreeAnchorSpec,
    FsafSpec,
    RepPointsSpec,
    RetinaSpec,
    RpnSpec,
    TowerSpec,
)

SPECS: dict[str, TowerSpec] = {
    made.TYPE: made(depth=0, channels=8, groups=2)
    for made in (RetinaSpec, FreeAnchorSpec, FsafSpec, FcosSpec, AtssSpec, RepPointsSpec)
}
SIZES, STRIDES, PADDED = ((12, 16), (6, 8), (3, 4)), (8, 16, 32), (96, 128)
IMAGES, FACTORS = [(90, 120), (96, 100)], (1.5, (2.0, 1.75))
# many candidates and few detections, few candidates, none at all, more than a level may have
SELECTIONS = {
    "all": {"max_detections": 40},
    "cut": {"candidates_per_level": 20, "score_threshold": 0.3, "max_detections": 10},
    "few": {"candidates_per_level": 20, "score_threshold": 0.8},
    "none": {"score_threshold": 0.999},
}
every_head = pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
every_convention = pytest.mark.parametrize("how", CONVENTIONS.values(), ids=CONVENTIONS)


def build(spec: TowerSpec, how: Conventions = NATIVE) -> DenseHead:
    torch.manual_seed(0)
    if isinstance(spec, FcosSpec):
        spec = replace(spec, ranges=(64.0, 128.0))
    return HEADS[type(spec)](spec, (8,) * 3, 3, STRIDES, how).eval()  # type: ignore[return-value]


@torch.no_grad()
def outputs_of(head: DenseHead, seed: int = 1) -> list[LevelOutput]:
    """Of a pyramid of noise, with logits that spread over all scores."""
    drawn = torch.Generator().manual_seed(seed)

    def noise(like: Tensor, scale: float = 1.0) -> Tensor:
        return torch.randn(like.shape, generator=drawn) * scale

    outputs = head([torch.randn(2, 8, *size, generator=drawn) for size in SIZES])
    return [
        output._replace(
            cls=noise(output.cls, 2.0) - 1.0,
            box=output.box + noise(output.box, 0.3).abs(),
            centerness=None if output.centerness is None else noise(output.centerness),
        )
        for output in outputs
    ]


def check(found: list[Detections], wanted: list[Detections]) -> None:
    assert len(found) == len(wanted)
    for a, b in zip(found, wanted):
        assert a.labels.tolist() == b.labels.tolist()
        torch.testing.assert_close(a.scores, b.scores)
        torch.testing.assert_close(a.boxes, b.boxes, atol=1e-3, rtol=1e-5)


@every_head
@every_convention
@pytest.mark.parametrize("selection", SELECTIONS)
def test_it_finds_what_the_plain_decode_finds(
    spec: TowerSpec, how: Conventions, selection: str
) -> None:
    head = build(spec, replace(how, **SELECTIONS[selection]))  # type: ignore[arg-type]
    outputs = outputs_of(head)
    wanted = head.decode(outputs, IMAGES, FACTORS, PADDED)
    found = BatchedDecoder(head, IMAGES, FACTORS, PADDED, candidates=600)(outputs)
    limit = head.conventions.max_detections
    assert found.boxes.shape == (2, limit, 4)
    assert found.scores.shape == found.labels.shape == (2, limit)
    assert found.exact.all()
    check(to_detections(found), wanted)
    for i, count in enumerate(found.counts.tolist()):
        assert not found.boxes[i, count:].any()
        assert not found.scores[i, count:].any()
    if selection == "none":
        assert not found.counts.any()


@every_head
@every_convention
def test_nothing_waits_for_the_device_from_the_second_call_on(
    spec: TowerSpec, how: Conventions
) -> None:
    head = build(spec, replace(how, candidates_per_level=20))
    first, second = outputs_of(head), outputs_of(head, 2)
    with pytest.raises(AssertionError, match="waits"), NoWaiting():
        head.decode(first, IMAGES, FACTORS, PADDED)
    decoder = BatchedDecoder(head, IMAGES, FACTORS, PADDED, candidates=600)
    decoder(first)
    with NoWaiting():
        found = decoder(second)
    check(to_detections(found), head.decode(second, IMAGES, FACTORS, PADDED))


@pytest.mark.parametrize("name", ["native", "mmdet1"])
def test_equal_scores_are_ranked_as_the_plain_decode_ranks_them(name: str) -> None:
    """Logits of half precision: the same values again and again, far from each other."""
    how = replace(CONVENTIONS[name], candidates_per_level=60, max_detections=30)
    head = build(SPECS["retina"], how)
    outputs = [
        output._replace(cls=(output.cls * 2).round() / 2, box=output.box * 0.1)
        for output in outputs_of(head)
    ]
    found = BatchedDecoder(head, IMAGES, None, PADDED)(outputs)
    assert found.exact.all()
    check(to_detections(found), head.decode(outputs, IMAGES, None, PADDED))


def test_other_sizes_by_the_same_decoder() -> None:
    """As between replays of a graph: the tensors are read, not the numbers they came from."""
    head = build(SPECS["fcos"])
    outputs = outputs_of(head)
    decoder = BatchedDecoder(head, IMAGES, FACTORS, PADDED, candidates=600)
    decoder(outputs)
    decoder.sizes.copy_(torch.tensor([[50, 60], [70, 80]]))
    decoder.divisors.copy_(torch.tensor([[1.0] * 4, [2.0] * 4]))
    wanted = head.decode(outputs, [(50, 60), (70, 80)], [1.0, 2.0], PADDED)
    check(to_detections(decoder(outputs)), wanted)


@pytest.mark.parametrize("name", ["native", "mmdet1"])
def test_it_says_where_it_saw_too_few_candidates(name: str) -> None:
    """Exact from the detections that are wanted at most, or from all candidates there are."""
    how = replace(CONVENTIONS[name], max_detections=5)
    head = build(SPECS["retina"], how)
    outputs = outputs_of(head)
    wanted = head.decode(outputs, IMAGES, None, PADDED)
    enough = BatchedDecoder(head, IMAGES, None, PADDED, candidates=200)(outputs)
    assert enough.exact.all()
    check(to_detections(enough), wanted)
    few = BatchedDecoder(head, IMAGES, None, PADDED, candidates=4)(outputs)
    assert not few.exact.any()


def test_it_says_where_it_had_too_few_steps() -> None:
    head = build(SPECS["retina"], replace(NATIVE, nms_iou=0.05))
    outputs = outputs_of(head)
    assert not BatchedDecoder(head, IMAGES, None, PADDED, steps=1)(outputs).exact.any()


class OwnDecode(RetinaHead):
    def decode(self, *_: object) -> list[Detections]:  # type: ignore[override]
        return ["its own"]  # type: ignore[list-item]


def test_heads_that_are_not_supported_say_so() -> None:
    own = OwnDecode(RetinaSpec(depth=0, channels=8), (8,) * 3, 3, STRIDES, NATIVE)
    with pytest.raises(UsageError, match="OwnDecode decodes in a way of its own; use its plain"):
        BatchedDecoder(own, IMAGES, None, PADDED)
    rpn = HEADS[RpnSpec](RpnSpec(), (256,) * 5, 3, (4, 8, 16, 32, 64), NATIVE)
    assert "no dense head" in str(unsupported(rpn))
    assert all(unsupported(build(spec)) is None for spec in SPECS.values())


def test_half_precision_outputs_in_channels_last() -> None:
    head = build(SPECS["atss"])
    outputs = [
        LevelOutput(
            *(
                None if maps is None else maps.half().contiguous(memory_format=torch.channels_last)
                for maps in output[:3]
            )
        )
        for output in outputs_of(head)
    ]
    found = BatchedDecoder(head, IMAGES, None, PADDED)(outputs)
    assert found.boxes.dtype == found.scores.dtype == torch.float32
    check(to_detections(found), head.decode(outputs, IMAGES, None, PADDED))
