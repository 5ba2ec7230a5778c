"""Network, decoding and NMS as one module of fixed sizes."""

from __future__ import annotations

import pytest
import torch
from waiting import NoWaiting

from sepcbench import detectors
from sepcbench.heads.batched_decode import to_detections
from sepcbench.measures.decoding import FramedAndDecoded
from sepcbench.measures.lifelike import liven
from sepcbench.measures.scopes import Frame
from sepcbench.variants import VARIANTS


@pytest.mark.parametrize("name", ["retinanet_tiny_fpn", "fcos_tiny_pconv"])
@torch.no_grad()
def test_a_detector_and_its_decode_as_one_module(name: str) -> None:
    detector = detectors.build(VARIANTS[name], seed=0).eval()
    frame = Frame((64, 96), 2, (1.5, 2.0))
    images = torch.randn(2, 3, *frame.size, generator=torch.Generator().manual_seed(0))
    liven(detector, images[:1], 0, boxes=True)
    module = FramedAndDecoded(detector, frame)
    module(images)
    with NoWaiting():
        outputs, found = module(images)
    wanted = detector.decode(outputs, frame.sizes, frame.factors, frame.size)
    assert found.exact.all()
    for ours, theirs in zip(to_detections(found), wanted, strict=True):
        assert len(theirs.scores) > 0
        torch.testing.assert_close(ours.scores, theirs.scores)
        torch.testing.assert_close(ours.boxes, theirs.boxes)
