"""Random weights with the work of trained ones: taps that move, boxes that pass."""

import pytest
import torch
from torchvision.ops import FrozenBatchNorm2d

from sepcbench import detectors
from sepcbench.measures.lifelike import CANDIDATES, count_candidates, liven, needs_life
from sepcbench.ops.convs import LevelConv
from sepcbench.ops.norms import FrozenNorm
from sepcbench.variants import variant

IMAGES = torch.randn(1, 3, 128, 160, generator=torch.Generator().manual_seed(0))


def tiny(name):
    return detectors.build(variant(f"{name}"), seed=0).eval()


def offsets(detector):
    """The size of what each offset conv gives, in cells."""
    sizes = []

    def watch(module, args, output):
        sizes.append(output.square().mean().sqrt().item())

    convs = [m.offset for m in detector.modules() if isinstance(m, LevelConv) and m.offset]
    handles = [conv.register_forward_hook(watch) for conv in convs]
    with torch.no_grad():
        detector(IMAGES)
    for handle in handles:
        handle.remove()
    return sizes


def test_offset_convs_move_taps_by_about_a_cell():
    detector = tiny("retinanet_tiny_sepc")
    assert set(offsets(detector)) == {0.0}
    assert needs_life(detector, boxes=False)
    liven(detector, IMAGES, seed=0, boxes=False)
    found = offsets(detector)
    assert found[0] == pytest.approx(1.0, rel=0.01)  # the finest level that is deformed
    assert all(0.02 < size < 3 for size in found)
    assert not needs_life(detector, boxes=False)


@pytest.mark.parametrize(
    "name", ["retinanet_tiny_sepc", "fcos_tiny_fpn", "mask_rcnn_tiny_fpn", "atss_tiny_fpn"]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_boxes_pass_the_threshold(name, dtype):
    detector = tiny(name)
    liven(detector, IMAGES, seed=0, boxes=True)
    detector = detector.to(dtype)
    with torch.no_grad():
        outputs = detector(IMAGES.to(dtype))
    found = count_candidates(detector, outputs, 1)
    scores = sum(level.cls.numel() for level in outputs) if isinstance(outputs, list) else 10**5
    wanted = min(CANDIDATES, scores // 10)
    assert 0.7 * wanted < found < 1.4 * wanted
    assert not isinstance(outputs, list) or not needs_life(detector, boxes=False)


@pytest.mark.parametrize("name", ["retinanet_tiny_fpn", "retinanet_tiny_pconv_ibn", "rpn_tiny_fpn"])
def test_untrained_norms_differ_by_channel_but_mildly(name):
    detector = tiny(name)
    assert needs_life(detector, boxes=False)
    liven(detector, IMAGES, seed=0, boxes=False)
    norms = [m for m in detector.modules() if hasattr(m, "running_mean")]
    assert norms
    for norm in norms:
        assert norm.running_mean.unique().numel() > 1
        assert norm.bias.unique().numel() > 1
        assert 0.8 <= norm.running_var.min() < norm.running_var.max() <= 1.25
        assert 0.9 <= norm.weight.min() < norm.weight.max() <= 1.1
    assert not needs_life(detector, boxes=False)


@pytest.mark.parametrize("kind", [FrozenBatchNorm2d, FrozenNorm])
@torch.no_grad()
def test_fixed_norms_get_life_too(kind):
    detector, norm = tiny("retinanet_tiny_fpn"), kind(4)
    detector.backbone.further = norm  # never called: its size is taken as 1
    liven(detector, IMAGES, seed=0, boxes=False)
    assert norm.running_mean.unique().numel() > 1
    assert not needs_life(detector, boxes=False)


def test_the_same_seed_gives_the_same_weights():
    one, other = tiny("retinanet_tiny_sepc"), tiny("retinanet_tiny_sepc")
    for detector in (one, other):
        liven(detector, IMAGES, seed=3, boxes=True)
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)


def test_trained_weights_stay_as_they_are():
    detector = tiny("retinanet_tiny_sepc")
    with torch.no_grad():
        for parameter in detector.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
        detector.train()(torch.cat([IMAGES, IMAGES]))  # statistics of norms
        detector.eval()
    before = [value.clone() for value in detector.state_dict().values()]
    assert not needs_life(detector, boxes=True)
    liven(detector, IMAGES, seed=0, boxes=True)
    for a, b in zip(before, detector.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_modules_of_others_are_left_alone():
    assert not needs_life(torch.nn.Conv2d(3, 3, 1), boxes=True)
    assert count_candidates(torch.nn.Conv2d(3, 3, 1), [], 1) is None
