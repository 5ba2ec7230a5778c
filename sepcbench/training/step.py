"""One iteration: forward and backward passes over its micro-batches, and one step."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from sepcbench.data.training_loader import TrainingBatch
from sepcbench.detectors import Detector
from sepcbench.errors import TrainingError
from sepcbench.processes import all_sum_, job
from sepcbench.specs import Recipe
from sepcbench.training.objectives import Target, loss
from sepcbench.training.schedule import learning_rate, set_learning_rate
from sepcbench.training.session import Session

# A loss this many times the first one (or 1, if that is more) is no noise: the classification
# losses of a head start near their value at random, a few units, and no batch has the thousands of
# times more objects, or the errors of thousands of standard deviations, that it would take.
EXPLODED = 1e4
# Steps in a row that float16 may skip while its scaler, which halves each time, finds its scale
# (from 2^16): more than that many halvings and gradients would be lost below.
MOST_SKIPPED = 24

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Values(NamedTuple):
    """The losses of an iteration, means over its passes and all processes."""

    total: float
    parts: dict[str, float]


class Learner(nn.Module):
    """A detector and its objective in one module: images and targets in, losses out.

    One module, because DistributedDataParallel has to see all that parameters are used for. In
    half precision only the networks run so; the objectives are computed in float32, except that
    those of two stages run networks of their own.
    """

    def __init__(self, detector: Detector, recipe: Recipe) -> None:
        super().__init__()
        self.detector, self.recipe = detector, recipe

    def forward(
        self, images: Tensor, targets: list[Target], sizes: list[tuple[int, int]]
    ) -> dict[str, Tensor]:
        with self._autocast(images):
            outputs = self.detector(images)
        within: Any = nullcontext()
        if not self.detector.spec.head.one_stage:
            within = self._autocast(images)
        with within:
            losses = loss(self.detector, outputs, targets, sizes)
        return losses if job().world == 1 else _linked(losses, outputs)

    def _autocast(self, images: Tensor) -> AbstractContextManager[object]:
        if self.recipe.amp == "none":
            return nullcontext()
        return torch.autocast(images.device.type, dtype=_DTYPES[self.recipe.amp])


class _Linked(torch.autograd.Function):
    """A loss as it is, with gradients of zero for tensors that it may not depend on."""

    @staticmethod
    def forward(context: Any, value: Tensor, *others: Tensor) -> Tensor:
        context.save_for_backward(*others)
        return value.clone()

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, ...]:
        return gradient, *(torch.zeros_like(other) for other in context.saved_tensors)


def _linked(losses: dict[str, Tensor], outputs: object) -> dict[str, Tensor]:
    """Let the losses depend on all outputs, also where this process has no object to learn.

    Each process then runs the same backward pass: norms that talk to the others in theirs would
    wait forever for one that leaves them out.
    """
    name, value = next(iter(losses.items()))
    others = [one for one in _tensors(outputs) if one.requires_grad]
    return {**losses, name: _Linked.apply(value, *others)}


def _tensors(nested: object) -> Iterator[Tensor]:
    if isinstance(nested, Tensor):
        yield nested
    elif isinstance(nested, (tuple, list)):
        for item in nested:
            yield from _tensors(item)


def step(session: Session, batches: Sequence[TrainingBatch]) -> Values:
    """Learn from this process's micro-batches of one iteration.

    The gradients of several micro-batches are added up and divided by their number, as those of
    several processes are: each has the mean of its own losses.

    Raises:
        TrainingError: the loss is not finite or has exploded; the weights are then as before.
    """
    set_learning_rate(session.optimizer, learning_rate(session.recipe, session.iteration))
    session.optimizer.zero_grad(set_to_none=True)
    found = []
    for i, batch in enumerate(batches):
        last = i + 1 == len(batches)
        with nullcontext() if last else _held_back(session.model), _sound(session):
            found.append(_pass(session, batch, len(batches)))
    norm = _clip(session)
    values = _means(found)
    _check(session, values, norm)
    if session.scaler is None:
        session.optimizer.step()
    else:
        session.scaler.step(session.optimizer)
        session.scaler.update()
    return values


def _pass(session: Session, batch: TrainingBatch, count: int) -> dict[str, Tensor]:
    """Forward and backward of one micro-batch of so many; its losses, without gradients."""
    images = batch.images.to(session.device)
    if session.recipe.channels_last:
        images = images.contiguous(memory_format=torch.channels_last)
    losses = session.model(images, targets_of(batch, session.device), batch.sizes)
    total = torch.stack(list(losses.values())).sum()
    total = total if count == 1 else total / count
    (total if session.scaler is None else session.scaler.scale(total)).backward()
    return {name: value.detach() for name, value in losses.items()}


@contextmanager
def _sound(session: Session) -> Iterator[None]:
    """Without oneDNN in half precision on a CPU.

    Its gradients of the weights of convs of stride 2 onto maps of one cell are at times whatever
    memory holds (seen with torch 2.15), which clipping would turn into a step in no direction.
    """
    if session.recipe.amp == "none" or not session.device.startswith("cpu"):
        yield
        return
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="TF32 acceleration on top of oneDNN")
        with torch.backends.mkldnn.flags(enabled=False):
            yield


def _held_back(model: nn.Module) -> AbstractContextManager[None]:
    """Leave gradients in this process: only those of the last micro-batch are sent, with all."""
    held = getattr(model, "no_sync", nullcontext)
    return held()  # type: ignore[no-any-return]


def _clip(session: Session) -> float:
    """Clip the gradients as the recipe says; their norm before that."""
    if session.scaler is not None:
        session.scaler.unscale_(session.optimizer)
    parameters = [p for p in session.detector.parameters() if p.requires_grad]
    limit = session.recipe.clip_norm or float("inf")
    return float(torch.nn.utils.clip_grad_norm_(parameters, limit))


def _means(found: Sequence[dict[str, Tensor]]) -> Values:
    """The mean of each loss over passes and processes."""
    rows = torch.stack([torch.stack(list(losses.values())) for losses in found])
    totals = rows.sum(dim=1, keepdim=True)
    means = torch.cat([totals, rows], dim=1).mean(dim=0)
    total, *parts = (all_sum_(means) / job().world).tolist()
    return Values(total, dict(zip(found[0], parts)))


def _check(session: Session, values: Values, norm: float) -> None:
    name, number, value = session.detector.spec.name, session.iteration + 1, values.total
    after = "the last checkpoint is kept, try a lower learning rate"
    skips = session.scaler is not None and not math.isfinite(norm)
    session.skipped = session.skipped + 1 if skips else 0
    lost = not skips and not math.isfinite(norm)
    if lost or session.skipped > MOST_SKIPPED or not math.isfinite(value):
        raise TrainingError(
            f"training {name}: the loss or its gradient is not finite at iteration {number} "
            f"(loss {value}); {after}"
        )
    first = session.losses[0][1] if session.losses else value
    if value > EXPLODED * max(1.0, first):
        raise TrainingError(
            f"training {name}: the loss has exploded at iteration {number} (loss {value:.3g}, at "
            f"first {first:.3g}); {after}"
        )


def targets_of(batch: TrainingBatch, device: str) -> list[Target]:
    """What a batch wants detected, on a device."""
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
