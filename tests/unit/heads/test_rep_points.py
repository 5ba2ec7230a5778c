"""RepPoints' head against the formulas of its paper and torchvision's deformable conv."""

from __future__ import annotations

import math
import warnings
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F
from torchvision.ops import deform_conv2d

from sepcbench import detectors
from sepcbench.checkpoints import native
from sepcbench.heads import HEADS
from sepcbench.heads.rep_points import (
    PointConv,
    RepPointsHead,
    kernel_taps,
    points_to_boxes,
    scale_gradient,
)
from sepcbench.ops.pyramid import PyramidPair
from sepcbench.specs import CONVENTIONS, NATIVE, RepPointsSpec
from sepcbench.variants import variant

SPEC = RepPointsSpec(depth=1, channels=8, groups=2, point_channels=8)
STRIDES = (8, 16)


def build(spec: RepPointsSpec = SPEC) -> RepPointsHead:
    torch.manual_seed(0)
    head = HEADS[RepPointsSpec](spec, (8, 8), 3, STRIDES, NATIVE)
    assert isinstance(head, RepPointsHead)
    return head


def pyramid() -> list[torch.Tensor]:
    torch.manual_seed(1)
    return [torch.randn(2, 8, 8, 6), torch.randn(2, 8, 4, 3)]


def as_map(points: list[tuple[float, float]]) -> torch.Tensor:
    """(x, y) points as the map (1, 2 * points, 1, 1) of one cell."""
    return torch.tensor([[y, x] for x, y in points]).reshape(1, -1, 1, 1)


# --- points to boxes -----------------------------------------------------------------------

NINE = [(float(x), float(y)) for x, y in zip((2, 4, 4, 4, 5, 5, 7, 9, 5), range(9))]


def test_moments_are_mean_and_standard_deviation_times_the_exponents() -> None:
    box = points_to_boxes(as_map(NINE), torch.tensor([math.log(2.0), math.log(3.0)])).flatten()
    # x: mean 5, squared deviations 9 + 1 + 1 + 1 + 0 + 0 + 4 + 16 + 0 = 32, over 8 is 4
    # y: mean 4, squared deviations 60, over 8 is 7.5
    across, down = 2 * 2.0, 3 * math.sqrt(7.5)
    assert box.tolist() == pytest.approx([5 - across, 4 - down, 5 + across, 4 + down])


@pytest.mark.parametrize("shape", [(0, 18, 2, 3), (2, 18, 0, 3)])
def test_no_points_make_no_boxes_and_no_warning(shape: tuple[int, ...]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        boxes = points_to_boxes(torch.zeros(shape), torch.zeros(2))
    assert boxes.shape == (shape[0], 4, *shape[2:])


def test_minmax_is_the_smallest_box_around_the_points() -> None:
    assert points_to_boxes(as_map(NINE), None).flatten().tolist() == [2, 0, 9, 8]


def test_minmax_head_has_no_exponents() -> None:
    head = build(replace(SPEC, transform="minmax"))
    assert head.moments is None
    points = torch.randn(2, 18, 8, 6)
    assert torch.equal(head.point_boxes(points, 1), points_to_boxes(points, None) * 16)


def test_the_exponents_learn_at_a_hundredth_of_the_rate() -> None:
    head, points = build(), torch.randn(1, 18, 4, 3)
    head.point_boxes(points, 0).square().sum().backward()
    free = torch.zeros(2, requires_grad=True)
    (points_to_boxes(points, free) * STRIDES[0]).square().sum().backward()
    assert head.moments is not None
    assert torch.allclose(head.moments.grad, 0.01 * free.grad)  # type: ignore[arg-type]


def test_scale_gradient_keeps_values() -> None:
    x = torch.randn(5, requires_grad=True)
    y = scale_gradient(x, 0.1)
    assert torch.allclose(y, x)
    y.sum().backward()
    assert torch.allclose(x.grad, torch.full((5,), 0.1))  # type: ignore[arg-type]


# --- sampling at the points ----------------------------------------------------------------


@pytest.mark.parametrize(("side", "first", "last"), [(3, (-1, -1), (1, 1)), (5, (-2, -2), (2, 2))])
def test_taps_are_rows_of_y_and_x(side: int, first: tuple, last: tuple) -> None:
    taps = kernel_taps(side, torch.empty(())).unflatten(0, (-1, 2))
    assert taps.shape == (side * side, 2)
    assert (tuple(taps[0].tolist()), tuple(taps[-1].tolist())) == (first, last)
    assert tuple(taps[1].tolist()) == (first[0], first[1] + 1)


@pytest.mark.parametrize("training", [True, False])
def test_convs_read_where_the_points_lie(training: bool) -> None:
    """On a map of x + 100 y, tap k of cell (i, j) reads (j + x_k) + 100 (i + y_k)."""
    conv = PointConv(1, 1, 3).train(training)
    y, x = torch.meshgrid(torch.arange(9.0), torch.arange(9.0), indexing="ij")
    ramp = (x + 100 * y)[None, None]
    torch.manual_seed(0)
    points = (torch.rand(1, 18, 9, 9) - 0.5) * 3  # within a cell and a half
    weights = torch.rand(9)
    conv.weight.data = weights.reshape(1, 1, 3, 3)
    got = conv(ramp, points - kernel_taps(3, points)[:, None, None])[0, 0]
    shift = points[0].unflatten(0, (9, 2))  # (taps, (y, x), 9, 9)
    wanted = (weights[:, None, None] * (x + shift[:, 1] + 100 * (y + shift[:, 0]))).sum(dim=0)
    inner = slice(2, -2)  # beyond the border maps are 0
    assert torch.allclose(got[inner, inner], wanted[inner, inner], rtol=1e-4)


@pytest.mark.parametrize("points", [9, 25])
def test_forward_is_the_published_sequence(points: int) -> None:
    side = math.isqrt(points)
    head = build(replace(SPEC, depth=0, points=points)).eval()
    for conv in (head.init_pred, head.refine_pred):
        torch.nn.init.normal_(conv.weight, std=0.5)
    with torch.no_grad():
        cls, loc = pyramid(), [x.flip(3) for x in pyramid()]
        outputs = head(PyramidPair(cls, loc))
        for level, output in enumerate(outputs):
            hidden = F.conv2d(loc[level], head.init_conv.weight, head.init_conv.bias, padding=1)
            first = head.init_pred(hidden.relu())
            offset = first - kernel_taps(side, first)[:, None, None]
            pads = {"padding": side // 2}
            read_cls = deform_conv2d(cls[level], offset, head.cls_conv.weight, **pads)
            read_loc = deform_conv2d(loc[level], offset, head.refine_conv.weight, **pads)
            torch.testing.assert_close(output.points, first)
            torch.testing.assert_close(output.cls, head.cls_pred(read_cls.relu()))
            torch.testing.assert_close(output.box, first + head.refine_pred(read_loc.relu()))


def test_training_and_evaluation_agree() -> None:
    head = build()
    torch.nn.init.normal_(head.init_pred.weight, std=0.5)
    for one, two in zip(head.train()(pyramid()), head.eval()(pyramid())):
        for a, b in zip(one, two):
            if a is not None:
                torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_refining_passes_a_tenth_of_its_gradient_to_the_first_points() -> None:
    """Only through the offsets: the first points themselves are detached."""
    head = build().train()
    torch.nn.init.normal_(head.init_pred.weight, std=0.5)
    torch.nn.init.normal_(head.refine_pred.weight, std=0.5)
    output = head(pyramid())[0]
    (tenth,) = torch.autograd.grad(output.box.square().sum(), output.points)
    first = output.points.detach().requires_grad_()
    box = head.box_tower(pyramid())[0]
    offset = first - kernel_taps(3, first)[:, None, None]
    shift = head.refine_pred(head.refine_conv(box, offset).relu())
    (whole,) = torch.autograd.grad((shift + first.detach()).square().sum(), first)
    torch.testing.assert_close(tenth, 0.1 * whole)


# --- decoding ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["native", "mmdet1", "mmdet2", "torchvision"])
def test_a_detection_is_the_box_of_its_refined_points(name: str) -> None:
    head = HEADS[RepPointsSpec](SPEC, (8, 8), 3, STRIDES, CONVENTIONS[name])
    outputs = head.eval()([torch.zeros(1, 8, 8, 8), torch.zeros(1, 8, 4, 4)])
    outputs = [o._replace(cls=torch.full_like(o.cls, -9.0)) for o in outputs]
    outputs[1].cls[0, 2, 1, 2] = 4.0
    # row 1, column 2 of stride 16: the cell's point is (32, 16); half a stride around (33, 18)
    corners = as_map([(x / 16 + 1 / 16, y / 16 + 2 / 16) for x in (-8, 0, 8) for y in (-8, 0, 8)])
    outputs[1].box[0, :, 1, 2] = corners[0, :, 0, 0]
    (found,) = head.decode(outputs, [(64, 64)], None, (64, 64))
    half = 8 * math.sqrt(6 / 8)
    wanted = [33 - half, 18 - half, 33 + half, 18 + half]
    assert found.labels.tolist() == [2]
    assert found.boxes[0].tolist() == pytest.approx(wanted, abs=1e-4)


# --- building ------------------------------------------------------------------------------


def test_training_starts_from_boxes_of_base_scale_strides() -> None:
    head = build()
    torch.nn.init.zeros_(head.init_pred.weight)
    output = head([torch.zeros(1, 8, 4, 4), torch.zeros(1, 8, 2, 2)])[0]
    points = output.points[0, :, 0, 0].unflatten(0, (9, 2))
    assert points.amax(dim=0).tolist() == points.amin(dim=0).neg().tolist() == [2.0, 2.0]


def test_training_starts_from_the_prior() -> None:
    wide = HEADS[RepPointsSpec](RepPointsSpec(), (8, 8), 3, STRIDES, NATIVE)
    assert float(wide.cls_pred.weight.detach().std()) == pytest.approx(0.01, rel=0.1)
    for head in (wide, build()):
        scores = head([torch.zeros(1, 8, 4, 4), torch.zeros(1, 8, 2, 2)])[0].cls.sigmoid()
        assert scores.flatten().tolist() == pytest.approx([0.01] * scores.numel(), rel=1e-4)


def test_a_saved_detector_detects_the_same(tmp_path) -> None:
    """Whatever the head computes with must survive being built without initial weights."""
    spec = variant("reppoints_tiny_fpn", {"score_threshold": 0.0, "max_detections": 20})
    detector = detectors.build(spec, seed=0).eval()
    native.save(tmp_path / "a.safetensors", detector, ("a", "b", "c"), None)
    loaded, _ = native.load(tmp_path / "a.safetensors")
    images = torch.randn(1, 3, 64, 64)
    wanted, got = (d.detect(images, [(64, 64)])[0] for d in (detector, loaded.eval()))
    assert len(got.boxes) == 20
    assert torch.equal(wanted.boxes, got.boxes)


@pytest.mark.parametrize("neck", ["pconv", "sepc"])
def test_depth_0_reads_the_pair_of_the_neck(neck: str) -> None:
    detector = detectors.build(variant(f"reppoints_tiny_{neck}"), seed=0)
    assert not list(detector.head.cls_tower.parameters())  # type: ignore[union-attr]
    outputs = detector(torch.randn(1, 3, 64, 64))
    assert all(o.cls.shape[2:] == o.box.shape[2:] == o.points.shape[2:] for o in outputs)
    assert outputs[0].cls.shape[1:] == (3, 8, 8)


def test_parameters_of_the_published_detector() -> None:
    """36.62 M are trained: all but the ResNet's stem and first stage, 225,344 frozen."""
    detector = detectors.build(variant("reppoints_r50_fpn"), init=False)
    conv, points = 256 * 256 * 9, 9
    tower = 3 * (conv + 2 * 256)
    read = 2 * conv + (conv + 256)  # two deformable convs without bias, one plain with
    predictions = 257 * (2 * 2 * points + 80)
    assert sum(p.numel() for p in detector.head.parameters()) == 2 * tower + read + predictions + 2
    trained = sum(p.numel() for p in detector.parameters()) - 225_344
    assert trained == 36_623_734
