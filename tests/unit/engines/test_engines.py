"""The engines."""

from typing import get_args

import torch
from torch import nn

from sepcbench.engines import ENGINES
from sepcbench.specs import EngineName


def test_table_and_names_agree():
    assert set(ENGINES) == set(get_args(EngineName))


def test_every_engine_computes_the_same():
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()).eval()
    x = torch.randn(1, 3, 8, 8)
    for engine in ENGINES.values():
        torch.testing.assert_close(engine(module)(x), module(x))
