"""`sepcbench eval`: checkpoints over a data set, scored as COCO does."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sepcbench.cli import options
from sepcbench.cli.ablation import ablate
from sepcbench.cli.detection_pictures import Drawing, make_folder
from sepcbench.cli.inspect import Conventions, Trust
from sepcbench.cli.score import PerClass, Scored, tables
from sepcbench.codec import encode
from sepcbench.errors import CheckpointError, SepcbenchError, UsageError
from sepcbench.records import Failure

if TYPE_CHECKING:
    from sepcbench.checkpoints.matching import Wishes
    from sepcbench.data.coco import CocoData
    from sepcbench.data.proposals import Proposals
    from sepcbench.detectors import Detector


def evaluate(
    checkpoints: Annotated[list[Path], typer.Argument(metavar="CHECKPOINT...", help="To score.")],
    data: Annotated[Path | None, typer.Option("--data", help="Data folder in COCO layout.")] = None,
    variant: Annotated[
        str | None, typer.Option("--variant", help="Build this variant, not the one inside.")
    ] = None,
    conventions: Conventions = None,
    sets: options.Set = None,
    trust: Trust = False,
    split: Annotated[str | None, typer.Option(help="Which annotation file; else val.")] = None,
    annotations: Annotated[Path | None, typer.Option(help="The annotation file.")] = None,
    images: Annotated[Path | None, typer.Option(help="The image folder.")] = None,
    device: options.Device = "cpu",
    batch: Annotated[int, typer.Option(help="Images of one padded shape per call.", min=1)] = 1,
    limit: Annotated[int | None, typer.Option(help="Only the first images.", min=1)] = None,
    proposals: Annotated[
        Path | None, typer.Option("--proposals", help="Proposals file of the set, for Fast R-CNN.")
    ] = None,
    save_detections: Annotated[
        Path | None,
        typer.Option(
            "--save-detections",
            "--out",
            help="Write what was found in COCO result format, an RPN's proposals too (a folder "
            "for several).",
        ),
    ] = None,
    draw: Annotated[
        Path | None, typer.Option("--draw", help="Draw what was found into PNG files, here.")
    ] = None,
    draw_count: Annotated[int, typer.Option("--draw-count", help="Images to draw.", min=1)] = 16,
    draw_score: Annotated[
        float, typer.Option("--draw-score", help="The lowest score to draw.", min=0, max=1)
    ] = 0.3,
    per_class: PerClass = False,
    referee: options.Referee = False,
    ablate_conventions: Annotated[
        bool,
        typer.Option("--ablate-conventions", help="AP of one checkpoint under every named set."),
    ] = False,
    fmt: options.Format = "table",
) -> None:
    """Score checkpoints: the twelve COCO numbers, of masks too; an RPN's proposals by recall.

    Checkpoints of sepcbench, mmdetection, the SEPC authors, UniverseNet, torchvision and
    detectron2, each with its producer's conventions; `sepcbench inspect` says which and why.

    Example: sepcbench eval runs/sepc/last.safetensors --data shapes/
    Example: sepcbench eval retinanet.pth --data coco/ --ablate-conventions
    Example: sepcbench eval runs/rpn/last.safetensors --data shapes/ --out proposals.json
    Example: sepcbench eval runs/sepc/last.safetensors --data shapes/ --draw pictures/
    Example: sepcbench eval a.safetensors b.safetensors --data coco/ --device cuda --format json
    """
    options.check_format(fmt)
    options.check_device(device)
    options.parse_variants([variant] if variant else [], None)
    overrides = tuple(options.parse_sets(sets).items())
    from sepcbench.data.coco import check_images, open_data
    from sepcbench.data.proposals import read_proposals

    truth = open_data(data, split, annotations, images)
    given = read_proposals(proposals, truth) if proposals else None
    truth = truth.first(limit) if limit else truth
    check_images(truth)
    from sepcbench.checkpoints.matching import Wishes

    wishes = Wishes(variant, conventions, overrides)
    if ablate_conventions:
        more = per_class or referee or draw is not None
        _check_ablation(checkpoints, save_detections, more, proposals)
        detector, classes = _load(checkpoints[0], wishes, trust, truth)
        _check_one_stage(detector)
        ablate(checkpoints[0], detector, classes, truth, device, batch, fmt)
        return
    targets = _targets(save_detections, checkpoints)
    alone = len(checkpoints) == 1
    drawing = _drawing(draw, draw_count, draw_score, checkpoints)
    evaluation = _Evaluation(truth, given, wishes, trust, device, batch, alone, referee, drawing)
    records: list[list[Scored]] = []
    for path, target in zip(checkpoints, targets):
        try:
            records.append(evaluation.run(path, target))
        except SepcbenchError as error:
            if alone:
                raise
            records.append([Failure(variant or path.stem, "accuracy", str(error))])
    value = [_value(path, found) for path, found in zip(checkpoints, records)]
    rows = [(str(path), record) for path, found in zip(checkpoints, records) for record in found]
    options.emit(fmt, tables(rows, per_class), value)
    failed = sum(isinstance(record, Failure) for _, record in rows)
    if failed:
        raise typer.Exit(2 if failed == len(rows) else 1)


@dataclass(frozen=True)
class _Evaluation:
    """What all checkpoints are evaluated on, and how."""

    data: CocoData
    proposals: Proposals | None
    wishes: Wishes
    trust: bool
    device: str
    batch: int
    alone: bool
    referee: bool = False
    drawing: Drawing | None = None

    def run(self, path: Path, out: Path | None) -> list[Scored]:
        """The records of one checkpoint: of boxes and maybe masks, or of proposals."""
        from sepcbench.checkpoints import native
        from sepcbench.measures.accuracy import detect_all
        from sepcbench.measures.scoring import scores, write_detections

        detector, classes = _load(path, self.wishes, self.trust, self.data)
        # of several checkpoints only some may work on given proposals
        wanted = self.alone or "proposals" in detector.spec.head.needs
        with options.progress_bar(f"eval {path.name}") as progress:
            found = detect_all(
                detector,
                self.data,
                classes,
                device=self.device,
                batch=self.batch,
                proposals=self.proposals if wanted else None,
                progress=progress,
            )
        if out is not None:
            write_detections(out, found)
        if self.drawing is not None:
            self.drawing.draw(path, self.data, found, detector.spec.head.gives_proposals)
        digest = native.digest(path)
        made = scores(self.data, found, detector.spec, digest, referee=self.referee)
        return list(made.values())


def _load(
    path: Path, wishes: Wishes, trust: bool, data: CocoData
) -> tuple[Detector, tuple[str, ...]]:
    from sepcbench.checkpoints import loading

    loaded = loading.load(path, wishes, trust)
    detector = loaded.detector
    if detector.spec.head.gives_proposals:
        return detector, data.classes
    return detector, loaded.classes or _classes_of(data, path, detector.spec.num_classes)


def _check_one_stage(detector: Detector) -> None:
    """Only there do conventions act on raw outputs alone: a second stage runs on decoded boxes."""
    if not detector.spec.head.one_stage:
        raise UsageError(
            f"--ablate-conventions is for one-stage detectors, and {detector.spec.name} is none; "
            "try single sets with --conventions NAME"
        )


def _check_ablation(
    checkpoints: list[Path], save: Path | None, more: bool, proposals: Path | None
) -> None:
    if len(checkpoints) > 1 or save is not None or more or proposals is not None:
        raise UsageError(
            "--ablate-conventions takes one checkpoint, without --save-detections, --draw, "
            "--per-class, --referee and --proposals"
        )


def _classes_of(data: CocoData, path: Path, count: int) -> tuple[str, ...]:
    """The data's classes in the order of their ids, for a file that does not name its own."""
    if len(data.classes) != count:
        raise CheckpointError(
            f"checkpoint '{path}' has {count} classes without names, and {data.annotations} has "
            f"{len(data.classes)}"
        )
    print(
        f"sepcbench: '{path}' does not name its classes; taken in the order of the data's ids",
        file=sys.stderr,
    )
    return data.classes


def _drawing(
    folder: Path | None, count: int, threshold: float, checkpoints: list[Path]
) -> Drawing | None:
    """Where the pictures go: a folder each, if there are several checkpoints.

    Raises:
        StoreError: a folder cannot be made, known before anything is computed.
    """
    if folder is None:
        return None
    alone = len(checkpoints) == 1
    folders = {
        path: folder if alone else folder / f"{i:02d}_{path.parent.name or path.stem}"
        for i, path in enumerate(checkpoints, start=1)
    }
    for made in folders.values():
        make_folder(made, "--draw")
    return Drawing(folders, count, threshold)


def _targets(given: Path | None, checkpoints: list[Path]) -> list[Path | None]:
    """Where the detections of each checkpoint go.

    Raises:
        UsageError: the place is not there, known before anything is computed.
    """
    if given is None:
        return [None] * len(checkpoints)
    if len(checkpoints) == 1 and not given.is_dir():
        if not given.resolve().parent.is_dir():
            raise UsageError(f"--save-detections '{given}': there is no such folder")
        return [given]
    if not given.is_dir():
        raise UsageError(
            f"--save-detections '{given}': several checkpoints need a folder that is there"
        )
    return [given / f"{i:02d}_{path.stem}.json" for i, path in enumerate(checkpoints, start=1)]


def _value(path: Path, records: list[Scored]) -> dict[str, Any]:
    """The first record's fields, and the masks' record inside."""
    first, *masks = records
    value = {"file": str(path), **encode(first)}
    return {**value, "masks": encode(masks[0])} if masks else value
