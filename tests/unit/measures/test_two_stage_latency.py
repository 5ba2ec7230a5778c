"""Two-stage detectors can be timed in every scope, also without proposals at hand."""

from __future__ import annotations

import pytest

from sepcbench import detectors
from sepcbench.measures.latency import SCOPES, measure
from sepcbench.records import Latency
from sepcbench.specs import Protocol
from sepcbench.variants import variant

NAMES = ("rpn_tiny_fpn", "fast_rcnn_tiny_fpn", "mask_rcnn_tiny_fpn")
SHORT = Protocol(
    rounds=1,
    min_rounds=1,
    samples_per_round=1,
    warmup_iterations=1,
    warmup_seconds=0,
    settle_spread=0,
)


@pytest.mark.parametrize(
    ("scope", "dtype"), [*((scope, "fp32") for scope in SCOPES), ("end-to-end", "bf16")]
)
def test_every_scope(scope: str, dtype: str) -> None:
    rows = {name: detectors.build(variant(name), seed=0) for name in NAMES}
    found = measure(rows, scope=scope, shape=(64, 64), dtype=dtype, protocol=SHORT)
    assert all(isinstance(row, Latency) for row in found.values()), found
    if scope == "end-to-end":
        assert all(row.detections > 0 for row in found.values())
