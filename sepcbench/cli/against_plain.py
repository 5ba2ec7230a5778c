"""The table of `sepcbench eval --against-plain`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from sepcbench.cli import options
from sepcbench.cli.score import percent
from sepcbench.report.table import Table

if TYPE_CHECKING:
    from sepcbench.data.coco import CocoData
    from sepcbench.detectors import Detector
    from sepcbench.measures.throughput import Speed

HEADERS = ("way", "images/s", "sepcbench is", "detect, s", "score, s", "detections", "AP %")


def against_plain(
    path: Path,
    detector: Detector,
    classes: Sequence[str],
    data: CocoData,
    device: str,
    batch: int,
    workers: int,
    fmt: str,
) -> None:
    """Time the evaluation of one checkpoint in three ways and write the table."""
    from sepcbench.measures.environment import environment
    from sepcbench.measures.throughput import Setting, compare

    setting = Setting(detector, data, classes, device, batch, workers)
    with options.progress_bar(f"eval {path.name}") as progress:
        speeds = compare(setting, progress=progress)
    where = environment(device)
    notes = (
        f"{detector.spec.name} on {len(data.images)} images of {data.name}, short side "
        f"{detector.spec.conventions.short_side}, {where.gpu or where.cpu}, {where.cores} cores, "
        f"{where.threads} threads",
        f"sepcbench: {workers} workers, batch {batch}, its own matcher",
        "plain loop: one image after the other in one process, scored with pycocotools",
        f"torchvision's way: {workers} workers, GeneralizedRCNNTransform, batch 1, scored with "
        "pycocotools; its resizing is of floats, so that AP is the same where conventions resize "
        "so too",
        "the fastest of three runs each, in turns; score: the twelve COCO numbers",
    )
    about = {"file": str(path), "device": device, "batch": batch, "workers": workers}
    value = [{**about, **asdict(one), "images_per_s": one.images_per_s} for one in speeds]
    options.emit(fmt, [Table(f"Evaluating {path.name}", HEADERS, _rows(speeds), notes)], value)


def _rows(speeds: Sequence[Speed]) -> tuple[tuple[str, ...], ...]:
    return tuple(
        (
            one.way,
            f"{one.images_per_s:.1f}",
            f"{one.ratio:.2f} times as fast",
            f"{one.detect_s:.2f}",
            f"{one.score_s:.2f}",
            str(one.detections),
            percent(one.ap),
        )
        for one in speeds
    )
