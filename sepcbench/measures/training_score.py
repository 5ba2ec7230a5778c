"""One number that says how good a detector is while it trains, from a set it does not learn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from sepcbench import processes
from sepcbench.data.coco import CocoData
from sepcbench.detectors import Detector
from sepcbench.measures.accuracy import detect_all
from sepcbench.measures.coco_arrays import Detection
from sepcbench.measures.scoring import recall, score


def evaluator(data: CocoData, device: str, workers: int) -> Callable[[Detector], float | None]:
    """What scores a detector while it trains: AP of its boxes, AR at 1000 of proposals.

    Every process takes its share of the images; the first one scores, the others give None.
    """

    def evaluate(detector: Detector) -> float | None:
        job, place = processes.job(), processes.own_device(device)
        share = replace(data, images=data.images[job.rank :: job.world])
        mine = (
            detect_all(detector, share, data.classes, device=place, workers=workers)
            if share.images
            else []
        )
        found = [entry for part in processes.gathered(mine) for entry in part]
        return _number(data, found, detector) if job.leads else None

    return evaluate


def _number(data: CocoData, found: list[Detection], detector: Detector) -> float | None:
    """Without draws and finer sizes, which take longer than all the rest."""
    spec = detector.spec
    if spec.head.gives_proposals:
        return recall(data, found, variant=spec.name, resamples=0).ar1000
    return score(data, found, variant=spec.name, resamples=0, finer=False).ap
