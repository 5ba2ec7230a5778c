"""Fixed proposals for rows that are trained on them, from the suite's own RPN."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from sepcbench.errors import UsageError
from sepcbench.locks import locked
from sepcbench.runner.scoring import detect, forget_images
from sepcbench.runner.sets import OTHER_WORK, WAIT_S, Sets, write
from sepcbench.runner.state import Run
from sepcbench.runner.training import Trainee, recipe_key, recipe_of, train
from sepcbench.specs import VariantSpec


def make_proposals(run: Run, spec: VariantSpec, sets: Sets) -> None:
    """See to it that a row that is trained on fixed proposals has those of the suite's RPN.

    Raises:
        UsageError: those of the scored images are given, and those of the training images are not.
    """
    rpn = run.suite.proposals
    if rpn is None or sets.train is None or "proposals" not in spec.head.needs:
        return
    if "train" in sets.proposals:
        return
    if sets.proposals:
        raise UsageError(
            "--proposals are of the scored images, and training needs some too; leave it out, "
            f"then {rpn.name} is trained to make them all"
        )
    sets.proposals.update(_own_proposals(run, rpn, sets))


def _own_proposals(run: Run, spec: VariantSpec, sets: Sets) -> Mapping[str, Path]:
    """Train the suite's RPN and write its proposals, unless they are there.

    They are the same for every seed of the rows: what differs from seed to seed is the row alone.
    """
    recipe = recipe_of(run)
    if recipe is None:
        raise UsageError(f"suite '{run.suite.name}' says not how to train {spec.name}; add [train]")
    key = recipe_key(run, spec, recipe, sets)
    folder = run.options.work / "proposals" / f"{spec.name}-{key}"
    files = {split: folder / f"{split}.json" for split in ("train", "val")}
    with locked(folder, OTHER_WORK, wait_s=WAIT_S):
        if all(path.is_file() for path in files.values()) and not run.options.fresh:
            return files
        trainee = Trainee(f"{spec.name} for proposals", spec, recipe, key)
        checkpoint = train(run, trainee, sets)
        for split, path in files.items():
            label = f"{spec.name}, proposals of {split}"
            write(path, json.dumps(detect(run, label, spec, checkpoint, sets, split)))
        forget_images(run, checkpoint)
    return files
