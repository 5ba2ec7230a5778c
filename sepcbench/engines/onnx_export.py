"""A module with example inputs as an ONNX model."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from sepcbench.engines.engine import Inputs
from sepcbench.errors import EngineError

OPSET = 20  # DeformConv is there from 19 on
INPUT = "input_"  # and its number: the name of an input


class Exported(NamedTuple):
    """A model, and how its flat list of outputs becomes what the module gives.

    Attributes:
        model: onnx.ModelProto.
        inputs: the tensors of the example, in the order of the model's inputs.
        outputs: the tensors that the module gave for them, in the order of the model's outputs.
        assemble: from tensors in that order to the module's own outputs.
    """

    model: Any
    inputs: list[Tensor]
    outputs: list[Tensor]
    assemble: Callable[[list[Tensor]], Any]


class Flat(nn.Module):
    """A module with tensors in and out, whatever nesting it has itself."""

    def __init__(self, module: nn.Module, inputs: Inputs) -> None:
        super().__init__()
        self.module = module
        self.leaves, self.spec = pytree.tree_flatten(inputs)
        self.places = [i for i, x in enumerate(self.leaves) if isinstance(x, Tensor)]

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """The tensors of the inputs to the tensors of the outputs."""
        leaves = list(self.leaves)
        for place, tensor in zip(self.places, tensors, strict=True):
            leaves[place] = tensor
        outputs = self.module(*pytree.tree_unflatten(leaves, self.spec))
        return tuple(x for x in pytree.tree_leaves(outputs) if isinstance(x, Tensor))


def export(module: nn.Module, inputs: Inputs) -> Exported:
    """Export a module by torch's exporter, for the very shapes of its inputs.

    Raises:
        EngineError: something in the module has no place in an ONNX graph.
    """
    flat = Flat(module, inputs).eval()
    tensors = [flat.leaves[place] for place in flat.places]
    with torch.no_grad():
        leaves, spec = pytree.tree_flatten(module(*inputs))
    places = [i for i, x in enumerate(leaves) if isinstance(x, Tensor)]

    def assemble(found: list[Tensor]) -> Any:
        filled = list(leaves)
        for place, tensor in zip(places, found, strict=True):
            filled[place] = tensor
        return pytree.tree_unflatten(filled, spec)

    return Exported(_model(flat, tensors), tensors, [leaves[place] for place in places], assemble)


def _model(flat: Flat, tensors: list[Tensor]) -> Any:
    names = [f"{INPUT}{i}" for i in range(len(tensors))]
    try:
        # exporting runs its own autograd modes, which inference mode forbids
        with torch.inference_mode(False), torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program: Any = torch.onnx.export(
                _outside_inference(flat),
                tuple(x.clone() for x in tensors),
                dynamo=True,
                opset_version=OPSET,
                input_names=names,
                custom_translation_table={
                    torch.ops.torchvision.deform_conv2d.default: _deform_conv()
                },
                verbose=False,
            )
    except Exception as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise EngineError(
            f"{type(flat.module).__name__} cannot be exported to ONNX ({lines[0][:200]}); "
            "use --scope neck or another engine"
        ) from error
    return program.model_proto


def _outside_inference(flat: Flat) -> Flat:
    """The same module with weights that are no inference tensors, which no exporter takes."""
    for part in flat.modules():
        for name, tensor in [*part._parameters.items(), *part._buffers.items()]:
            if tensor is not None and tensor.is_inference():
                plain: Any = tensor.detach().clone()
                if name in part._parameters:
                    part._parameters[name] = nn.Parameter(plain, requires_grad=False)
                else:
                    part._buffers[name] = plain
    return flat


def _deform_conv() -> Callable[..., Any]:
    """torchvision's deformable conv as ONNX's DeformConv: offsets and masks are laid out alike."""
    from onnxscript import opset19 as op

    def deform_conv2d(
        x: Any, weight: Any, offset: Any, mask: Any, bias: Any,
        stride_h: int, stride_w: int, pad_h: int, pad_w: int, dil_h: int, dil_w: int,
        groups: int, offset_groups: int, use_mask: bool,
    ) -> Any:  # fmt: skip
        return op.DeformConv(
            x, weight, offset, bias, *([mask] if use_mask else []),
            dilations=[dil_h, dil_w], group=groups, kernel_shape=list(weight.shape)[2:],
            offset_group=offset_groups, pads=[pad_h, pad_w, pad_h, pad_w],
            strides=[stride_h, stride_w],
        )  # fmt: skip

    return deform_conv2d
