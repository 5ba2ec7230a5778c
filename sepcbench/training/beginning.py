"""What a training begins with: checked inputs, a detector, an optimizer; or an earlier state."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from sepcbench import detectors
from sepcbench.data.coco import CocoData, check_images
from sepcbench.data.needs import check_learnable
from sepcbench.data.proposals import Proposals
from sepcbench.data.training_loader import TrainingBatch, TrainingLoader
from sepcbench.errors import DataError
from sepcbench.ops.modes import has_training_norm
from sepcbench.ops.synced_norm import synchronised
from sepcbench.processes import Job, announced, gathered, share_weights
from sepcbench.specs import Recipe, VariantSpec
from sepcbench.training import randomness, state
from sepcbench.training.objectives import check_trainable
from sepcbench.training.pretrained import digest, load_backbone
from sepcbench.training.schedule import build_optimizer
from sepcbench.training.session import Session
from sepcbench.training.step import Learner, targets_of


def check(
    spec: VariantSpec, data: CocoData, recipe: Recipe, proposals: Proposals | None
) -> CocoData:
    """Check what is given before anything is computed; the images to learn from.

    Raises:
        UsageError: the parts do not fit each other.
        DataError: the set cannot be learnt from.
    """
    check_trainable(spec.name, spec.head)
    check_learnable(spec, data, proposals)
    recipe.share(announced().world)
    data = learnable(data, recipe)
    if announced().leads:  # the others would ask the same disk for the same files
        check_images(data)
    return data


def learnable(data: CocoData, recipe: Recipe) -> CocoData:
    """The set without images that have nothing to learn, if the recipe skips those.

    Raises:
        DataError: then there are none.
    """
    if not recipe.skip_empty:
        return data
    kept = data.with_objects()
    if not kept.images:
        raise DataError(f"{data.annotations}: no image has an object, and the recipe skips those")
    return kept


@contextmanager
def begin(
    spec: VariantSpec,
    data: CocoData,
    recipe: Recipe,
    proposals: Proposals | None,
    device: str,
    job: Job,
    resume: tuple[bool, Path | None],
    say: Callable[[str], None] | None,
) -> Iterator[Session]:
    """A session at its first iteration, or where the state in a folder was kept (`resume`)."""
    going_on, folder = resume
    detector = detectors.build(spec).train()
    if has_training_norm([*detector.necks, detector.head]):
        recipe = _with_passes(recipe, job, say)
    if recipe.pretrained and not going_on and job.leads:
        line = load_backbone(detector, recipe.pretrained)
        if say:
            say(line)
    detector = detector.to(device)
    if recipe.channels_last:
        detector = detector.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    scaler = torch.amp.GradScaler(torch.device(device).type) if recipe.amp == "fp16" else None
    optimizer = build_optimizer(recipe, detector)
    learner = Learner(detector, recipe)
    session = Session(detector, learner, optimizer, scaler, recipe, data, proposals, device, job)
    session.weights = digest(recipe.pretrained)
    # every process draws its own: of candidates to sample, for one
    if job.rank:
        randomness.reseed(recipe.seed + job.rank * 1_000_003)
    if going_on:
        line = state.restore(session, folder)
        if line and say and job.leads:
            say(line)
    if job.world > 1:
        session.model = _distributed(learner, loader_of(session, 0)[0], device)
    with synchronised(detector, recipe.sync_norm):
        yield session


def _with_passes(recipe: Recipe, job: Job, say: Callable[[str], None] | None) -> Recipe:
    """The recipe with as many passes as norms need, and a line on what they see."""
    wanted, recipe = recipe.images_per_pass, recipe.for_norms(job.world)
    images = recipe.share(job.world)
    if say is None or not job.leads or not wanted or recipe.sync_norm:
        return recipe
    line = f"norms train on {images} images at a time (accumulate {recipe.accumulate})"
    fewer = f", fewer than the recipe's {wanted}; use fewer processes or --recipe sync_norm=true"
    say(line + (fewer if images < wanted else ""))
    return recipe


def _distributed(learner: nn.Module, batch: TrainingBatch, device: str) -> nn.Module:
    """The learner as one of several processes; weights and buffers become those of the first.

    A variant may have parameters without gradients, such as those of maps that no head reads. A
    first pass tells: only then are they looked for in every iteration, a walk through the graph.
    Buffers are the first process's before every iteration: what it keeps is what all go on from.
    """
    share_weights(learner)  # random ones of a frozen backbone may give no numbers at all
    some = any(gathered(_without_gradient(learner, batch, device)))
    return DistributedDataParallel(
        learner, find_unused_parameters=some, gradient_as_bucket_view=True
    )


def _without_gradient(learner: nn.Module, batch: TrainingBatch, device: str) -> bool:
    """Whether a trainable parameter has no gradient; learner and generators stay as they are."""
    generators = randomness.state(device)
    before = {name: buffer.clone() for name, buffer in learner.named_buffers()}
    losses = learner.train()(batch.images.to(device), targets_of(batch, device), batch.sizes)
    torch.stack(list(losses.values())).sum().backward()
    found = any(p.requires_grad and p.grad is None for p in learner.parameters())
    learner.zero_grad(set_to_none=True)
    for name, buffer in learner.named_buffers():
        buffer.copy_(before[name])
    randomness.restore(generators, device)
    return found


def loader_of(session: Session, workers: int) -> TrainingLoader:
    """The images of a session, this process's part."""
    recipe, spec = session.recipe, session.detector.spec
    return TrainingLoader(
        session.data,
        spec.conventions,
        batch=recipe.share(session.job.world),
        flip=recipe.flip,
        seed=recipe.seed,
        masks="masks" in spec.head.needs,
        proposals=session.proposals,
        rank=session.job.rank,
        world=session.job.world,
        group_by_aspect=recipe.group_by_aspect,
        short_sides=recipe.short_sides,
        workers=workers,
        device=session.device,
    )
