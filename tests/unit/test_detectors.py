"""Whole detectors: every variant builds, runs, and trains in every parameter."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import sepcbench
from sepcbench.detectors import build, padded_size
from sepcbench.errors import UsageError
from sepcbench.ops.pyramid import PyramidPair
from sepcbench.specs import (
    CONVENTIONS,
    AnchorHeadSpec,
    FpnSpec,
    HrfpnSpec,
    NasFpnSpec,
    PconvSpec,
    RepPointsSpec,
    RetinaSpec,
    RpnSpec,
    TinySpec,
    TowerSpec,
    VariantSpec,
)
from sepcbench.training.objectives import Target, loss
from sepcbench.variants import DETECTORS, VARIANTS, variant

TINY = [name for name in VARIANTS if "_tiny_" in name]
R18 = [name for name in VARIANTS if "_r18_" in name]


def one_stage(name: str) -> bool:
    return isinstance(VARIANTS[name].head, (TowerSpec, RpnSpec))


def repeats(name: str) -> bool:
    """Whether others have all its parts: retinanet's necks on another head, deep backbones."""
    detector = next(d for d in DETECTORS if name.startswith(f"{d}_tiny_"))
    return detector != "retinanet" and name.endswith(("single", "independent", "gn", "lite"))


SOME_TINY = [pytest.param(n, marks=pytest.mark.slow) if repeats(n) else n for n in TINY]


def values_per_cell(spec: VariantSpec) -> int:
    """Values of the box maps in each cell."""
    if isinstance(spec.head, RepPointsSpec):
        return 2 * spec.head.points
    if isinstance(spec.head, RpnSpec):
        return 4 * len(spec.head.ratios) * len(spec.head.scales)
    if isinstance(spec.head, AnchorHeadSpec):
        return 4 * len(spec.head.ratios) * spec.head.scales_per_octave
    return 4


def classes_per_cell(spec: VariantSpec) -> int:
    if isinstance(spec.head, RpnSpec):
        return len(spec.head.ratios) * len(spec.head.scales)
    if isinstance(spec.head, AnchorHeadSpec):
        return spec.num_classes * len(spec.head.ratios) * spec.head.scales_per_octave
    return spec.num_classes


def cells(spec: VariantSpec, height: int, width: int) -> list[tuple[int, int]]:
    return [(-(-height // stride), -(-width // stride)) for stride in spec.strides]


@pytest.mark.parametrize("name", [n for n in (*R18, *TINY) if one_stage(n)])
def test_an_empty_batch_goes_through(name: str) -> None:
    """Counting traces a batch of zero images; maps are halved upwards, but pooled ones."""
    detector = build(VARIANTS[name], init=False).eval()
    pooled = isinstance(detector.spec.necks[0], (HrfpnSpec, NasFpnSpec))
    height, width = (256, 384) if pooled else (200, 264)
    with torch.no_grad():
        outputs = detector(torch.empty(0, 3, height, width))
    for output, (h, w) in zip(outputs, cells(detector.spec, height, width), strict=True):
        assert output.cls.shape == (0, classes_per_cell(detector.spec), h, w)
        assert output.box.shape == (0, values_per_cell(detector.spec), h, w)


@pytest.mark.parametrize("name", [n for n in TINY if not one_stage(n)])
def test_an_empty_batch_has_no_rois(name: str) -> None:
    detector = build(VARIANTS[name], init=False).eval()
    with torch.no_grad():
        outputs = detector(torch.empty(0, 3, 128, 128))
    assert outputs.cls.shape == (0, detector.spec.num_classes + 1)
    assert outputs.box.shape == (0, 4 * detector.spec.num_classes)


def made_targets() -> list[Target]:
    """An image with two objects and one without any."""
    boxes = torch.tensor([[10.0, 20, 60, 70], [40, 40, 128, 120]])
    masks = torch.zeros(2, 128, 128, dtype=torch.bool)
    masks[0, 20:70, 10:60], masks[1, 40:120, 40:128] = True, True
    proposals = torch.cat([boxes + 3, boxes - 40]).clamp(0, 128)
    return [
        Target(boxes, torch.tensor([0, 2]), masks, proposals),
        Target(boxes[:0], torch.empty(0).long(), masks[:0], proposals),
    ]


@pytest.mark.parametrize("name", SOME_TINY)
def test_every_trainable_parameter_gets_a_finite_gradient(name: str) -> None:
    torch.manual_seed(0)
    detector = build(VARIANTS[name]).train()
    images = torch.randn(2, 3, 128, 128)  # P7 is 1x1
    losses = loss(detector, detector(images), made_targets(), [(128, 128)] * 2)
    assert all(value.shape == () for value in losses.values())
    total = torch.stack(list(losses.values())).sum()
    assert total > 0
    total.backward()
    for key, parameter in detector.named_parameters():
        if name == "fast_rcnn_tiny_hrfpn" and key.startswith("necks.0.outputs.4."):
            continue  # without an RPN nothing reads P6
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key


@pytest.mark.parametrize("name", [n for n in TINY if one_stage(n)])
def test_meta_tensors_go_through(name: str) -> None:
    with torch.device("meta"):
        detector = build(VARIANTS[name], init=True).eval()
        outputs = detector(torch.empty(2, 3, 128, 128))
    side = 128 // detector.spec.strides[0]
    assert outputs[0].cls.shape == (2, classes_per_cell(detector.spec), side, side)


@pytest.mark.parametrize("name", ["retinanet_tiny_sepc", "retinanet_r18_pconv_independent"])
def test_without_initialisation_only_the_values_differ(name: str) -> None:
    with_values, without = build(VARIANTS[name]), build(VARIANTS[name], init=False)
    described = [
        [(k, v.shape, v.dtype, v.device, v.requires_grad) for k, v in d.state_dict().items()]
        for d in (with_values, without)
    ]
    assert described[0] == described[1]
    assert [p.requires_grad for p in with_values.parameters()] == [
        p.requires_grad for p in without.parameters()
    ]


def test_parts_cover_every_parameter_once() -> None:
    detector = build(VARIANTS["retinanet_tiny_sepc"])
    parts = detector.parts()
    for key, _ in detector.named_parameters():
        owners = [p for p in ("backbone", "neck", "head") if key.startswith(parts[p])]
        assert len(owners) == 1, key
    assert parts["tower"] == ("necks.1", "head.cls_tower", "head.box_tower")
    assert build(VARIANTS["retinanet_tiny_fpn"]).parts()["tower"] == parts["tower"][1:]


@pytest.mark.parametrize("neck", DETECTORS["retinanet"].necks)
def test_necks_give_what_their_specs_say(neck: str) -> None:
    detector = build(VARIANTS[f"retinanet_tiny_{neck}"], seed=0).eval()
    out = detector.fuse(detector.features(torch.zeros(1, 3, 128, 128)))
    pair = isinstance(out, PyramidPair)
    assert pair == detector.spec.necks[-1].tower
    sizes = [level.shape[2] for level in (out.cls if pair else out)]
    assert sizes == [128 // stride for stride in detector.spec.strides]


@pytest.mark.parametrize("detector", DETECTORS)
def test_heads_name_their_towers_and_what_sees_every_roi(detector: str) -> None:
    spec = VARIANTS[f"{detector}_tiny_fpn"]
    head = build(spec, init=False).head
    assert bool(head.towers) == spec.head.reads_pairs == spec.head.one_stage
    for name in (*head.towers, *head.repeats()):
        assert any(True for _ in head.get_submodule(name).parameters()), name
    assert bool(head.repeats()) == (not spec.head.one_stage and not spec.head.gives_proposals)


def loud(name: str = "retinanet_tiny_sepc", **overrides: object) -> sepcbench.detectors.Detector:
    """A detector that finds something in anything."""
    torch.manual_seed(0)
    detector = sepcbench.build(name, **overrides)
    torch.nn.init.normal_(detector.head.cls_pred.weight, std=0.2)
    torch.nn.init.constant_(detector.head.cls_pred.bias, -2.0)
    return detector


def test_detect_gives_boxes_scores_and_labels_per_image() -> None:
    detector = loud().eval()
    images, sizes = torch.randn(2, 3, 128, 128), [(128, 128), (96, 100)]
    found = detector.detect(images, sizes)
    assert len(found) == 2
    for image, (height, width) in zip(found, sizes):
        assert 0 < len(image.boxes) <= 100
        assert image.boxes.shape == (len(image.scores), 4)
        assert image.boxes[:, 0::2].max() <= width
        assert image.boxes[:, 1::2].max() <= height
        assert image.labels.dtype == torch.int64
        assert set(image.labels.tolist()) <= {0, 1, 2}
        assert not image.scores.requires_grad


def test_detect_uses_eval_mode_and_restores_the_mode() -> None:
    detector = loud().train()
    images = torch.randn(1, 3, 128, 128)
    before = {k: v.clone() for k, v in detector.state_dict().items()}
    (one,) = detector.detect(images, [(128, 128)])
    assert detector.training
    assert detector.necks[1].blocks[0].norm.training
    assert all(torch.equal(detector.state_dict()[k], v) for k, v in before.items())
    (two,) = detector.eval().detect(images, [(128, 128)])
    assert torch.equal(one.boxes, two.boxes)


def test_scale_factors_divide_the_boxes() -> None:
    detector = loud(conventions="torchvision").eval()  # divides after NMS: the set is the same
    images = torch.randn(1, 3, 128, 128)
    (plain,) = detector.detect(images, [(128, 128)])
    (scaled,) = detector.detect(images, [(128, 128)], [(2.0, 4.0)])
    torch.testing.assert_close(scaled.boxes, plain.boxes / torch.tensor([2.0, 4.0, 2.0, 4.0]))


def test_detect_wants_one_size_per_image() -> None:
    with pytest.raises(UsageError, match="2 images but 1 image sizes"):
        loud().detect(torch.randn(2, 3, 64, 64), [(64, 64)])


@pytest.mark.parametrize("name", CONVENTIONS)
def test_every_convention_detects(name: str) -> None:
    (found,) = loud(conventions=name).detect(torch.randn(1, 3, 128, 160), [(120, 150)])
    assert len(found.boxes) > 0


def test_necks_that_do_not_fit_are_named() -> None:
    def spec(*necks: object) -> VariantSpec:
        return VariantSpec("x", TinySpec(), necks, RetinaSpec(depth=0))

    with pytest.raises(UsageError, match="neck 'pconv' needs equal channels"):
        build(spec(PconvSpec()))
    with pytest.raises(UsageError, match="put it first in the chain"):
        build(spec(FpnSpec(), FpnSpec()))
    with pytest.raises(UsageError, match="gives a pyramid pair"):
        build(spec(FpnSpec(), PconvSpec(), PconvSpec()))


def test_finest_only_detects_on_one_level() -> None:
    spec = variant("retinanet_tiny_fpn", {"finest_only": True})
    outputs = build(spec)(torch.randn(1, 3, 64, 64))
    assert [tuple(o.cls.shape[2:]) for o in outputs] == [(8, 8)]


def test_padded_size_holds_the_largest_sides() -> None:
    assert padded_size([(100, 65), (33, 90)], 32) == (128, 96)
    assert padded_size([(64, 32)], 32) == (64, 32)


def test_a_frozen_variant_trains_nothing_frozen() -> None:
    spec = replace(VARIANTS["retinanet_r18_pconv"], necks=(FpnSpec(), PconvSpec(norm="frozen")))
    detector = build(spec, init=False).train()
    frozen = {k for k, p in detector.named_parameters() if not p.requires_grad}
    assert frozen
    assert all(k.startswith(("backbone.conv1", "backbone.bn1", "backbone.layer1")) for k in frozen)
