"""`sepcbench eval`: checkpoints over a data set, scored as COCO does."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from sepcbench.cli import eval_options as its
from sepcbench.cli import options
from sepcbench.cli.ablation import ablate
from sepcbench.cli.evaluating import (
    Evaluation,
    drawing_of,
    find_checkpoint,
    load,
    targets_of,
    value_of,
)
from sepcbench.cli.inspect import Conventions, Trust
from sepcbench.cli.score import BySize, PerClass, Scored, size_tables, tables
from sepcbench.cli.worker_counts import for_evaluation
from sepcbench.errors import UsageError
from sepcbench.records import Failure

if TYPE_CHECKING:
    from sepcbench.checkpoints.matching import Wishes
    from sepcbench.data.coco import CocoData
    from sepcbench.data.proposals import Proposals
    from sepcbench.detectors import Detector


def evaluate(
    checkpoints: its.Checkpoints,
    data: its.Data = None,
    variant: its.Variant = None,
    conventions: Conventions = None,
    sets: options.Set = None,
    trust: Trust = False,
    split: its.Split = None,
    annotations: its.Annotations = None,
    images: its.Images = None,
    device: options.Device = "cpu",
    batch: its.Batch = 1,
    workers: its.Workers = None,
    limit: its.Limit = None,
    proposals: its.Proposals = None,
    save_detections: its.SaveDetections = None,
    keep: its.Keep = None,
    scales: its.Scales = None,
    max_side: its.MaxSide = None,
    flip: its.Flip = False,
    draw: its.Draw = None,
    draw_count: its.DrawCount = 16,
    draw_score: its.DrawScore = 0.3,
    per_class: PerClass = False,
    by_size: BySize = False,
    referee: options.Referee = False,
    ablate_conventions: its.AblateConventions = False,
    against_plain: its.AgainstPlain = False,
    fmt: options.Format = "table",
) -> None:
    """Score checkpoints: the twelve COCO numbers, of masks too; an RPN's proposals by recall.

    Checkpoints of sepcbench, mmdetection, the SEPC authors, UniverseNet, torchvision and
    detectron2, each with its producer's conventions; `sepcbench inspect` says which and why. A
    folder stands for its last.safetensors. Under `torchrun` processes share the images.

    Example: sepcbench eval runs/sepc/last.safetensors --data shapes/
    Example: sepcbench eval retinanet.pth --data coco/ --ablate-conventions
    Example: sepcbench eval runs/rpn/last.safetensors --data shapes/ --out proposals.json
    Example: sepcbench eval runs/sepc/last.safetensors --data shapes/ --draw pictures/
    Example: sepcbench eval retinanet.pth --data coco/ --scales 400,600,800,1000 --flip
    Example: torchrun --nproc-per-node 2 -m sepcbench eval retinanet.pth --data coco/
    Example: sepcbench eval a.safetensors b.safetensors --data coco/ --device cuda --format json
    """
    options.check_format(fmt)
    options.parse_variants([variant] if variant else [], None)
    checkpoints = [find_checkpoint(path) for path in checkpoints]
    others = [save_detections, keep, draw, proposals, scales, max_side]
    if ablate_conventions or against_plain:
        flags = [per_class, by_size, referee, flip, ablate_conventions and against_plain]
        what = "--ablate-conventions" if ablate_conventions else "--against-plain"
        _check_alone(what, checkpoints, any(flags) or any(value is not None for value in others))
    from sepcbench.checkpoints.matching import Wishes
    from sepcbench.measures.test_time import TestTime, parse_scales
    from sepcbench.processes import joined, own_device

    device = options.check_device(own_device(device))
    truth, fixed = _open(data, split, annotations, images, proposals, limit)
    wishes = Wishes(variant, conventions, tuple(options.parse_sets(sets).items()))
    count = for_evaluation(workers, len(truth.images))
    if ablate_conventions:
        _ablate(checkpoints[0], wishes, trust, truth, device, batch, fmt)
        return
    if against_plain:
        _compare(checkpoints[0], wishes, trust, truth, device, batch, count, fmt)
        return
    test_time = TestTime(parse_scales(scales) if scales else (), max_side, flip)
    targets = targets_of(save_detections, checkpoints)
    drawing = drawing_of(draw, draw_count, draw_score, checkpoints)
    alone = len(checkpoints) == 1
    with joined(device) as job:
        evaluation = Evaluation(
            truth, fixed, wishes, trust, device, batch, count, alone, job, test_time,
            keep, by_size, referee, drawing,
        )  # fmt: skip
        found = [evaluation.attempt(*pair) for pair in zip(checkpoints, targets)]
    if job.leads:
        _emit(checkpoints, found, per_class, by_size, fmt)


def _open(
    data: Path | None,
    split: str | None,
    annotations: Path | None,
    images: Path | None,
    proposals: Path | None,
    limit: int | None,
) -> tuple[CocoData, Proposals | None]:
    from sepcbench.data.coco import check_images, open_data
    from sepcbench.data.proposals import read_proposals

    truth = open_data(data, split, annotations, images)
    given = read_proposals(proposals, truth) if proposals else None
    truth = truth.first(limit) if limit else truth
    check_images(truth)
    return truth, given


def _emit(
    checkpoints: list[Path], found: list[list[Scored]], per_class: bool, by_size: bool, fmt: str
) -> None:
    value = [value_of(path, records) for path, records in zip(checkpoints, found)]
    rows = [(str(path), record) for path, records in zip(checkpoints, found) for record in records]
    more = size_tables(rows) if by_size else []
    options.emit(fmt, [*tables(rows, per_class), *more], value)
    failed = sum(isinstance(record, Failure) for _, record in rows)
    if failed:
        raise typer.Exit(2 if failed == len(rows) else 1)


def _check_alone(what: str, checkpoints: list[Path], more: bool) -> None:
    if len(checkpoints) > 1 or more:
        raise UsageError(
            f"{what} takes one checkpoint, without --save-detections, --keep, --draw, --per-class, "
            "--by-size, --referee, --proposals and test-time options"
        )


def _ablate(
    path: Path, wishes: Wishes, trust: bool, data: CocoData, device: str, batch: int, fmt: str
) -> None:
    detector, classes = load(path, wishes, trust, data)
    _check_one_stage(detector, "--ablate-conventions", "; try single sets with --conventions NAME")
    ablate(path, detector, classes, data, device, batch, fmt)


def _compare(
    path: Path,
    wishes: Wishes,
    trust: bool,
    data: CocoData,
    device: str,
    batch: int,
    workers: int,
    fmt: str,
) -> None:
    from sepcbench.cli.against_plain import against_plain

    detector, classes = load(path, wishes, trust, data)
    _check_one_stage(detector, "--against-plain", "")
    against_plain(path, detector, classes, data, device, batch, workers, fmt)


def _check_one_stage(detector: Detector, what: str, hint: str) -> None:
    """Conventions act on raw outputs alone there; a second stage runs on decoded boxes."""
    if not detector.spec.head.one_stage:
        raise UsageError(
            f"{what} is for one-stage detectors, and {detector.spec.name} is none{hint}"
        )
