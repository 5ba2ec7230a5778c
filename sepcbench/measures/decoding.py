"""Network, decoding and NMS as one module of fixed sizes, which an engine can run as one graph.

Where the head allows it; see `heads.batched_decode`, whose definition is the plain decode.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sepcbench.errors import EngineError
from sepcbench.heads.batched_decode import BatchedDecoder, Padded, to_detections, unsupported
from sepcbench.heads.outputs import Detections
from sepcbench.measures.cases import Case
from sepcbench.measures.scopes import Frame, Framed

Run = Callable[[nn.Module, tuple[Any, ...]], Callable[[], Any]]

# IoUs nearest to the threshold may fall on either side of it, and every one may change a few boxes.
_FEWER, _SCORE = 0.02, 1e-3
_COMPARED = 0.9


class Decoder(nn.Module):
    """Raw predictions to boxes of fixed number."""

    def __init__(self, detector: nn.Module, frame: Frame) -> None:
        super().__init__()
        head: Any = detector.head
        self.decoder = BatchedDecoder(head, frame.sizes, frame.factors, frame.size)

    def forward(self, outputs: Any) -> Padded:
        return self.decoder(outputs)


class FramedAndDecoded(Framed):
    """Images (N, 3, H, W) to raw predictions and boxes of fixed number."""

    def __init__(self, detector: nn.Module, frame: Frame) -> None:
        super().__init__(detector, frame)
        self.decode = Decoder(detector, frame)

    def forward(self, images: Tensor) -> Any:  # type: ignore[override]
        outputs = super().forward(images)
        return outputs, self.decode(outputs)


class Boxed:
    """A detector with its decoding as an engine runs it.

    Args:
        detector: rewritten by the engine, with a head that `plain_reason` says nothing about.
        frame: the images.
        run: of the engine.
        inputs: of the scope.
    """

    def __init__(
        self, detector: nn.Module, frame: Frame, run: Run, inputs: tuple[Any, ...]
    ) -> None:
        self.call = run(FramedAndDecoded(detector, frame), inputs)

    def outputs(self) -> Any:
        """Run; the raw predictions."""
        return self.call()[0]

    def found(self) -> Padded:
        """Run; the boxes as they come."""
        found: Padded = self.call()[1]
        return found

    def detections(self) -> list[Detections]:
        """Run; the boxes of each image, for which the host waits once."""
        return to_detections(self.found())


def plain_reason(detector: nn.Module) -> str | None:
    """Why boxes of a detector cannot be decoded in tensors of fixed sizes; None if they can."""
    head: Any = getattr(detector, "head", None)
    return unsupported(head)


def check_decoding(boxed: Boxed, detector: Any, frame: Frame, case: Case) -> tuple[str, ...]:
    """Compare boxes with those of the plain decode of the same raw predictions.

    Returns:
        A note where they are not known to be those of the plain decode.

    Raises:
        EngineError: the boxes are others.
    """
    outputs, found = boxed.call()
    wanted = detector.decode(outputs, frame.sizes, frame.factors, frame.size)
    ours = to_detections(found)
    if not all(found.exact.tolist()):
        return ("decoded approximately: there are more candidates than NMS looks at",)
    if not _alike(ours, wanted):
        counts = [sum(len(image.scores) for image in images) for images in (ours, wanted)]
        raise EngineError(
            f"engine '{case.engine}' finds other boxes than the plain decode of the same "
            f"predictions: {counts[0]} instead of {counts[1]}; use --scope forward"
        )
    return ()


def _alike(ours: Sequence[Detections], theirs: Sequence[Detections]) -> bool:
    """Whether there are as many boxes, with the same best scores."""
    for one, other in zip(ours, theirs, strict=True):
        a, b = one.scores.sort(descending=True)[0], other.scores.sort(descending=True)[0]
        if abs(len(a) - len(b)) > 1 + _FEWER * len(b):
            return False
        shared = int(_COMPARED * min(len(a), len(b)))
        if not torch.allclose(a[:shared].float(), b[:shared].float(), rtol=0, atol=_SCORE):
            return False
    return True
