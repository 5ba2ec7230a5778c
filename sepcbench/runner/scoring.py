"""Runs the checkpoint of a row over a set, and scores what it found."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from sepcbench.records import Record
from sepcbench.runner.sets import Sets
from sepcbench.runner.state import Run
from sepcbench.specs import HeadSpec, VariantSpec
from sepcbench.specs.test_time import TestTime
from sepcbench.suites import SuiteRow


def kinds(head: HeadSpec) -> tuple[str, ...]:
    """The kinds of records that scoring a head gives."""
    if head.gives_proposals:
        return ("recall",)
    return ("accuracy", "masks") if "masks" in head.needs else ("accuracy",)


def score(run: Run, label: str, row: SuiteRow, path: Path, sets: Sets) -> Mapping[str, Record]:
    """Score a checkpoint on the split val, with the row's test-time options; records by kind."""
    from sepcbench.checkpoints import native
    from sepcbench.measures.scoring import scores

    spec, passes = row.spec, row.test_time
    found = detect(run, label, spec, path, sets, "val", passes)
    return scores(
        sets.val,
        found,
        spec,
        native.digest(path),
        referee=run.options.referee,
        test_time="" if passes is None else str(passes),
    )


def finished_images(run: Run, checkpoint: Path) -> Path:
    """Where what a checkpoint found is kept until it is scored, so that a rerun continues."""
    from sepcbench.checkpoints import native

    return run.options.work / "detections" / native.digest(checkpoint)


def forget_images(run: Run, checkpoint: Path) -> None:
    """Remove what `finished_images` holds, once it is in a record or a file."""
    shutil.rmtree(finished_images(run, checkpoint), ignore_errors=True)


def detect(
    run: Run,
    label: str,
    spec: VariantSpec,
    path: Path,
    sets: Sets,
    split: str,
    test_time: TestTime | None = None,
) -> list[dict[str, Any]]:
    """Run a checkpoint over a split; COCO entries."""
    from sepcbench.checkpoints import loading
    from sepcbench.checkpoints.matching import Wishes
    from sepcbench.data.proposals import read_proposals
    from sepcbench.measures.accuracy import detect_all

    images = sets.val if split == "val" or sets.train is None else sets.train
    loaded = loading.load(path, Wishes(replace(spec, num_classes=len(images.categories))))
    fixed = sets.fixed(spec, split)
    with run.bar(f"{run.suite.name}: score {label}") as progress:
        return detect_all(
            loaded.detector,
            images,
            loaded.classes or images.classes,
            proposals=None if fixed is None else read_proposals(fixed, images),
            device=run.options.device,
            progress=progress,
            workers=run.options.workers,
            keep=finished_images(run, path),
            test_time=test_time,
            levels=split == "val" and spec.head.one_stage,
        )
