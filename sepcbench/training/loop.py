"""The training loop: real, small, resumable. The same recipe and seed give the same losses.

Bit for bit on a CPU with the same number of threads, also across an interruption.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from sepcbench import codec, detectors
from sepcbench.data.coco import CocoData, check_images
from sepcbench.data.loading import TrainingBatch, TrainingLoader
from sepcbench.data.needs import check_learnable
from sepcbench.data.proposals import Proposals
from sepcbench.detectors import Detector
from sepcbench.errors import Interrupted, TrainingError, UsageError
from sepcbench.locks import locked
from sepcbench.records import Training
from sepcbench.specs import Recipe, VariantSpec
from sepcbench.training.objectives import Target, check_trainable, loss
from sepcbench.training.schedule import build_optimizer, learning_rate, set_learning_rate
from sepcbench.whole_files import replacing, sweep

Progress = Callable[[int, int, str], None]
Save = Callable[[Path, Detector, Sequence[str], Training | None], None]

SAVE_EVERY = 100
# how many losses a training record keeps at most
_KEPT_LOSSES = 200
_STATE, _WEIGHTS = "state.pt", "last.safetensors"


@dataclass
class _Session:
    """A training run between two iterations."""

    detector: Detector
    optimizer: torch.optim.Optimizer
    recipe: Recipe
    data: CocoData
    proposals: Proposals | None
    device: str
    iteration: int
    losses: list[tuple[int, float]]

    def record(self) -> Training:
        step = -(-self.recipe.iterations // _KEPT_LOSSES)
        last = len(self.losses) - 1
        kept = (pair for i, pair in enumerate(self.losses) if i % step == 0 or i == last)
        return Training(
            variant=self.detector.spec.name,
            dataset=self.data.name,
            images=len(self.data.images),
            iterations=self.iteration,
            batch=self.recipe.batch,
            seed=self.recipe.seed,
            optimizer=self.recipe.optimizer,
            learning_rate=self.recipe.learning_rate,
            losses=tuple(kept),
        )


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
) -> tuple[Detector, Training]:
    """Train a variant on a set, from random weights.

    Args:
        spec: the variant; its number of classes becomes that of the set.
        data: the set, with its images.
        recipe: optimizer, schedule, batch, seed.
        proposals: of every image, for a variant that needs them.
        device: where to train.
        out: folder for `state.pt` (to resume) and `last.safetensors`, both written every
            `SAVE_EVERY` iterations and at the end.
        resume: go on from `state.pt` in `out`.
        progress: called with (iterations done, all iterations, loss).
        save: writes `last.safetensors`; without it only the state is kept.

    Returns:
        The detector in eval mode, and the record of the training.

    Raises:
        UsageError: nothing to resume, or it belongs to another variant or recipe; proposals are
            needed and not given, or given and not needed.
        DataError: an image is missing or corrupt, or the set has no masks to learn.
        TrainingError: the loss is not finite (the last checkpoint stays), or `out` cannot be
            written.
        StoreError: another process is training there.
    """
    check_trainable(spec.name, spec.head)
    check_learnable(spec, data, proposals)
    check_images(data)
    spec = replace(spec, num_classes=len(data.categories))
    gpus = [torch.device(device)] if device.startswith("cuda") else []
    with _alone(out), torch.random.fork_rng(devices=gpus):
        torch.manual_seed(recipe.seed)
        detector = detectors.build(spec).to(device)
        optimizer = build_optimizer(recipe, detector)
        session = _Session(detector, optimizer, recipe, data, proposals, device, 0, [])
        if resume:
            _restore(session, out)
        _run(session, out, progress, save)
    return session.detector.eval(), session.record()


def _run(session: _Session, out: Path | None, progress: Progress | None, save: Save | None) -> None:
    recipe, detector = session.recipe, session.detector
    loader = TrainingLoader(
        session.data,
        detector.spec.conventions,
        batch=recipe.batch,
        flip=recipe.flip,
        seed=recipe.seed,
        masks="masks" in detector.spec.head.needs,
        proposals=session.proposals,
    )
    detector.train()
    saved = session.iteration
    try:
        while session.iteration < recipe.iterations:
            value = _step(session, loader[session.iteration])
            session.iteration += 1
            session.losses.append((session.iteration, value))
            if progress:
                progress(session.iteration, recipe.iterations, f"loss {value:.3f}")
            if out is not None and session.iteration % SAVE_EVERY == 0:
                _keep(session, out, save)
                saved = session.iteration
    except KeyboardInterrupt:
        # not saved now: Ctrl-C may have come in the middle of a step
        kept = f"iteration {saved} is kept, --resume goes on there" if saved else "nothing is kept"
        raise Interrupted(
            f"training interrupted at iteration {session.iteration}; {kept}"
        ) from None
    if out is not None:
        _keep(session, out, save)


def _step(session: _Session, batch: TrainingBatch) -> float:
    """One forward, backward and update; the total loss."""
    recipe, detector, device = session.recipe, session.detector, session.device
    set_learning_rate(session.optimizer, learning_rate(recipe, session.iteration))
    outputs = detector(batch.images.to(device))
    losses = loss(detector, outputs, _targets(batch, device), batch.sizes)
    total = torch.stack(list(losses.values())).sum()
    session.optimizer.zero_grad(set_to_none=True)
    total.backward()
    parameters = [p for p in detector.parameters() if p.requires_grad]
    limit = recipe.clip_norm or float("inf")
    norm = torch.nn.utils.clip_grad_norm_(parameters, limit)
    value = float(total.detach())
    if not (torch.isfinite(total) and torch.isfinite(norm)):
        raise TrainingError(
            f"training {detector.spec.name}: the loss or its gradient is not finite at iteration "
            f"{session.iteration + 1} (loss {value}); the last checkpoint is kept, "
            "try a lower learning rate"
        )
    session.optimizer.step()
    return value


def _targets(batch: TrainingBatch, device: str) -> list[Target]:
    nothing = [None] * len(batch.boxes)
    masks, proposals = batch.masks or nothing, batch.proposals or nothing
    return [
        Target(
            boxes.to(device),
            labels.to(device),
            None if mask is None else mask.to(device),
            None if given is None else given.to(device),
        )
        for boxes, labels, mask, given in zip(batch.boxes, batch.labels, masks, proposals)
    ]


# --- state on disk -------------------------------------------------------------------------


@contextmanager
def _alone(out: Path | None) -> Iterator[None]:
    """Keep other processes out of the output folder, and clear what a killed one left there."""
    if out is None:
        yield
        return
    with locked(out, "choose another folder"):
        sweep(out)
        yield


def resumable(out: Path) -> bool:
    """Whether a folder has a training state that is whole."""
    try:
        _read_state(out)
    except UsageError:
        return False
    return True


def _keep(session: _Session, out: Path, save: Save | None) -> None:
    """Write the weights and what it takes to go on; each file appears whole or not at all."""
    state = {
        "detector": session.detector.state_dict(),
        "optimizer": session.optimizer.state_dict(),
        "iteration": session.iteration,
        "losses": session.losses,
        "identity": _identity(session),
        "rng": torch.get_rng_state(),
    }
    try:
        with replacing(out / _STATE) as part:
            torch.save(state, part)
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())[:200]
        raise TrainingError(f"cannot write the training state to '{out}': {reason}") from None
    # after the state, which they can be made from: weights without a state could not be resumed
    if save is not None:
        save(out / _WEIGHTS, session.detector, session.data.classes, session.record())


def _identity(session: _Session) -> dict[str, Any]:
    """What must be the same for a run to be resumed; the number of iterations may grow."""
    recipe = codec.encode(replace(session.recipe, iterations=1))
    return {
        "variant": codec.encode(session.detector.spec),
        "recipe": recipe,
        "data": [session.data.name, len(session.data.images)],
        "proposals": session.proposals and session.proposals.digest,
    }


def _restore(session: _Session, out: Path | None) -> None:
    state = _read_state(out)
    ours = _identity(session)
    for what in ours:
        if state["identity"].get(what) != ours[what]:
            raise UsageError(
                f"cannot resume in '{out}': its {what} is not the one asked for; "
                "use the same options or another --out"
            )
    try:
        session.detector.load_state_dict(state["detector"])
        session.optimizer.load_state_dict(state["optimizer"])
        session.iteration = int(state["iteration"])
        session.losses = [(int(i), float(v)) for i, v in state["losses"]]
        torch.set_rng_state(state["rng"].cpu())
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError):
        raise _damaged_state(out) from None


def _read_state(out: Path | None) -> dict[str, Any]:
    if out is None or not (out / _STATE).is_file():
        raise UsageError(f"nothing to resume: there is no {_STATE} in '{out}'; leave out --resume")
    try:
        state = torch.load(out / _STATE, map_location="cpu", weights_only=True)
    except Exception:  # the restricted unpickler fails in any way on a damaged file
        state = None
    if not isinstance(state, dict) or not isinstance(state.get("identity"), dict):
        raise _damaged_state(out)
    return state


def _damaged_state(out: Path | None) -> UsageError:
    where = out / _STATE if out else _STATE
    return UsageError(f"'{where}' is damaged; start again with --overwrite and without --resume")
