"""Decoding and NMS within a CUDA graph on a real GPU."""

from __future__ import annotations

import time

import pytest
import torch

from sepcbench import detectors
from sepcbench.heads import LevelOutput
from sepcbench.heads.batched_decode import BatchedDecoder, Padded, to_detections
from sepcbench.measures.decoding import FramedAndDecoded
from sepcbench.measures.lifelike import liven
from sepcbench.measures.scopes import Frame
from sepcbench.ops.nms import batched_nms, parallel_nms
from sepcbench.variants import VARIANTS

pytestmark = pytest.mark.gpu
NAMES = ("retinanet_tiny_fpn", "retinanet_tiny_sepc")
SHAPE = (256, 256)


def agree(found: Padded, wanted: list) -> None:
    """The same detections; IoUs nearest to the threshold may fall on either side of it."""
    for a, b in zip(to_detections(found), wanted, strict=True):
        assert abs(len(a.boxes) - len(b.boxes)) <= 1
        shared = min(len(a.boxes), len(b.boxes)) * 9 // 10
        torch.testing.assert_close(a.scores[:shared], b.scores[:shared], atol=1e-3, rtol=1e-3)


def outputs_of(detector: detectors.Detector, images: torch.Tensor) -> list[LevelOutput]:
    torch.manual_seed(0)
    return [
        output._replace(cls=torch.randn_like(output.cls) * 1.5 - 3.0) for output in detector(images)
    ]


def framed(name: str, images: torch.Tensor) -> tuple[detectors.Detector, FramedAndDecoded]:
    """A detector that finds boxes though its weights are random, and it with its decode."""
    detector = detectors.build(VARIANTS[name], seed=0).cuda().eval()
    liven(detector, images[:1], 0, boxes=True)
    return detector, FramedAndDecoded(detector, Frame(SHAPE, len(images))).eval()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("batch", [1, 4])
def test_a_recorded_decode_gives_the_plain_detections(name: str, batch: int) -> None:
    detector = detectors.build(VARIANTS[name], seed=0).cuda().eval()
    with torch.no_grad():
        outputs = outputs_of(detector, torch.randn(batch, 3, *SHAPE, device="cuda"))
        decoder = BatchedDecoder(detector.head, [SHAPE] * batch, None, SHAPE)
        decoder(outputs)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            found = decoder(outputs)
        for output in outputs:
            output.cls.copy_(torch.randn_like(output.cls) * 1.5 - 3.0)
        graph.replay()
        wanted = detector.decode(outputs, [SHAPE] * batch, None, SHAPE)
    assert found.exact.all()
    agree(found, wanted)


@pytest.mark.parametrize("name", NAMES)
def test_a_whole_detector_is_recorded_with_its_decode(name: str) -> None:
    images = torch.randn(1, 3, *SHAPE, device="cuda")
    detector, module = framed(name, images)
    with torch.no_grad():
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                module(images)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            outputs, found = module(images)
        images.copy_(torch.randn_like(images))
        graph.replay()
        wanted = detector.decode(outputs, [SHAPE], None, SHAPE)
    assert len(wanted[0].scores) > 0
    agree(found, wanted)


def test_nothing_waits_for_the_device() -> None:
    """As torch itself sees it."""
    images = torch.randn(1, 3, *SHAPE, device="cuda")
    _, module = framed(NAMES[0], images)
    with torch.no_grad():
        module(images)
        torch.cuda.set_sync_debug_mode("error")
        try:
            module(images)
        finally:
            torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("count", [10, 500, 2048])
def test_parallel_nms_keeps_what_greedy_suppression_keeps(count: int) -> None:
    """Whole numbers, so that no IoU depends on the precision it is computed in."""
    torch.manual_seed(count)
    corner = torch.randint(0, 200, (count, 2), device="cuda").float()
    boxes = torch.cat([corner, corner + torch.randint(1, 60, (count, 2), device="cuda")], dim=1)
    scores, labels = torch.rand(count, device="cuda"), torch.randint(0, 4, (count,), device="cuda")
    found = parallel_nms(boxes, scores, labels, 0.5, limit=count)
    wanted = batched_nms(boxes, scores, labels, 0.5)
    assert found.indices[found.valid].tolist() == wanted.tolist()


def test_how_long_decoding_takes(capsys: pytest.CaptureFixture) -> None:
    """Printed: the plain decode by the wall clock, the recorded one by its replays."""
    detector = detectors.build(VARIANTS[NAMES[0]], seed=0).cuda().eval()
    shape = (800, 1344)
    with torch.no_grad():
        outputs = outputs_of(detector, torch.randn(1, 3, *shape, device="cuda"))
        decoder = BatchedDecoder(detector.head, [shape], None, shape)
        decoder(outputs)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            decoder(outputs)

        def milliseconds(call: object) -> float:
            times = []
            for _ in range(20):
                start = time.perf_counter()
                call()  # type: ignore[operator]
                torch.cuda.synchronize()
                times.append(time.perf_counter() - start)
            return sorted(times)[10] * 1e3

        plain = milliseconds(lambda: detector.decode(outputs, [shape], None, shape))
        recorded = milliseconds(graph.replay)
    with capsys.disabled():
        print(f"\ndecode and NMS of one image: plain {plain:.3f} ms, recorded {recorded:.3f} ms")
