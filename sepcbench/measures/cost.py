"""Cost: multiply-adds and parameters of a module, counted without computing.

Three routes that must agree: fvcore's trace of an empty batch (`count`), the same trace of a
real image (`count(exact=True)`), and torch's own counter on meta tensors (`count_dispatched`).

A two-stage detector has modules that see every RoI (`Detector.repeats`). An empty batch has no
RoIs, their trace is read as that of one and multiplied; the other two routes run on the full
number of fixed boxes.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import nn

from sepcbench.errors import CountError
from sepcbench.measures.evaluating import evaluating
from sepcbench.measures.op_costs import CONVENTIONS, HANDLES, MAC_OPS, looks_heavy
from sepcbench.records import Cost, Counts
from sepcbench.specs import CostConvention

# Parts that add up to the whole; other parts, such as "tower", may overlap them.
WHOLE = ("backbone", "neck", "head")
MODULE_DEPTH = 3

# fvcore's own list of ops that do no arithmetic leaves these out.
_HARMLESS = frozenset(
    f"aten::{name}"
    for name in (
        "alias", "as_strided", "clone", "dropout_", "empty_like", "expand_as", "fill_",
        "feature_dropout", "index_select", "item", "len", "lift_fresh", "meshgrid", "movedim",
        "new_tensor", "numpy_T", "ones_like", "pad", "repeat", "reshape_as", "resolve_conj",
        "swapaxes", "unflatten", "view_as", "zero_",
    )
)  # fmt: skip
# Which level a RoI is read from, and reading it: nothing next to what its head does with it.
_PER_ROI = frozenset(("aten::argsort", "aten::log2", "aten::prod", "torchvision::roi_align"))


@dataclass(frozen=True)
class Counted:
    """Multiply-adds of one module on one image, under one convention.

    `by_op` and the parts backbone, neck and head each add up to `total`.
    """

    total: int
    parts: Counts
    by_op: Counts
    by_module: Counts
    other_ops: Counts
    sampling_macs: int
    unsupported_ops: Counts


def count(
    module: nn.Module,
    shape: tuple[int, int],
    *,
    parts: Mapping[str, Sequence[str]] | None = None,
    exact: bool = False,
    convention: CostConvention = "mac",
) -> Counted:
    """Count the multiply-adds of `module` on one image.

    Args:
        module: takes a batch (N, 3, H, W); traced in eval mode. Where `repeats` says that modules
            see RoIs, its `run_all` is traced.
        shape: (H, W) of the image in pixels.
        parts: part name to prefixes of module paths. When backbone, neck and head are all
            there they must cover the module.
        exact: trace a real image with all RoIs instead of an empty batch. An op that folds the
            batch into another dimension is counted right only so. Needs initialised weights: a
            deformable conv reads out of bounds where its offsets are NaN.
        convention: which counts belong to the total; see `op_costs.CONVENTIONS`.

    Raises:
        CountError: an op looks like a conv or matmul and has no formula, or the parts do not
            cover the module.
    """
    counts, unsupported = _trace(module, torch.zeros(int(exact), 3, *shape))
    if not exact:
        _multiply(counts, repeats(module))
    _refuse_uncounted(unsupported)
    inside = CONVENTIONS[convention]
    whole = counts[""]
    total = sum(whole[op] for op in inside)
    by_part = {name: _part(counts, prefixes, inside) for name, prefixes in (parts or {}).items()}
    if set(WHOLE) <= set(by_part) and sum(by_part[name] for name in WHOLE) != total:
        raise CountError(f"backbone, neck and head have {by_part} multiply-adds, all has {total}")
    return Counted(
        total=total,
        parts=tuple(by_part.items()),
        by_op=_largest(whole, inside),
        by_module=_modules(counts, inside),
        other_ops=_largest(whole, set(whole) - inside),
        sampling_macs=whole["deform_sampling"],
        unsupported_ops=_largest(unsupported[""], unsupported[""]),
    )


def cost(
    detector: Any,
    shape: tuple[int, int],
    *,
    exact: bool = False,
    convention: CostConvention = "mac",
) -> Cost:
    """Count a detector: multiply-adds by part, op and module, and parameters.

    Args:
        detector: a module with `.spec.name` and `.parts()`; the weights may be anything.
        shape: (H, W) of the image in pixels.
        exact: as in `count`.
        convention: as in `count`.
    """
    counted = count(detector, shape, parts=detector.parts(), exact=exact, convention=convention)
    parameters = list(detector.parameters())
    return Cost(
        variant=detector.spec.name,
        shape=shape,
        convention=convention,
        exact=exact,
        params=sum(p.numel() for p in parameters),
        trainable_params=sum(p.numel() for p in parameters if p.requires_grad),
        macs=(("total", counted.total), *counted.parts),
        by_op=counted.by_op,
        by_module=counted.by_module,
        other_ops=counted.other_ops,
        sampling_macs=counted.sampling_macs,
        unsupported_ops=counted.unsupported_ops,
        rois=max(repeats(detector).values(), default=0),
    )


def repeats(module: nn.Module) -> dict[str, int]:
    """Paths of the modules that see every RoI, with the RoIs of an image; none in one stage."""
    found: dict[str, int] = getattr(module, "repeats", dict)()
    return found


def count_dispatched(module: nn.Module, shape: tuple[int, int]) -> int:
    """Multiply-adds of `module` on one image by torch's FlopCounterMode on meta tensors.

    An independent check of `count` under the "mac" convention: other code finds the ops and
    other code has the formulas. Its counts are two per multiply-add and are halved.
    """
    from torch.utils.flop_counter import FlopCounterMode

    _import_torchvision_ops()
    whole = _Whole(module)
    state = {
        name: tensor.detach().to("meta")
        for name, tensor in (*whole.named_parameters(), *whole.named_buffers())
    }
    images = torch.empty(1, 3, *shape, device="meta")
    formulas: dict[Any, Any] = {torch.ops.torchvision.deform_conv2d: _deform_flops}
    counter = FlopCounterMode(display=False, custom_mapping=formulas)
    with evaluating(module), torch.no_grad(), counter:
        torch.func.functional_call(whole, state, (images,))
    return counter.get_total_flops() // 2


def _deform_flops(
    x: Sequence[int], weight: Sequence[int], *args: Any, out_shape: Sequence[int], **kwargs: Any
) -> int:
    """Two per multiply-add, as torch counts; weight is (out, in/groups, kh, kw)."""
    return 2 * prod(out_shape) * prod(weight[1:])


def _import_torchvision_ops() -> None:
    import torchvision  # noqa: F401  (registers torch.ops.torchvision and its meta kernels)


class _Whole(nn.Module):
    """A module with all that it does: its `run_all` or `everything`, if it has one."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, images: torch.Tensor) -> Any:
        # both methods give all that is made: a trace leaves out what its results do not need
        rois = repeats(self.module)
        if not rois:
            return getattr(self.module, "everything", self.module)(images)
        each = rois if len(images) else dict.fromkeys(rois, 0)
        return self.module.run_all(images, each)  # type: ignore[operator]


def _multiply(counts: Mapping[str, Counter[str]], rois: Mapping[str, int]) -> None:
    """Count modules that see every RoI as often, in themselves and in what they are part of."""
    for repeated, times in rois.items():
        once = {path: Counter(ops) for path, ops in counts.items() if _inside(path, repeated)}
        for path, ops in counts.items():
            source = once.get(path, once[repeated] if _inside(repeated, path) else Counter())
            for op, number in source.items():
                ops[op] += (times - 1) * number


def _inside(path: str, outer: str) -> bool:
    """Whether a module path is another's, or below it; "" is all of it."""
    return outer == "" or f"{path}.".startswith(f"{outer}.")


def _trace(
    module: nn.Module, images: torch.Tensor
) -> tuple[dict[str, Counter[str]], dict[str, Counter[str]]]:
    """Counts by name, and ops without a formula, for every module path ("" is all of it)."""
    with warnings.catch_warnings():
        # fvcore uses torch.jit, which torch has deprecated and still ships
        warnings.simplefilter("ignore")
        from fvcore.nn.jit_analysis import JitModelAnalysis

        analysis = JitModelAnalysis(_Whole(module), images)
        analysis.set_op_handle(**HANDLES)
        analysis.set_op_handle(**dict.fromkeys(_HARMLESS | _PER_ROI))
        analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
        analysis.tracer_warnings("none")
        with evaluating(module), torch.no_grad():
            counts = analysis.by_module_and_operator()
    inside = {path: ops for path, ops in counts.items() if path}
    paths = {path.removeprefix("module").removeprefix("."): path for path in inside}
    unsupported = {path: analysis.unsupported_ops(full) for path, full in paths.items()}
    return {path: inside[full] for path, full in paths.items()}, unsupported


def _refuse_uncounted(unsupported: Mapping[str, Counter[str]]) -> None:
    for op in unsupported[""]:
        if looks_heavy(op):
            paths = [path for path, ops in unsupported.items() if op in ops]
            where = max(paths, key=lambda path: path.count(".") + bool(path))
            raise CountError(
                f"op '{op}' in module '{where or '(whole)'}' may do multiply-adds and has no "
                "formula; add one to HANDLES in sepcbench/measures/op_costs.py"
            )


def _part(
    counts: Mapping[str, Counter[str]], prefixes: Sequence[str], inside: Iterable[str]
) -> int:
    unknown = [prefix for prefix in prefixes if prefix not in counts]
    if unknown:
        raise CountError(f"part '{unknown[0]}' is not the path of a module")
    return sum(counts[prefix][op] for prefix in prefixes for op in inside)


def _largest(counts: Counter[str], names: Iterable[str]) -> Counts:
    """The counts of these names that are not zero, largest first."""
    found = [(name, counts[name]) for name in names if counts[name]]
    return tuple(sorted(found, key=lambda pair: (-pair[1], pair[0])))


def _modules(counts: Mapping[str, Counter[str]], inside: Iterable[str]) -> Counts:
    """Counts of the submodules down to MODULE_DEPTH, in the module's order."""
    totals = {path: sum(ops[op] for op in inside) for path, ops in counts.items()}
    return tuple(
        (path, total)
        for path, total in totals.items()
        if path and total and path.count(".") < MODULE_DEPTH
    )


__all__ = ["MAC_OPS", "Counted", "cost", "count", "count_dispatched"]
