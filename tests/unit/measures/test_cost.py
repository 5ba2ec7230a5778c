"""Counting modules: three routes that agree, parts that add up, and what stays untouched."""

import warnings
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from sepcbench import detectors
from sepcbench.errors import CountError
from sepcbench.measures.cost import cost, count, count_dispatched
from sepcbench.specs import TowerSpec
from sepcbench.variants import VARIANTS, variant

SMALL = (64, 96)


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Small maps: several threads would only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def blank(spec):
    """A detector whose weights are all zero: quicker than initialising, and safe to run."""
    detector = detectors.build(spec, init=False)
    for tensor in (*detector.parameters(), *detector.buffers()):
        tensor.detach().zero_()
    return detector


# on ResNet-50; the others' blocks are in these and, with their own necks and heads, in tiny ones
OF_R50 = tuple(f"retinanet_r50_{neck}" for neck in ("fpn", "pafpn", "nas_fpn", "sepc_lite", "sepc"))


def repeats(name):
    """Whether others have all its blocks: deep backbones r18's and r50's, other heads tiny's."""
    if "_r50_" in name and name.replace("_r50_", "_tiny_") in VARIANTS and name not in OF_R50:
        return True
    if any(part in name for part in ("_r34_", "_r101_", "_r152_", "_x101_", "_hrnet_")):
        return True
    if (
        name.startswith("retinanet_")
        or name.replace(name.split("_")[0], "retinanet") not in VARIANTS
    ):
        return False
    return not name.endswith(("_tiny_fpn", "_tiny_dcn_head", "_tiny_sepc"))


def with_repeats_slow(names):
    return [pytest.param(n, marks=pytest.mark.slow) if repeats(n) else n for n in names]


TWO_STAGE = [name for name, spec in VARIANTS.items() if not isinstance(spec.head, TowerSpec)]
ONE_STAGE = [name for name in VARIANTS if name not in TWO_STAGE]
# one of each kind of head, RoIs read from a pyramid and from a single level
FEW = ("rpn_tiny_fpn", "rpn_tiny_finest", "faster_rcnn_tiny_fpn", "mask_rcnn_tiny_fpn",
       "fast_rcnn_tiny_c4", "faster_rcnn_r50_fpn", "mask_rcnn_r50_c4")  # fmt: skip


def with_others_slow(names):
    return [n if n in FEW else pytest.param(n, marks=pytest.mark.slow) for n in names]


@pytest.mark.parametrize("name", with_others_slow(n for n in TWO_STAGE if "_tiny_" in n))
def test_three_routes_agree_with_rois(name):
    """An empty batch multiplied, and all RoIs really run."""
    detector = blank(VARIANTS[name])
    empty, real = cost(detector, SMALL), cost(detector, SMALL, exact=True)
    assert empty.macs == real.macs
    assert empty.by_op == real.by_op
    assert empty.by_module == real.by_module
    assert dict(empty.macs)["total"] == count_dispatched(detector, SMALL)
    assert dict(empty.macs)["tower"] == 0
    assert empty.unsupported_ops == real.unsupported_ops == ()
    assert empty.rois == real.rois == (0 if name.startswith("rpn") else 1000)


@pytest.mark.parametrize("name", with_others_slow(n for n in TWO_STAGE if "_tiny_" not in n))
def test_two_routes_agree_with_rois_at_full_size(name):
    detector = detectors.build(VARIANTS[name], init=False)
    counted = cost(detector, (800, 1344))
    assert dict(counted.macs)["total"] == count_dispatched(detector, (800, 1344))


def test_cost_of_a_second_stage_by_hand():
    """1000 RoIs of 7x7x256 to 1024, 1024, 81 and 320; 100 of 14x14 through the mask head."""
    counted = cost(detectors.build(variant("mask_rcnn_r50_fpn"), init=False), (256, 256))
    modules = dict(counted.by_module)
    assert modules["head.box_head"] == 1000 * (49 * 256 * 1024 + 1024 * (1024 + 81 + 320))
    convs = 4 * 196 * 9 * 256 * 256 + 196 * 4 * 256 * 256 + 784 * 256 * 80
    assert modules["head.mask_head"] == 100 * convs
    assert modules["head"] == sum(
        modules[f"head.{part}"] for part in ("rpn", "box_head", "mask_head")
    )
    assert modules["head"] == dict(counted.macs)["head"]


@pytest.mark.parametrize("name", with_repeats_slow(ONE_STAGE))
def test_three_routes_agree_on_every_variant(name):
    detector = blank(VARIANTS[name])
    empty, real = cost(detector, SMALL), cost(detector, SMALL, exact=True)
    macs = dict(empty.macs)
    assert empty.macs == real.macs
    assert empty.by_op == real.by_op
    assert empty.other_ops == real.other_ops
    # a trace drops the convs of HRNet that make only C2, which an FPN from P3 does not read
    slack = 2e-4 if "_hrnet_" in name and name.endswith("_fpn") else 0
    assert macs["total"] == pytest.approx(count_dispatched(detector, SMALL), rel=slack)
    assert macs["total"] == macs["backbone"] + macs["neck"] + macs["head"]
    assert macs["total"] == sum(dict(empty.by_op).values())
    assert 0 < macs["tower"] < macs["neck"] + macs["head"]
    assert empty.unsupported_ops == real.unsupported_ops == ()


@pytest.mark.parametrize("name", with_repeats_slow(n for n in ONE_STAGE if "_r50" in n))
def test_two_routes_agree_at_full_size(name):
    detector = detectors.build(VARIANTS[name], init=False)
    counted = cost(detector, (800, 1344))
    assert dict(counted.macs)["total"] == count_dispatched(detector, (800, 1344))
    assert counted.shape == (800, 1344)
    assert counted.variant == name


@pytest.mark.parametrize(
    "overrides",
    [
        {"scale_kernel": 1},
        {"branches": "separate"},
        {"extra_padding": 0},
        {"depth": 6},
        {"norm": "frozen"},
        {"necks.0.top_down": False},
        {"necks.0.lateral": False},
        {"necks.0.extra": "pool"},
        {"necks.0.extra": "conv_p5", "relu_between": True},
        {"necks.0.first_level": 2, "necks.0.last_level": 6, "necks.0.extra": "pool"},
        {"necks.0.conv_norm": "gn", "necks.0.groups": 8},
    ],
    ids=str,
)
def test_three_routes_agree_with_overrides(overrides):
    detector = blank(variant("retinanet_tiny_pconv", overrides))
    shape = (384, 384)
    assert count(detector, shape) == count(detector, shape, exact=True)
    assert count(detector, shape).total == count_dispatched(detector, shape)


@pytest.mark.parametrize("deform", ["lite", "full"])
@pytest.mark.parametrize("start", [0, 2, 5])
def test_three_routes_agree_wherever_deformation_starts(deform, start):
    overrides = {"deform": deform, "deform_from": start}
    detector = blank(variant("retinanet_tiny_sepc", overrides))
    assert count(detector, SMALL) == count(detector, SMALL, exact=True)
    assert count(detector, SMALL).total == count_dispatched(detector, SMALL)


class Shared(nn.Module):
    """Two parts and one conv that is used twice."""

    def __init__(self):
        super().__init__()
        self.backbone = nn.Conv2d(3, 4, 1, bias=False)
        self.necks = nn.ModuleList([nn.Conv2d(4, 4, 1, bias=False)])
        self.head = nn.Sequential(nn.Conv2d(4, 4, 1, bias=False), nn.ReLU())
        self.spec = SimpleNamespace(name="shared")
        self.backbone.weight.requires_grad_(False)

    def forward(self, x):
        y = self.necks[0](self.backbone(x))
        return [self.head(y), self.head(y)]

    def parts(self):
        return {"backbone": ("backbone",), "neck": ("necks",), "head": ("head",),
                "tower": ("necks.0", "head.0")}  # fmt: skip


def test_parts_modules_and_parameters_by_hand():
    cells = 8 * 8
    counted = cost(Shared(), (8, 8))
    assert dict(counted.macs) == {
        "total": cells * (12 + 16 + 2 * 16),
        "backbone": cells * 12,
        "neck": cells * 16,
        "head": cells * 2 * 16,
        "tower": cells * 3 * 16,
    }
    assert dict(counted.by_module) == {
        "backbone": cells * 12,
        "necks": cells * 16,
        "necks.0": cells * 16,
        "head": cells * 32,
        "head.0": cells * 32,
    }
    assert dict(counted.other_ops) == {"relu": 2 * cells * 4}
    assert (counted.params, counted.trainable_params) == (12 + 16 + 16, 16 + 16)


def test_parts_that_do_not_cover_the_module_are_an_error():
    parts = {"backbone": ("backbone",), "neck": (), "head": ("head",)}
    with pytest.raises(CountError, match="multiply-adds"):
        count(Shared(), (8, 8), parts=parts)


def test_a_part_that_is_no_module_is_an_error():
    with pytest.raises(CountError, match="'neckz'"):
        count(Shared(), (8, 8), parts={"neck": ("neckz",)})


def test_cost_grows_with_the_area():
    assert count(Shared(), (16, 24)).total == 6 * count(Shared(), (8, 8)).total


def test_counting_leaves_the_module_as_it_was():
    detector = detectors.build(VARIANTS["retinanet_tiny_sepc"])
    detector.train()
    modes = {name: part.training for name, part in detector.named_modules()}
    state = {name: tensor.clone() for name, tensor in detector.state_dict().items()}
    count(detector, SMALL)
    count_dispatched(detector, SMALL)
    assert modes == {name: part.training for name, part in detector.named_modules()}
    for name, tensor in detector.state_dict().items():
        assert torch.equal(tensor, state[name])
        assert tensor.device.type == "cpu"
    assert not any(part._forward_hooks for part in detector.modules())


def test_counting_is_silent(caplog):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        count(detectors.build(VARIANTS["retinanet_tiny_sepc"], init=False), SMALL)
    assert not caplog.records


def test_counting_does_not_silence_others():
    filters = list(warnings.filters)
    count(Shared(), (8, 8))
    assert warnings.filters == filters
