"""What one operation costs: a table from traced op to formula.

A formula reads the shapes of a traced op and gives counts by name. Multiply-adds of convs and
matmuls are the names in `MAC_OPS`; the other names are elements that an op touches, and count
only in the conventions that ask for them (`CONVENTIONS`). One multiply and one add count once.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from math import prod
from typing import Any

from sepcbench.errors import CountError
from sepcbench.specs import CostConvention

Shape = tuple[int, ...]
Handle = Callable[[Sequence[Any], Sequence[Any]], "Counter[str]"]

# Names of counts that are multiply-adds.
MAC_OPS = frozenset(("conv", "deform_conv", "linear", "matmul", "einsum", "attention"))

# What belongs to the total. mmdet: the terms of mmdetection 1.x's counter; paper: the sampling
# of deformable convs, as in the SEPC paper's Appendix 1.
CONVENTIONS: dict[CostConvention, frozenset[str]] = {
    "mac": MAC_OPS,
    "mmdet": MAC_OPS | {"conv_bias", "batch_norm", "relu", "max_pool"},
    "paper": MAC_OPS | {"deform_sampling"},
}


def shape_of(value: Any) -> Shape:
    """Shape of a traced value, with a batch of zero read as one.

    A trace on an empty batch has every shape of a real one without its arithmetic. Only the
    first dimension can be the batch: a zero elsewhere cannot be counted.

    Raises:
        CountError: the value has no known shape, or a zero behind its first dimension.
    """
    sizes = value.type().sizes() if value.isCompleteTensor() else None
    if sizes is None:
        raise CountError(f"{value.node().kind()}: the shape is not in the trace; use --exact")
    if 0 in sizes[1:]:
        raise CountError(f"{value.node().kind()}: an empty dimension in {sizes}; use --exact")
    return tuple(max(size, 1) if i == 0 else size for i, size in enumerate(sizes))


def _is_tensor(value: Any) -> bool:
    return bool(value.isCompleteTensor())


def convolution(inputs: Sequence[Any], outputs: Sequence[Any]) -> Counter[str]:
    """Every output cell (transposed: input cell) meets one filter, (out, in/groups, kh, kw)."""
    x, weight, out = shape_of(inputs[0]), shape_of(inputs[1]), shape_of(outputs[0])
    transposed = len(inputs) > 6 and bool(inputs[6].toIValue())
    counts = Counter(conv=prod(x if transposed else out) * prod(weight[1:]))
    if _is_tensor(inputs[2]):
        counts["conv_bias"] = prod(out)
    return counts


def deformable(inputs: Sequence[Any], outputs: Sequence[Any]) -> Counter[str]:
    """A conv of the same shape; its offset conv is an op of its own.

    Sampling is bilinear, 8 operations for each of in * kh * kw values per output position
    (SEPC, arXiv 2005.03101, Appendix 1).
    """
    x, weight, out = shape_of(inputs[0]), shape_of(inputs[1]), shape_of(outputs[0])
    values = out[0] * x[1] * prod(weight[2:]) * prod(out[2:])
    return Counter(deform_conv=prod(out) * prod(weight[1:]), deform_sampling=8 * values)


def linear(inputs: Sequence[Any], outputs: Sequence[Any]) -> Counter[str]:
    """(..., in) times (out, in)."""
    return Counter(linear=prod(shape_of(outputs[0])) * shape_of(inputs[1])[-1])


def _product(first: int) -> Handle:
    """(..., n, k) times (..., k, m), where input number `first` is the left factor."""

    def handle(inputs: Sequence[Any], outputs: Sequence[Any]) -> Counter[str]:
        inner = shape_of(inputs[first])[-1]
        return Counter(matmul=prod(shape_of(outputs[0])) * inner)

    return handle


def einsum(inputs: Sequence[Any], outputs: Sequence[Any]) -> Counter[str]:
    """The product of the sizes of all letters, for two operands.

    Raises:
        CountError: another number of operands, or an ellipsis.
    """
    equation = inputs[0].toIValue().replace(" ", "")
    operands = list(inputs[1].node().inputs())
    if len(operands) != 2 or "." in equation:
        raise CountError(f"aten::einsum '{equation}': only two operands without '...' are counted")
    terms = equation.split("->")[0].split(",")
    sizes: dict[str, int] = {}
    for term, operand in zip(terms, operands):
        sizes.update(zip(term, shape_of(operand)))
    return Counter(einsum=prod(sizes.values()))


def attention(inputs: Sequence[Any], outputs: Sequence[Any]) -> Counter[str]:
    """Scores (..., q, d) x (..., k, d), then (..., q, k) x (..., k, v)."""
    query, key, value = (shape_of(item) for item in inputs[:3])
    return Counter(attention=prod(query[:-1]) * key[-2] * (query[-1] + value[-1]))


def _per_output(name: str, each: int = 1) -> Handle:
    def handle(inputs: Sequence[Any], outputs: Sequence[Any]) -> Counter[str]:
        return Counter({name: each * prod(shape_of(outputs[0]))})

    return handle


def _per_input(name: str, each: int = 1) -> Handle:
    def handle(inputs: Sequence[Any], outputs: Sequence[Any]) -> Counter[str]:
        return Counter({name: each * prod(shape_of(inputs[0]))})

    return handle


def _arithmetic(name: str) -> Handle:
    """Elements of a result; arithmetic on plain numbers, such as sizes, is free."""

    def handle(inputs: Sequence[Any], outputs: Sequence[Any]) -> Counter[str]:
        if not _is_tensor(outputs[0]) or not any(len(shape_of(v)) for v in outputs):
            return Counter()
        return Counter({name: prod(shape_of(outputs[0]))})

    return handle


_MULTIPLY_ADDS: dict[str, Handle] = {
    "aten::_convolution": convolution,
    "torchvision::deform_conv2d": deformable,
    "aten::linear": linear,
    "aten::addmm": _product(1),
    "aten::mm": _product(0),
    "aten::matmul": _product(0),
    "aten::bmm": _product(0),
    "aten::baddbmm": _product(1),
    "aten::einsum": einsum,
    "aten::scaled_dot_product_attention": attention,
}

# BN and GN: scale and shift, two per element; bilinear: four weights per output element.
_ELEMENTS: dict[str, Handle] = {
    "aten::batch_norm": _per_input("batch_norm", 2),
    "aten::group_norm": _per_input("group_norm", 2),
    "aten::layer_norm": _per_input("layer_norm", 2),
    "aten::max_pool2d": _per_input("max_pool"),
    "aten::avg_pool2d": _per_input("avg_pool"),
    "aten::adaptive_avg_pool2d": _per_input("avg_pool"),
    "aten::adaptive_max_pool2d": _per_input("adaptive_max_pool"),
    "aten::sum": _per_input("sum"),
    "aten::upsample_nearest2d": _per_output("upsample_nearest"),
    "aten::upsample_bilinear2d": _per_output("upsample_bilinear", 4),
    "aten::grid_sampler": _per_output("grid_sample", 4),
}

_ACTIVATIONS = ("relu", "sigmoid", "tanh", "exp", "gelu", "silu", "hardtanh", "leaky_relu")
_ARITHMETIC = ("add", "sub", "rsub", "mul", "div", "sqrt", "rsqrt", "pow", "neg", "softmax")

HANDLES: dict[str, Handle] = {
    **_MULTIPLY_ADDS,
    **_ELEMENTS,
    **{f"aten::{op}{end}": _per_output(op) for op in _ACTIVATIONS for end in ("", "_")},
    **{f"aten::{op}{end}": _arithmetic(op) for op in _ARITHMETIC for end in ("", "_")},
}

# Ops outside torch's own that move or select values and multiply no weights.
FREE_OPS = frozenset(("torchvision::nms", "torchvision::roi_align", "torchvision::roi_pool"))

_HEAVY = re.compile(
    r"conv(?!ert)|matmul|einsum|attention|deform|linear|lstm|gru|rnn|cdist|(^|_|add|b)(mm|mv)(_|$)"
    r"|^(v?dot|outer|ger|addr|inner|tensordot|bilinear)_?$"
)


def looks_heavy(op: str) -> bool:
    """Whether an op without a formula may hide multiply-adds, by its name or its origin."""
    if op in HANDLES or op in FREE_OPS:
        return False
    if op.startswith(("prim::PythonOp", "prim::CallFunction")):
        return True
    space, _, name = op.partition("::")
    if name.startswith("upsample_"):
        return False
    return space not in ("aten", "prim", "quantized") or _HEAVY.search(name) is not None
