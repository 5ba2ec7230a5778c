"""The PConv and SEPC towers against the authors' neck: forward, gradients, statistics."""

from __future__ import annotations

import pytest
import torch
from golden.published import rename_part
from golden.scheme import Case, case_names, close_norm
from torch import Tensor, nn

from sepcbench.necks import NECKS
from sepcbench.ops.pyramid import PyramidPair
from sepcbench.specs import PconvSpec, SepcSpec

NAMES = case_names("sepc/*", "sepc_pad1/*")
EVAL = [name for name in NAMES if "_train" not in name]
TRAIN = [name for name in NAMES if "_train" in name]


def build(case: Case) -> nn.Module:
    args, padding = case.info["args"], case.info["lcconv_padding"]
    norm = "integrated" if args["iBN"] else "none"
    kind = {"depth": args["Pconv_num"], "extra_padding": padding, "norm": norm}
    if args["lcconv_deform"]:
        spec = SepcSpec(deform="full" if args["pconv_deform"] else "lite", **kind)
    else:
        spec = PconvSpec(**kind)
    neck = NECKS[type(spec)](spec, (256,) * 5)
    neck.load_state_dict(rename_part(case.params, "sepc"))
    return neck


def check_maps(case: Case, pair: PyramidPair) -> None:
    for level, (cls, loc) in enumerate(zip(*pair, strict=True)):
        case.check(f"out{level}.cls", cls)
        case.check(f"out{level}.loc", loc)


@pytest.mark.parametrize("name", EVAL)
def test_eval(name: str) -> None:
    case = Case(name)
    neck = build(case).eval()
    seen: dict[str, Tensor] = {}
    for k, block in enumerate(neck.blocks):
        block.register_forward_hook(
            lambda _m, _i, out, k=k: seen.update({f"pconv{k}.{n}": x for n, x in enumerate(out)})
        )
    with torch.no_grad():
        check_maps(case, neck(case.levels("x")))
    for output in case.outputs("pconv"):
        case.check(output, seen[output])


@pytest.mark.parametrize("name", TRAIN)
def test_train(name: str) -> None:
    case = Case(name)
    neck = build(case).train()
    inputs = [x.clone().requires_grad_() for x in case.levels("x")]
    pair = neck(inputs)
    loss = sum(x.square().sum() for pyramid in pair for x in pyramid)
    loss.backward()
    check_maps(case, pair)
    torch.testing.assert_close(float(loss.detach()), case.info["loss"]["value"], rtol=1e-3, atol=0)
    for level, x in enumerate(inputs):
        assert close_norm(x.grad, case.info["input_grads"][f"x{level}"]["l2"], 3e-3), level
        case.check_gradient(f"grad.x{level}", x.grad)
    check_parameter_gradients(case, neck)
    check_statistics(case, neck)


def check_parameter_gradients(case: Case, neck: nn.Module) -> None:
    published = rename_part({key: key for key in case.params}, "sepc")
    gradients = {published[name]: p.grad for name, p in neck.named_parameters()}
    wanted = case.info["param_grads"]
    assert gradients.keys() == wanted.keys()
    for key, norms in wanted.items():
        rel = 1e-2 if "conv_offset" in key else 3e-3
        assert close_norm(gradients[key], norms["l2"], rel), key


def check_statistics(case: Case, neck: nn.Module) -> None:
    """Running statistics after one training forward."""
    state = neck.state_dict()
    names = [output.removeprefix("state.") for output in case.outputs("state.")]
    assert bool(names) == case.info["args"]["iBN"]
    for new, key in rename_part({key: key for key in names}, "sepc").items():
        if key.endswith("num_batches_tracked"):
            assert int(state[new]) == int(case.arrays[f"state.{key}"]) == 1
        else:
            case.check(f"state.{key}", state[new], atol=1e-5, rtol=0)
