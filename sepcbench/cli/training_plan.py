"""What `sepcbench train` is asked to do, read from its options."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sepcbench import recipes
from sepcbench.cli import options
from sepcbench.errors import UsageError
from sepcbench.specs import Recipe

if TYPE_CHECKING:
    from sepcbench.data.coco import CocoData
    from sepcbench.detectors import Detector

_EVERY = re.compile(r"(\d+(?:\.\d+)?)\s*(e|epoch|epochs)?\Z")


def parse_recipe(given: list[str] | None, chosen: dict[str, Any]) -> Recipe:
    """The recipe that `--recipe` names, with its `--recipe FIELD=VALUE` and other options set.

    Args:
        given: names, files and FIELD=VALUE; one name at most.
        chosen: recipe field to value; None is not given.

    Raises:
        UsageError: an unknown name, field or value.
    """
    named = [text for text in given or () if "=" not in text]
    if len(named) > 1:
        raise UsageError(f"--recipe takes one name or file, not both '{named[0]}' and '{named[1]}'")
    fields: dict[str, Any] = {recipes.KEY: named[0]} if named else {}
    pairs = [text for text in given or () if "=" in text]
    fields |= options.parse_pairs("--recipe", "NAME, FILE or FIELD=VALUE", pairs)
    fields |= {name: value for name, value in chosen.items() if value is not None}
    return recipes.made(fields)


def with_length(plan: Recipe, epochs: float | None, iterations: int | None, images: int) -> Recipe:
    """The recipe for a set of so many images, as long as `--epochs` says, if it does."""
    if epochs is None:
        return plan.for_images(images)
    if iterations is not None:
        raise UsageError("give --iterations or --epochs, not both")
    if not 0 < epochs < float("inf"):
        raise UsageError(f"--epochs {epochs} is not a number above 0")
    return replace(plan, epochs=epochs).for_images(images)


def every(text: str, images: int, batch: int) -> int:
    """The iterations that `--evaluate-every` says: their number, or that of epochs ("2 epochs").

    Raises:
        UsageError: it is neither.
    """
    match = _EVERY.match(text.strip())
    if match is None or float(match[1]) <= 0 or (not match[2] and "." in match[1]):
        raise UsageError(
            f"--evaluate-every '{text}' is not a number of iterations, such as 500, or of epochs, "
            "such as '1 epoch'"
        )
    number = float(match[1])
    return max(1, round(number * images / batch)) if match[2] else int(number)


def evaluator(data: CocoData, device: str, workers: int) -> Callable[[Detector], float | None]:
    """What scores a detector while it trains: AP of its boxes, AR at 1000 of proposals.

    Every process takes its share of the images; the first one scores, the others give None.
    """
    from sepcbench import processes
    from sepcbench.measures.accuracy import detect_all
    from sepcbench.measures.scoring import scores
    from sepcbench.records import Accuracy, Recall

    def evaluate(detector: Detector) -> float | None:
        job, place = processes.job(), processes.own_device(device)
        share = replace(data, images=data.images[job.rank :: job.world])
        mine = (
            detect_all(detector, share, data.classes, device=place, workers=workers)
            if share.images
            else []
        )
        found = [entry for part in processes.gathered(mine) for entry in part]
        if not job.leads:
            return None
        record = next(iter(scores(data, found, detector.spec).values()))
        if isinstance(record, Accuracy):
            return record.ap
        return record.ar1000 if isinstance(record, Recall) else None

    return evaluate


def check_free(out: Path) -> None:
    """Hours of training must not be lost to a repeated command.

    Raises:
        UsageError: there is a checkpoint in `out`, or a state to make one from.
    """
    if any((out / name).exists() for name in ("last.safetensors", "state.pt")):
        raise UsageError(
            f"'{out}' holds a checkpoint already; --resume goes on with it, --overwrite replaces "
            "it, or choose another --out"
        )
