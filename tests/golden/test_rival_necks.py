"""NAS-FPN, BFP and HRFPN against mmdetection 2.25."""

from __future__ import annotations

import re

import pytest
import torch
from golden.scheme import Case, close_norm
from torch import nn

from sepcbench.necks import NECKS
from sepcbench.specs import BfpSpec, HrfpnSpec, NasFpnSpec, NeckSpec

# published names to ours, the first match wins
RENAMED = (
    (r"^lateral_convs\.(\d)\.conv", r"laterals.\1.conv"),
    (r"^lateral_convs\.(\d)\.bn", r"laterals.\1.norm"),
    (r"^extra_downsamples\.(\d)\.0\.conv", r"extras.\1.conv"),
    (r"^extra_downsamples\.(\d)\.0\.bn", r"extras.\1.norm"),
    (r"^fpn_stages\.(\d)\.(\w+)\.out_conv\.conv", r"cells.\1.steps.\2.conv"),
    (r"^fpn_stages\.(\d)\.(\w+)\.out_conv\.bn", r"cells.\1.steps.\2.norm"),
    (r"^refine\.conv_out\.conv", r"refine.out"),
    (r"^refine\.(\w+)\.conv", r"refine.\1"),
    (r"^reduction_conv\.conv", r"reduce.conv"),
    (r"^fpn_convs\.(\d)\.conv", r"outputs.\1.conv"),
)

CASES: dict[str, NeckSpec] = {
    "necks/nasfpn_bn_s3": NasFpnSpec(channels=64, stack=3),
    "necks/bfp_none": BfpSpec(channels=64, refine_level=2, refine="none"),
    "necks/bfp_nonlocal": BfpSpec(channels=64, refine_level=2),
    "necks/hrfpn_avg": HrfpnSpec(channels=64),
}


def renamed(key: str) -> str:
    for published, ours in RENAMED:
        key, found = re.subn(published, ours, key)
        if found:
            return key
    raise AssertionError(f"no name for {key}")


def build(case: Case, spec: NeckSpec) -> nn.Module:
    cfg = case.info["cfg"]
    channels = cfg["in_channels"]
    levels = (channels,) * cfg["num_levels"] if isinstance(channels, int) else tuple(channels)
    neck = NECKS[type(spec)](spec, levels)
    neck.load_state_dict({renamed(key): value for key, value in case.params.items()})
    return neck.eval()


@pytest.mark.parametrize("name", CASES)
def test_neck(name: str) -> None:
    case = Case(name)
    neck = build(case, CASES[name])
    inputs = [x.clone().requires_grad_() for x in case.levels("x")]
    outputs = neck(inputs)
    assert len(outputs) == len(neck.out_channels) == len(case.info["outputs"])
    for level, output in enumerate(outputs):
        case.check(f"out{level}", output)
    loss = sum(output.square().sum() for output in outputs)
    loss.backward()
    torch.testing.assert_close(float(loss.detach()), case.info["loss"]["value"], rtol=1e-4, atol=0)
    for level, x in enumerate(inputs):
        wanted = case.info["input_grads"][f"x{level}"]
        assert (x.grad is None) == (wanted is None)
        assert wanted is None or close_norm(x.grad, wanted["l2"], 3e-3)
