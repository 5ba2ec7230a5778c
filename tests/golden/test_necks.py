"""FPN and PAFPN against mmdetection 2.25."""

from __future__ import annotations

import pytest
import torch
from golden.published import rename_part
from golden.scheme import Case, case_names, close_norm
from torch import nn

from sepcbench.necks import NECKS
from sepcbench.specs import FpnSpec, PafpnSpec

EXTRA = {None: "pool", "on_input": "conv_c5", "on_output": "conv_p5"}


def build(case: Case) -> nn.Module:
    cfg = case.info["cfg"]
    first = 2 + cfg.get("start_level", 0)
    common = {
        "channels": cfg["out_channels"],
        "first_level": first,
        "last_level": first + cfg["num_outs"] - 1,
        "extra": EXTRA[cfg.get("add_extra_convs")],
        "relu_between": cfg.get("relu_before_extra_convs", False),
    }
    if cfg["type"] == "FPN":
        norm = cfg.get("norm_cfg", {})
        spec = FpnSpec(
            **common, conv_norm="gn" if norm else "none", groups=norm.get("num_groups", 32)
        )
    else:
        spec = PafpnSpec(**common)
    neck = NECKS[type(spec)](spec, tuple(cfg["in_channels"]))
    neck.load_state_dict(rename_part(case.params, "fusing"))
    return neck.eval()


@pytest.mark.parametrize("name", case_names("necks/fpn_*", "necks/pafpn_*"))
def test_neck(name: str) -> None:
    case = Case(name)
    neck = build(case)
    inputs = [x.clone().requires_grad_() for x in case.levels("x")]
    outputs = neck(inputs)
    assert len(outputs) == len(neck.out_channels) == case.info["cfg"]["num_outs"]
    for level, output in enumerate(outputs):
        case.check(f"out{level}", output)
    loss = sum(output.square().sum() for output in outputs)
    loss.backward()
    torch.testing.assert_close(float(loss.detach()), case.info["loss"]["value"], rtol=1e-4, atol=0)
    for level, x in enumerate(inputs):
        wanted = case.info["input_grads"][f"x{level}"]
        assert (x.grad is None) == (wanted is None)
        assert wanted is None or close_norm(x.grad, wanted["l2"], 3e-3)
