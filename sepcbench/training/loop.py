"""The training loop: real and resumable, in one process or many.

The same recipe and seed give the same losses, bit for bit on a CPU with the same number of threads
and processes, also across an interruption.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from sepcbench import processes
from sepcbench.data.coco import CocoData
from sepcbench.data.proposals import Proposals
from sepcbench.data.training_loader import TrainingBatch, TrainingLoader
from sepcbench.detectors import Detector
from sepcbench.errors import Interrupted, TrainingError
from sepcbench.records import Training
from sepcbench.specs import Recipe, VariantSpec
from sepcbench.training import randomness
from sepcbench.training.beginning import begin, check, loader_of
from sepcbench.training.session import Session
from sepcbench.training.state import BEST, Save, alone, keep
from sepcbench.training.state import resumable as resumable
from sepcbench.training.step import Values, step
from sepcbench.training.stopping import patiently
from sepcbench.training.watching import Log, Progress, label, logged

Evaluate = Callable[[Detector], float | None]

# A state is kept when so many seconds have passed since the last; that of small weights also after
# every so many iterations (a ResNet-50's state and weights are 450 MB)
SAVE_SECONDS, SAVE_EVERY, SMALL_BYTES = 300.0, 100, 16 << 20
LOG_EVERY = 10


@dataclass(frozen=True)
class _Around:
    """What happens around the iterations, and where it goes; see `train`."""

    out: Path | None
    save: Save | None
    progress: Progress | None
    evaluate: Evaluate | None
    evaluate_every: float
    log: Log | None


def train(
    spec: VariantSpec,
    data: CocoData,
    recipe: Recipe,
    *,
    proposals: Proposals | None = None,
    device: str = "cpu",
    out: Path | None = None,
    resume: bool = False,
    progress: Progress | None = None,
    save: Save | None = None,
    workers: int = 0,
    evaluate: Evaluate | None = None,
    evaluate_every: float = 0,
    evaluate_epochs: float = 0,
    log: Log | None = None,
    say: Callable[[str], None] | None = None,
) -> tuple[Detector, Training]:
    """Train a variant on a set, from random weights or those that the recipe names.

    Under `torchrun` the processes train together; the first writes, shows and logs for all.

    Args:
        spec: the variant; its number of classes becomes that of the set.
        data: the set, with its images.
        recipe: optimizer, schedule, batch, seed.
        proposals: of every image, for a variant that needs them.
        device: where to train; "cuda" is the GPU of this process's number on its machine.
        out: folder for `state.pt` (to resume) and `last.safetensors`, both written every
            `SAVE_SECONDS`, for small weights every `SAVE_EVERY` iterations too, and at the end;
            and `best.safetensors`.
        resume: go on from `state.pt` in `out`.
        progress: called with (iterations done, all iterations, losses and speed).
        save: writes `last.safetensors`; without it only the state is kept.
        workers: threads that load images, per process that trains.
        evaluate: scores the detector, higher is better, in every process; that with the best score
            of the first process is kept in `best.safetensors`.
        evaluate_every: iterations between two evaluations; 0 evaluates at the end only.
        evaluate_epochs: the same in passes over the images to learn from; 0 for `evaluate_every`.
        log: called with an iteration and named values, every `LOG_EVERY` iterations.
        say: called with a line on what the backbone's weights are, or what norms see.

    Returns:
        The detector in eval mode, and the record of the training.

    Raises:
        UsageError: nothing to resume, or it belongs to another variant or recipe; proposals are
            needed and not given, or given and not needed; the batch does not divide among the
            processes; there are no such weights to start from.
        DataError: an image is missing or corrupt, or the set has no masks to learn.
        CheckpointError: weights to start from cannot be read or do not fit.
        TrainingError: the loss is not finite or explodes (the last checkpoint stays), `out` cannot
            be written, or another process died.
        StoreError: another process is training there.
    """
    data = check(spec, data, recipe, proposals)
    spec = replace(spec, num_classes=len(data.categories))
    recipe = recipe.for_images(len(data.images))
    device = processes.own_device(device)
    every = evaluate_epochs * len(data.images) / recipe.batch or evaluate_every
    around = _Around(out, save, progress, evaluate, every, log)
    with (
        alone(out),
        processes.joined(device) as job,
        randomness.seeded(recipe.seed, device),
        begin(spec, data, recipe, proposals, device, job, (resume, out), say) as s,
    ):
        _run(s, loader_of(s, workers), around)
        return s.detector.eval(), replace(s.record(), speed=s.meter.speed(device))


def _run(session: Session, loader: TrainingLoader, around: _Around) -> None:
    """Iterate to the end, keeping states on the way; where it is cut short say what is kept."""
    try:
        _iterate_all(session, loader, around)
        if around.out is not None:
            keep(session, around.out, around.save)
    except KeyboardInterrupt:
        # not saved now: a second Ctrl-C may have come in the middle of a step
        raise Interrupted(
            f"training interrupted at iteration {session.iteration}; {_kept(session)}"
        ) from None
    except RuntimeError as error:
        if not processes.lost_another(error):
            raise
        raise TrainingError(
            f"another process of this training died at iteration {session.iteration + 1}; "
            f"{_kept(session)}"
        ) from None


def _kept(session: Session) -> str:
    at = session.kept
    return f"iteration {at} is kept, --resume goes on there" if at else "nothing is kept"


def _iterate_all(session: Session, loader: TrainingLoader, around: _Around) -> None:
    recipe, since = session.recipe, time.monotonic()
    session.model.train()
    with (
        closing(loader.stream(session.iteration * recipe.accumulate)) as stream,
        patiently(session.job.world) as stopped,
    ):
        while session.iteration < recipe.iterations:
            values = _iterate(session, stream)
            _show(session, values, around)
            scored = _evaluate(session, around)
            if around.out is not None and (_due(session, since) or scored or stopped()):
                keep(session, around.out, around.save)
                since = time.monotonic()
            if stopped() and session.iteration < recipe.iterations:
                raise KeyboardInterrupt


def _iterate(session: Session, stream: Iterator[TrainingBatch]) -> Values:
    session.meter.start()
    batches = list(session.meter.waiting(islice(stream, session.recipe.accumulate)))
    values = step(session, batches)
    session.meter.stop(session.recipe.batch)
    session.iteration += 1
    session.losses.append((session.iteration, values.total))
    return values


def _due(session: Session, since: float) -> bool:
    """Whether to keep a state now; the clock of the first process decides for all."""
    if session.iteration % SAVE_EVERY == 0 and _small(session):
        return True
    late = time.monotonic() - since > SAVE_SECONDS
    # asked rarely: it makes all processes wait for each other
    return session.iteration % LOG_EVERY == 0 and bool(processes.of_leader(late))


def _small(session: Session) -> bool:
    detector = session.detector
    return sum(t.nbytes for t in [*detector.parameters(), *detector.buffers()]) <= SMALL_BYTES


def _show(session: Session, values: Values, around: _Around) -> None:
    if not session.job.leads:
        return
    total = session.recipe.iterations
    if around.progress:
        around.progress(session.iteration, total, label(session, values))
    if around.log and (session.iteration % LOG_EVERY == 0 or session.iteration == total):
        around.log(session.iteration, logged(session, values))


def due(iteration: int, every: float, total: int) -> bool:
    """Whether to evaluate after an iteration: after each `every`, which may be a fraction, rounded.

    After the last one of all too, and then not a tenth of `every` or less before it. Epochs are
    parts of the whole, whose last iteration is rounded too.
    """
    if iteration == total:
        return True
    parts = round(total / every) if every else 0
    if parts and abs(parts * every - total) < 1:
        every = total / parts
    count = round(iteration / every) if every else 0
    return count > 0 and iteration == round(count * every) and total - iteration > every / 10


def _evaluate(session: Session, around: _Around) -> bool:
    """Score the detector if it is time to, and keep it if it is the best; whether it was."""
    recipe = session.recipe
    if around.evaluate is None or not due(
        session.iteration, around.evaluate_every, recipe.iterations
    ):
        return False
    processes.share_buffers(session.detector)
    generators = randomness.state(session.device)
    session.model.eval()
    score = processes.of_leader(around.evaluate(session.detector))
    session.model.train()
    randomness.restore(generators, session.device)
    if score is None:
        return True
    best = session.best
    session.scores.append((session.iteration, float(score)))
    if session.job.leads and around.out and around.save and (best is None or score > best):
        around.save(around.out / BEST, session.detector, session.data.classes, session.record())
    if session.job.leads and around.log:
        around.log(session.iteration, {"score": float(score)})
    return True
