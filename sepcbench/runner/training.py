"""Trains rows for a run, in folders that suites share where they train the same."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from sepcbench import recipes
from sepcbench.errors import UsageError
from sepcbench.locks import locked
from sepcbench.records import Training
from sepcbench.runner.sets import OTHER_WORK, WAIT_S, Sets
from sepcbench.runner.state import Run, keep
from sepcbench.specs import Recipe, VariantSpec
from sepcbench.store import key_of
from sepcbench.suites import SuiteRow


@dataclass(frozen=True)
class Trainee:
    """One training of a run: a row with one seed, or the suite's RPN where `row` is None."""

    label: str
    spec: VariantSpec
    recipe: Recipe
    key: str
    row: SuiteRow | None = None
    kind: str = "training"

    def folder(self, run: Run) -> Path:
        """Where the checkpoint is, shared by all suites that train the same."""
        return run.options.work / "trained" / f"{self.spec.name}-{self.key}"


def recipe_of(run: Run, row: SuiteRow | None = None) -> Recipe | None:
    """How a row without a checkpoint, or the suite's RPN, is trained; None if it is not."""
    options, suite = run.options, run.suite.file
    trained = options.train if options.data is not None else suite.shapes is not None
    if not trained:
        return None
    chosen = options.recipe or (row.train if row else None) or suite.train
    if chosen is None and options.data is not None:
        chosen = recipes.load(recipes.OF_COCO)
    if not options.recipe_fields:
        return chosen
    return recipes.changed(chosen or Recipe(), options.recipe_fields)


def recipe_key(run: Run, spec: VariantSpec, recipe: Recipe | None, sets: Sets) -> str:
    """What a training depends on: suites share what is the same."""
    fixed = run.suite.proposals if "proposals" in spec.head.needs else None
    data: object = run.suite.file.shapes
    if not sets.made_here and sets.train is not None:
        data = sets.digest(sets.train.annotations)
    if recipe is not None and Path(recipe.pretrained).is_file():
        recipe = replace(recipe, pretrained=sets.digest(Path(recipe.pretrained)))
    parts = [replace(spec, name=""), data, recipe, run.device_kind]
    return key_of(*parts, *([] if fixed is None else [replace(fixed, name="")]))


def with_seed(recipe: Recipe | None, seed: int) -> Recipe | None:
    """The recipe of seed number `seed` of a run, counted from the recipe's own seed."""
    return None if recipe is None else replace(recipe, seed=recipe.seed + seed)


def train(run: Run, trainee: Trainee, sets: Sets) -> Path:
    """Train, going on from where an earlier run was stopped; the checkpoint."""
    from sepcbench.checkpoints import native
    from sepcbench.data.proposals import read_proposals
    from sepcbench.measures.training_score import evaluator
    from sepcbench.training.loop import train as run_training
    from sepcbench.training.state import resumable

    if sets.train is None:
        raise UsageError(f"'{trainee.label}' has no checkpoint; give --checkpoint ROW=FILE")
    out, device = trainee.folder(run), run.options.device
    fixed = sets.fixed(trainee.spec, "train")
    # after every epoch of those that count in epochs, where no proposals would have to be read too
    scored = trainee.recipe.epochs and fixed is None
    title = f"{run.suite.name}: train {trainee.label}"
    shared = locked(out, OTHER_WORK, name=".row.lock", wait_s=WAIT_S)
    with shared, run.bar(title) as progress:
        _, record = run_training(
            trainee.spec,
            sets.train,
            trainee.recipe,
            proposals=None if fixed is None else read_proposals(fixed, sets.train),
            device=device,
            out=out,
            resume=not run.options.fresh and resumable(out),
            progress=progress,
            save=native.save,
            workers=run.options.workers,
            evaluate=evaluator(sets.val, device, run.options.workers) if scored else None,
            evaluate_epochs=1,
        )
    if trainee.row is not None and not _has_training(run, trainee, record):
        keep(run, trainee.row, trainee.kind, trainee.key, record)
    return out / "last.safetensors"


def _has_training(run: Run, trainee: Trainee, record: Training) -> bool:
    """Whether an earlier run stored this training and was stopped before its score."""
    name = trainee.row.name if trainee.row else ""
    if not run.store.done(name, trainee.kind, trainee.key):
        return False
    stored = run.store.read(name, trainee.kind)
    return stored is not None and stored.record == record
