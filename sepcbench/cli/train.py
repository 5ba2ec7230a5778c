"""`sepcbench train`: one variant, on one data set, to a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sepcbench.cli import options
from sepcbench.codec import coerce, encode, fields_of
from sepcbench.errors import UsageError, unknown
from sepcbench.report.table import Table
from sepcbench.specs import Recipe

if TYPE_CHECKING:
    from sepcbench.records import Training


def train(
    name: Annotated[
        str,
        typer.Argument(
            metavar="VARIANT", help="A named variant.", autocompletion=options.complete_variant
        ),
    ],
    data: Annotated[Path | None, typer.Option("--data", help="Data folder in COCO layout.")] = None,
    out: Annotated[Path, typer.Option("--out", help="Folder for the checkpoint.")] = Path("runs"),
    iterations: Annotated[int | None, typer.Option(help="Length of the training.", min=1)] = None,
    epochs: Annotated[float | None, typer.Option(help="Length in passes over the data.")] = None,
    batch: Annotated[int | None, typer.Option(help="Images per iteration.", min=1)] = None,
    lr: Annotated[float | None, typer.Option("--lr", help="Learning rate.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of weights, order and flips.", min=0)] = None,
    recipe: Annotated[
        list[str] | None,
        typer.Option("--recipe", metavar="FIELD=VALUE", help="Any other field of the recipe."),
    ] = None,
    sets: options.Set = None,
    split: Annotated[str, typer.Option(help="Which annotation file to train on.")] = "train",
    annotations: Annotated[Path | None, typer.Option(help="The annotation file.")] = None,
    images: Annotated[Path | None, typer.Option(help="The image folder.")] = None,
    proposals: Annotated[
        Path | None, typer.Option("--proposals", help="Proposals file of the set, for Fast R-CNN.")
    ] = None,
    device: options.Device = "cpu",
    resume: Annotated[bool, typer.Option("--resume", help="Go on from --out.")] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace what is in --out.")
    ] = False,
    fmt: options.Format = "table",
) -> None:
    """Train a variant; the checkpoint knows its variant, so that `eval` needs no more.

    Example: sepcbench train retinanet_tiny_sepc --data shapes/ --out runs/sepc
    Example: sepcbench train retinanet_r50_fpn --data coco/ --out runs/fpn --epochs 12 --lr 0.01 --recipe optimizer=sgd
    Example: sepcbench train fast_rcnn_tiny_fpn --data shapes/ --out runs/fast --proposals proposals.json
    """  # noqa: E501
    options.check_format(fmt)
    options.check_device(device)
    (spec,) = options.parse_variants([name], sets)
    chosen = {"iterations": iterations, "batch": batch, "learning_rate": lr, "seed": seed}
    plan = parse_recipe(recipe, chosen)
    if not (resume or overwrite):
        _check_free(out)
    from sepcbench.data.coco import open_data
    from sepcbench.data.proposals import read_proposals

    training_set = open_data(data, split, annotations, images)
    given = read_proposals(proposals, training_set) if proposals else None
    if epochs is not None:
        plan = _for_epochs(plan, epochs, iterations, len(training_set.images))
    from sepcbench.checkpoints import native
    from sepcbench.training.loop import train as run

    with options.progress_bar(f"train {spec.name}") as progress:
        _, record = run(
            spec,
            training_set,
            plan,
            proposals=given,
            device=device,
            out=out,
            resume=resume,
            progress=progress,
            save=native.save,
        )
    path = out / "last.safetensors"
    options.emit(fmt, [_table(record, path)], [{"checkpoint": str(path), **encode(record)}])


def _check_free(out: Path) -> None:
    """Hours of training must not be lost to a repeated command.

    Raises:
        UsageError: there is a checkpoint in `out`, or a state to make one from.
    """
    if any((out / name).exists() for name in ("last.safetensors", "state.pt")):
        raise UsageError(
            f"'{out}' holds a checkpoint already; --resume goes on with it, --overwrite replaces "
            "it, or choose another --out"
        )


def parse_recipe(pairs: list[str] | None, chosen: dict[str, Any]) -> Recipe:
    """The default recipe with `--recipe` fields and then the given options (not None) set."""
    given: dict[str, Any] = dict(options.parse_pairs("--recipe", "FIELD=VALUE", pairs))
    given.update({name: value for name, value in chosen.items() if value is not None})
    hints = fields_of(Recipe)
    for name in given:
        if name not in hints:
            raise unknown("recipe field", name, hints)
    return Recipe(**{name: coerce(v, hints[name], f"recipe {name}") for name, v in given.items()})


def _for_epochs(plan: Recipe, epochs: float, iterations: int | None, images: int) -> Recipe:
    if iterations is not None:
        raise UsageError("give --iterations or --epochs, not both")
    if not 0 < epochs < float("inf"):
        raise UsageError(f"--epochs {epochs} is not a number above 0")
    from dataclasses import replace

    return replace(plan, iterations=max(1, round(epochs * images / plan.batch)))


def _table(record: Training, path: Path) -> Table:
    losses = [value for _, value in record.losses]
    row = (
        record.variant,
        record.dataset,
        str(record.images),
        str(record.iterations),
        f"{losses[0]:.3f}" if losses else "",
        f"{losses[-1]:.3f}" if losses else "",
        str(path),
    )
    headers = ("variant", "data", "images", "iterations", "first loss", "last loss", "checkpoint")
    return Table("Training", headers, (row,))
