"""What it takes to go on with a training, on disk: written whole, checked when it is read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from sepcbench import codec
from sepcbench.detectors import Detector
from sepcbench.errors import TrainingError, UsageError
from sepcbench.locks import locked
from sepcbench.processes import announced, gathered
from sepcbench.records import Training
from sepcbench.specs import Recipe
from sepcbench.training import randomness
from sepcbench.training.session import Session
from sepcbench.whole_files import replacing, sweep

Save = Callable[[Path, Detector, Sequence[str], Training | None], None]

# what older states do not have
_LATER = ("annotations", "pretrained file")
STATE, LAST, BEST = "state.pt", "last.safetensors", "best.safetensors"


@contextmanager
def alone(out: Path | None) -> Iterator[None]:
    """Keep other jobs out of the output folder, and clear what a killed one left there."""
    if out is None or not announced().leads:
        yield
        return
    with locked(out, "choose another folder"):
        sweep(out)
        yield


def keep(session: Session, out: Path, save: Save | None) -> None:
    """Write the weights and what it takes to go on; each file appears whole or not at all.

    All processes take part, the first one writes and the others wait for it.

    Raises:
        TrainingError: the folder does not take them.
    """
    generators = gathered(randomness.state(session.device))
    if session.job.leads:
        _write(_contents(session, generators), out)
        # after the state, which they can be made from: weights without one could not be resumed
        if save is not None:
            save(out / LAST, session.detector, session.data.classes, session.record())
    gathered(None)
    session.kept = session.iteration


def _write(contents: dict[str, Any], out: Path) -> None:
    try:
        with replacing(out / STATE) as part:
            torch.save(contents, part)
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())[:200]
        raise TrainingError(f"cannot write the training state to '{out}': {reason}") from None


def _contents(session: Session, generators: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "detector": session.detector.state_dict(),
        "optimizer": session.optimizer.state_dict(),
        "scaler": session.scaler and session.scaler.state_dict(),
        "skipped": session.skipped,
        "iteration": session.iteration,
        "iterations": session.recipe.iterations,
        "losses": session.losses,
        "scores": session.scores,
        "meter": session.meter.totals(),
        "identity": _identity(session),
        "generators": generators,
    }


def _identity(session: Session) -> dict[str, Any]:
    """What must be the same for a run to be resumed; the number of iterations may grow."""
    return {
        "variant": codec.encode(session.detector.spec),
        "recipe": _lasting(session.recipe),
        "data": [session.data.name, len(session.data.images)],
        "annotations": session.data.digest,
        "pretrained file": session.weights,
        "proposals": session.proposals and session.proposals.digest,
        "number of processes": session.job.world,
    }


def _lasting(recipe: Recipe) -> dict[str, Any]:
    """The recipe without its length; fields that are new must not make older states stale."""
    return codec.encode(replace(recipe, iterations=1), sparse=True)  # type: ignore[no-any-return]


def restore(session: Session, out: Path | None) -> str:
    """Put a session to where the state in a folder was kept.

    Returns:
        A line to say where the training is longer or shorter than it was to be; else nothing.

    Raises:
        UsageError: there is none, it is damaged, of another variant, recipe, set or number of
            processes, or further than the training is to go.
    """
    state = read(out)
    kept = state["identity"]
    # the file may be gone, which a run that goes on does not need
    session.weights = session.weights or kept.get("pretrained file")
    ours = _identity(session)
    for what in ours:
        if kept.get(what) != ours[what] and (what in kept or what not in _LATER):
            raise UsageError(
                f"cannot resume in '{out}': its {what} is not the one asked for; "
                "use the same options or another --out"
            )
    try:
        session.detector.load_state_dict(state["detector"])
        session.optimizer.load_state_dict(state["optimizer"])
        if session.scaler is not None:
            session.scaler.load_state_dict(state["scaler"])
        session.skipped = int(state["skipped"])
        session.iteration = session.kept = int(state["iteration"])
        session.losses = [(int(i), float(v)) for i, v in state["losses"]]
        session.scores = [(int(i), float(v)) for i, v in state["scores"]]
        session.meter.go_on(state["meter"])
        randomness.restore(state["generators"][session.job.rank], session.device)
        planned = int(state.get("iterations", session.recipe.iterations))
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError):
        raise _damaged(out) from None
    return _other_length(session, planned, out)


def _other_length(session: Session, planned: int, out: Path | None) -> str:
    asked, done = session.recipe.iterations, session.iteration
    if done > asked:
        raise UsageError(
            f"cannot resume in '{out}': {done} iterations are done, and {asked} asked for; ask for "
            "more or for another --out"
        )
    if asked == planned:
        return ""
    line = f"goes on to {asked} iterations; it was begun for {planned}"
    if session.recipe.decay_at:
        line += ", so its learning rate falls at other places than in one training of this length"
    return line


def resumable(out: Path) -> bool:
    """Whether a folder has a training state that is whole."""
    try:
        read(out)
    except UsageError:
        return False
    return True


def read(out: Path | None) -> dict[str, Any]:
    """The state in a folder.

    Raises:
        UsageError: there is none, or it is damaged.
    """
    if out is None or not (out / STATE).is_file():
        raise UsageError(f"nothing to resume: there is no {STATE} in '{out}'; leave out --resume")
    try:
        state = torch.load(out / STATE, map_location="cpu", weights_only=True)
    except Exception:  # the restricted unpickler fails in any way on a damaged file
        state = None
    if not isinstance(state, dict) or not isinstance(state.get("identity"), dict):
        raise _damaged(out)
    return state


def _damaged(out: Path | None) -> UsageError:
    where = out / STATE if out else STATE
    return UsageError(f"'{where}' is damaged; start again with --overwrite and without --resume")
