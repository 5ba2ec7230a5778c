"""Cost and latency from Python: `flops` and `latency` of names, specs or modules."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sepcbench.errors import unknown
from sepcbench.records import Cost, Failure, Latency
from sepcbench.specs import (
    PROTOCOLS,
    CostConvention,
    Dtype,
    EngineName,
    Protocol,
    ProtocolName,
    Scope,
    VariantSpec,
)
from sepcbench.targets import is_own, module_of, rows_of
from sepcbench.units import parse_shape

if TYPE_CHECKING:
    from torch import nn

    Target = str | VariantSpec | nn.Module | Callable[..., nn.Module]

Size = str | tuple[int, int]


def flops(
    target: Target,
    shape: str | tuple[int, int] = "800x1344",
    *,
    backbone: str | None = None,
    convention: CostConvention = "mac",
    exact: bool | None = None,
) -> Cost:
    """Count multiply-adds and parameters, for one image.

    Args:
        target: a variant, or a module of your own.
        shape: of the image, "HEIGHTxWIDTH" or (height, width) in pixels.
        backbone: what feeds a neck of your own: a backbone such as "r50", or a variant whose
            pyramid it gets. By default "r50" for what takes `in_channels`, and images for others.
        convention: "mac", "mmdet" or "paper".
        exact: trace a real image instead of an empty batch; by default for modules of your own.

    Raises:
        UsageError: an unknown name, or a module that cannot be made.
        CountError: an operation has no formula, or the module does not run.
    """
    from sepcbench.measures.cost import cost

    whole = not isinstance(target, (str, VariantSpec)) or is_own(target)
    exact = whole if exact is None else exact
    module = module_of(target, backbone, init=exact)
    return cost(module, size_of(shape), exact=exact, convention=convention)


def latency(
    targets: Sequence[Target] | Mapping[str, Target],
    shape: Size | Sequence[Size] = "800x1344",
    *,
    scope: Scope | None = None,
    backbone: str | None = None,
    batch: int | Sequence[int] | None = None,
    dtype: Dtype | Sequence[Dtype] = "fp32",
    device: str = "cpu",
    engine: EngineName | Sequence[EngineName] = "eager",
    preset: ProtocolName | None = None,
    flush_l2: bool = False,
    split: bool = False,
    roofline: bool = False,
    **protocol: Any,
) -> dict[str, Latency | Failure]:
    """Time targets in interleaved rounds, under every combination of conditions.

    Ratios are to the first case of the same batch and shape, and to eager code.

    Args:
        targets: variants or modules of your own, or a mapping from row name.
        shape: of the images, "HEIGHTxWIDTH" or (height, width) in pixels; a list for several.
        scope: "neck", "neck+head", "forward" (the default), "end-to-end" or "pipeline"; a neck of
            your own has no head.
        backbone: as in `flops`.
        batch: images per call, 1 by default; a list for several.
        dtype: "fp32", "tf32", "fp16" or "bf16"; a list for several.
        device: "cpu", "cuda" or "cuda:INDEX".
        engine: how the module runs, such as "eager" or "folded"; a list for several.
        preset: "standard" (the default on a CPU), "thorough" (on a GPU) or "paper", which times the
            scope "pipeline" with batch 8 where nothing else is asked for.
        flush_l2: empty the L2 cache of a GPU before every sample of a neck.
        split: time the parts of a detector too, in a pass of its own.
        roofline: compare with the floor of the device: multiply-adds over its matmul rate, bytes
            over its copy rate, both measured; on a GPU that is always done.
        protocol: fields of `specs.Protocol` to change, such as `rounds=30` or `max_seconds=60`.

    Returns:
        Name of the case to record: that of the row, or "row@engine-dtype-batch" where there are
        several conditions. A case that crashes, or whose outputs differ from those of eager code,
        is a `Failure` with its reason.

    Raises:
        UsageError: an unknown name, or a module that cannot be made.
    """
    from sepcbench.measures.latency import measure
    from sepcbench.specs.protocols import default_protocol, timed

    if preset is not None and preset not in PROTOCOLS:
        raise unknown("protocol", preset, PROTOCOLS)
    plan = default_protocol(device, preset).changed(
        **known_fields(protocol, Protocol, "protocol field")
    )
    scope, batch = timed(plan.name, scope, batch)
    several = isinstance(shape, Sequence) and not isinstance(shape, str)
    shapes: Any = shape if several and not isinstance(shape[0], int) else [shape]
    return measure(
        rows_of(targets, backbone, plan.seed),
        scope=scope,
        shape=[size_of(one) for one in shapes],
        batch=batch,
        dtype=dtype,
        device=device,
        engine=engine,
        protocol=plan,
        flush_l2=flush_l2,
        split=split,
        floor=roofline or None,
    )


def size_of(shape: Size) -> tuple[int, int]:
    """(height, width) in pixels.

    Raises:
        UsageError: it is no size.
    """
    return parse_shape(shape if isinstance(shape, str) else "x".join(map(str, shape)))


def known_fields(given: Mapping[str, Any], cls: type, kind: str) -> dict[str, Any]:
    """Fields of a dataclass by name, each checked against its type.

    Raises:
        UsageError: an unknown field, or a value that does not fit.
    """
    from sepcbench.codec import coerce, fields_of

    hints = fields_of(cls)
    for name in given:
        if name not in hints:
            raise unknown(kind, name, hints)
    return {name: coerce(value, hints[name], f"{kind} {name}") for name, value in given.items()}
