"""Every formula of the op table against hand arithmetic, on an empty batch and on a real image."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torchvision.ops import deform_conv2d

from sepcbench.errors import CountError
from sepcbench.measures.cost import count
from sepcbench.measures.op_costs import CONVENTIONS, HANDLES, MAC_OPS, looks_heavy
from sepcbench.specs import CostConvention

SHAPE = (8, 12)  # one image is (1, 3, 8, 12): 96 cells


class Op(nn.Module):
    """A function of the image as a module, with its weights as parameters."""

    def __init__(self, function, *weights):
        super().__init__()
        self.function = function
        self.weights = nn.ParameterList(torch.zeros(size) for size in weights)

    def forward(self, x):
        return self.function(x, *self.weights)


def offsets(x, channels, height, width):
    return x.new_zeros(x.shape[0], channels, height, width)


def cells(x):
    return x.flatten(2)  # (N, 3, 96)


# name: (module, counts by name for one image)
CASES = {
    "conv 3x3": (nn.Conv2d(3, 4, 3, padding=1, bias=False), {"conv": 96 * 4 * 3 * 9}),
    "conv with bias": (
        nn.Conv2d(3, 4, 3, padding=1),
        {"conv": 96 * 4 * 3 * 9, "conv_bias": 96 * 4},
    ),
    "conv 1x1": (nn.Conv2d(3, 4, 1, bias=False), {"conv": 96 * 4 * 3}),
    "conv stride 2": (
        nn.Conv2d(3, 4, 3, stride=2, padding=1, bias=False),
        {"conv": 4 * 6 * 4 * 3 * 9},
    ),
    "conv without padding": (nn.Conv2d(3, 4, 3, bias=False), {"conv": 6 * 10 * 4 * 3 * 9}),
    "conv dilated": (
        nn.Conv2d(3, 4, 3, padding=2, dilation=2, bias=False),
        {"conv": 96 * 4 * 3 * 9},
    ),
    "conv grouped": (
        nn.Conv2d(3, 6, 3, padding=1, groups=3, bias=False),
        {"conv": 96 * 6 * 1 * 9},
    ),
    # each of 96 input cells with 3 channels meets 4 x 2 x 2 weights
    "conv transposed": (
        nn.ConvTranspose2d(3, 4, 2, stride=2, bias=False),
        {"conv": 96 * 3 * 4 * 4},
    ),
    # each of 96 input cells with 3 channels meets 2 outputs of its own group
    "conv transposed grouped": (
        nn.ConvTranspose2d(3, 6, 2, stride=2, groups=3, bias=False),
        {"conv": 96 * 3 * 2 * 4},
    ),
    "conv 1d": (
        Op(lambda x, w: F.conv1d(cells(x), w, padding=1), (5, 3, 3)),
        {"conv": 96 * 5 * 3 * 3},
    ),
    "deformable conv": (
        Op(lambda x, w: deform_conv2d(x, offsets(x, 18, 8, 12), w, padding=1), (4, 3, 3, 3)),
        {"deform_conv": 96 * 4 * 3 * 9, "deform_sampling": 8 * 3 * 9 * 96},
    ),
    "deformable conv stride 2": (
        Op(
            lambda x, w: deform_conv2d(x, offsets(x, 18, 4, 6), w, stride=2, padding=1),
            (4, 3, 3, 3),
        ),
        {"deform_conv": 24 * 4 * 3 * 9, "deform_sampling": 8 * 3 * 9 * 24},
    ),
    "linear": (Op(lambda x, w: F.linear(x, w), (5, 12)), {"linear": 3 * 8 * 5 * 12}),
    "linear with bias": (
        Op(lambda x, w, b: F.linear(x, w, b), (5, 12), (5,)),
        {"linear": 3 * 8 * 5 * 12},
    ),
    "addmm": (
        Op(lambda x, w, b: torch.addmm(b, x.mean((2, 3)), w), (3, 7), (7,)),
        {"matmul": 3 * 7},
    ),
    "mm": (Op(lambda x, w: torch.mm(x.mean((2, 3)), w), (3, 7)), {"matmul": 3 * 7}),
    "matmul": (
        Op(lambda x: cells(x) @ cells(x).transpose(1, 2)),
        {"matmul": 3 * 3 * 96},
    ),
    "matmul broadcast": (Op(lambda x, w: x @ w, (12, 5)), {"matmul": 3 * 8 * 12 * 5}),
    "bmm": (
        Op(lambda x: torch.bmm(cells(x), cells(x).transpose(1, 2))),
        {"matmul": 3 * 3 * 96},
    ),
    "baddbmm": (
        Op(lambda x: torch.baddbmm(x[:, 0, :3, :3], cells(x), cells(x).transpose(1, 2))),
        {"matmul": 3 * 3 * 96},
    ),
    "einsum": (
        Op(lambda x, w: torch.einsum("nchw, cd -> ndhw", x, w), (3, 7)),
        {"einsum": 96 * 3 * 7},
    ),
    # 8 queries and keys of 12 values in 3 heads: scores, then the weighted sum
    "attention": (
        Op(lambda x: F.scaled_dot_product_attention(x, x, x)),
        {"attention": 3 * (8 * 8 * 12 + 8 * 8 * 12)},
    ),
    "batch norm": (nn.BatchNorm2d(3), {"batch_norm": 2 * 288}),
    "group norm": (nn.GroupNorm(3, 3), {"group_norm": 2 * 288}),
    "layer norm": (nn.LayerNorm(12), {"layer_norm": 2 * 288}),
    "relu": (nn.ReLU(), {"relu": 288}),
    "relu in place": (Op(lambda x: torch.relu_(x + 1.0)), {"relu": 288, "add": 288}),
    "sigmoid": (nn.Sigmoid(), {"sigmoid": 288}),
    "max pool": (nn.MaxPool2d(2), {"max_pool": 288}),
    "average pool": (nn.AvgPool2d(2), {"avg_pool": 288}),
    "global pool": (nn.AdaptiveAvgPool2d(1), {"avg_pool": 288}),
    "adaptive max pool": (nn.AdaptiveMaxPool2d((3, 5)), {"adaptive_max_pool": 288}),
    "sum": (Op(lambda x: x.sum((2, 3))), {"sum": 288}),
    "modulated deformable conv": (
        Op(
            lambda x, w: deform_conv2d(
                x, offsets(x, 18, 8, 12), w, padding=1, mask=offsets(x, 9, 8, 12)
            ),
            (4, 3, 3, 3),
        ),
        {"deform_conv": 96 * 4 * 3 * 9, "deform_sampling": 8 * 3 * 9 * 96},
    ),
    "nearest": (nn.Upsample(scale_factor=2), {"upsample_nearest": 4 * 288}),
    "bilinear": (
        nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True),
        {"upsample_bilinear": 4 * 4 * 288},
    ),
    "grid sample": (
        Op(lambda x: F.grid_sample(x, x.new_zeros(x.shape[0], 5, 7, 2), align_corners=False)),
        {"grid_sample": 4 * 3 * 35},
    ),
    "add": (Op(lambda x: x + x), {"add": 288}),
}  # fmt: skip


@pytest.mark.parametrize("exact", [False, True], ids=["empty batch", "real image"])
@pytest.mark.parametrize("name", CASES)
def test_formula(name, exact):
    module, expected = CASES[name]
    counted = count(module, SHAPE, exact=exact)
    assert dict(counted.by_op) | dict(counted.other_ops) == expected
    assert counted.total == sum(n for op, n in expected.items() if op in MAC_OPS)
    assert counted.sampling_macs == expected.get("deform_sampling", 0)


def test_every_multiply_add_has_a_case():
    counted = {op for _, expected in CASES.values() for op in expected}
    assert counted >= MAC_OPS


@pytest.mark.parametrize(
    ("convention", "more"),
    [
        ("mac", 0),
        ("mmdet", 96 * 4 + 2 * 96 * 4 + 96 * 4 + 96 * 4),  # bias, BN, ReLU, max-pool's input
        ("paper", 8 * 4 * 9 * 24),
    ],
)
def test_convention(convention, more):
    deform = Op(lambda x, w: deform_conv2d(x, offsets(x, 18, 4, 6), w, padding=1), (4, 4, 3, 3))
    module = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), deform
    )
    macs = 96 * 4 * 3 * 9 + 24 * 4 * 4 * 9
    counted = count(module, SHAPE, convention=convention)
    assert counted.total == macs + more == sum(n for _, n in counted.by_op)
    assert not set(dict(counted.by_op)) & set(dict(counted.other_ops))


def test_conventions_and_specs_agree():
    assert set(CONVENTIONS) == set(CostConvention.__args__)


@pytest.mark.parametrize(
    "op",
    ["aten::_convolution_mode", "aten::_int_mm", "aten::addbmm", "aten::addmv", "aten::mv",
     "aten::lstm", "aten::_native_multi_head_attention", "aten::cdist", "aten::dot",
     "mmcv::modulated_deform_conv", "custom::anything", "prim::PythonOp.MyConv",
     "prim::CallFunction"],
)  # fmt: skip
def test_looks_heavy(op):
    assert looks_heavy(op)


@pytest.mark.parametrize(
    "op",
    [*HANDLES, "aten::cummax", "aten::upsample_bicubic2d", "aten::upsample_linear1d",
     "aten::sort", "torchvision::nms", "aten::topk", "aten::index_add", "prim::ListConstruct"],
)  # fmt: skip
def test_does_not_look_heavy(op):
    assert not looks_heavy(op)


class _Double(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x * 2


@pytest.mark.parametrize(
    ("function", "op"),
    [
        (lambda x: torch.cdist(x, x), "aten::cdist"),
        (lambda x: torch.addbmm(x[0, 0, :3, :3], x[:, 0, :3], x[:, 0, :3].mT), "aten::addbmm"),
        (_Double.apply, "prim::PythonOp._Double"),
    ],
)
def test_uncounted_op_is_an_error_that_names_op_and_module(function, op):
    module = nn.Sequential(nn.ReLU(), nn.Sequential(nn.ReLU(), Op(function)))
    with pytest.raises(CountError, match=rf"op '{op}' in module '1\.1'"):
        count(module, SHAPE, exact=True)


def test_einsum_of_three_operands_is_an_error():
    module = Op(lambda x, w: torch.einsum("nchw,cd,de->nehw", x, w, w), (3, 3))
    with pytest.raises(CountError, match="einsum"):
        count(module, SHAPE)


def test_an_empty_dimension_that_is_not_the_batch_is_an_error():
    module = nn.Sequential(Op(lambda x: x.transpose(0, 1)), Op(lambda x: x @ x.mT))
    with pytest.raises(CountError, match="--exact"):
        count(module, SHAPE)
    assert count(module, SHAPE, exact=True).total == 3 * 8 * 8 * 12


def test_harmless_ops_are_not_listed():
    module = Op(lambda x: x.flatten(1).repeat(1, 2).clone().permute(1, 0).contiguous())
    assert count(module, SHAPE).unsupported_ops == ()


def test_other_ops_are_listed():
    module = Op(lambda x: x.cumsum(1).sort(1).values)
    assert dict(count(module, SHAPE).unsupported_ops) == {"aten::cumsum": 1, "aten::sort": 1}
