"""Necks: pyramid in, pyramid or pyramid pair out.

A neck is built from its spec and the channels of the levels it gets, and has `out_channels`,
one per level it gives. To add one: a file here, its spec in `sepcbench.specs`, a line in `NECKS`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from sepcbench.necks.bfp import Bfp
from sepcbench.necks.bifpn import Bifpn
from sepcbench.necks.fpn import Fpn
from sepcbench.necks.hrfpn import Hrfpn
from sepcbench.necks.nas_fpn import NasFpn
from sepcbench.necks.pafpn import Pafpn
from sepcbench.necks.pconv import build_pconv
from sepcbench.necks.sepc import Sepc
from sepcbench.necks.single_level import SingleLevel
from sepcbench.specs import (
    BfpSpec,
    BifpnSpec,
    FpnSpec,
    HrfpnSpec,
    NasFpnSpec,
    PafpnSpec,
    PconvSpec,
    SepcSpec,
    SingleLevelSpec,
)

NECKS: dict[type, Callable[[Any, tuple[int, ...]], nn.Module]] = {
    FpnSpec: Fpn,
    PafpnSpec: Pafpn,
    PconvSpec: build_pconv,
    SepcSpec: Sepc,
    SingleLevelSpec: SingleLevel,
    NasFpnSpec: NasFpn,
    BfpSpec: Bfp,
    HrfpnSpec: Hrfpn,
    BifpnSpec: Bifpn,
}
"""From the type of a neck's spec to its builder `(spec, in_channels) -> module`."""

__all__ = ["NECKS"]
