"""`sepcbench train`: one variant, on one data set, to a checkpoint."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sepcbench.cli import options
from sepcbench.cli.training_plan import check_free, every, parse_recipe, with_length
from sepcbench.cli.worker_counts import for_training
from sepcbench.codec import encode
from sepcbench.errors import UsageError
from sepcbench.report.table import Table
from sepcbench.specs import RpnSpec

if TYPE_CHECKING:
    from sepcbench.data.coco import CocoData
    from sepcbench.data.proposals import Proposals
    from sepcbench.records import Training
    from sepcbench.specs import Recipe, VariantSpec

EVENTS = "events"  # in --out


def _without_value(context: typer.Context, wanted: bool) -> bool:
    """Let a word that was meant as the value of a flag come as far as `_check_words`."""
    context.allow_extra_args |= wanted
    return wanted


def train(
    context: typer.Context,
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
    batch: Annotated[
        int | None, typer.Option(help="Images per iteration, of all processes.", min=1)
    ] = None,
    lr: Annotated[float | None, typer.Option("--lr", help="Learning rate.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of weights, order and flips.", min=0)] = None,
    recipe: Annotated[
        list[str] | None,
        typer.Option(
            "--recipe",
            metavar="NAME|FIELD=VALUE",
            help="A recipe to start from (1x, 2x, shapes, a file), and any of its fields.",
        ),
    ] = None,
    sets: options.Set = None,
    split: Annotated[str, typer.Option(help="Which annotation file to train on.")] = "train",
    annotations: Annotated[Path | None, typer.Option(help="The annotation file.")] = None,
    images: Annotated[Path | None, typer.Option(help="The image folder.")] = None,
    proposals: Annotated[
        Path | None, typer.Option("--proposals", help="Proposals file of the set, for Fast R-CNN.")
    ] = None,
    device: options.Device = "cpu",
    workers: Annotated[
        int | None,
        typer.Option("--workers", help="Threads that load images; else by the device.", min=0),
    ] = None,
    evaluate_every: Annotated[
        str | None,
        typer.Option(
            "--evaluate-every",
            metavar="N|'N epochs'",
            help="Score the val split of --data on the way, keep best.safetensors.",
        ),
    ] = None,
    tensorboard: Annotated[
        bool,
        typer.Option(
            "--tensorboard",
            callback=_without_value,
            help="Write event files too, into the folder events of --out.",
        ),
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from --out.")] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace what is in --out.")
    ] = False,
    fmt: options.Format = "table",
) -> None:
    """Train a variant; the checkpoint knows its variant, so that `eval` needs no more.

    On several GPUs: torchrun --nproc-per-node 8 -m sepcbench train ... --device cuda

    Example: sepcbench train retinanet_tiny_sepc --data shapes/ --out runs/sepc
    Example: sepcbench train retinanet_r50_fpn --data coco/ --out runs/fpn --recipe 1x --device cuda --workers 4
    Example: sepcbench train retinanet_r50_fpn --data coco/ --out runs/fpn --epochs 12 --lr 0.01 --recipe optimizer=sgd
    Example: sepcbench train fast_rcnn_tiny_fpn --data shapes/ --out runs/fast --proposals proposals.json
    """  # noqa: E501
    _check_words(context.args, out)
    options.check_format(fmt)
    options.check_device(device)
    (spec,) = options.parse_variants([name], sets)
    chosen = {"iterations": iterations, "batch": batch, "learning_rate": lr, "seed": seed}
    plan = with_length(parse_recipe(recipe, chosen), epochs, iterations)
    if not (resume or overwrite):
        check_free(out)
    from sepcbench import processes
    from sepcbench.data.coco import open_data
    from sepcbench.data.proposals import read_proposals

    options.check_device(processes.own_device(device))  # there may be fewer GPUs than processes
    masks = "masks" in spec.head.needs
    training_set = open_data(data, split, annotations, images, segmentations=masks)
    given = read_proposals(proposals, training_set) if proposals else None
    count = for_training(workers, device)
    job = _Job(spec, training_set, plan, given, device, out, resume, count, tensorboard)
    scoring = _scoring(job, data, evaluate_every) if evaluate_every else {}
    record = job.run(scoring)
    proposes = isinstance(spec.head, RpnSpec)
    path = out / "last.safetensors"
    if processes.announced().leads:
        options.emit(
            fmt, [_table(record, path, proposes)], [{"checkpoint": str(path), **encode(record)}]
        )


def _check_words(more: list[str], out: Path) -> None:
    """Check that no word is left over; `--tensorboard` alone lets one come here.

    Raises:
        UsageError: there is one.
    """
    if more:
        raise UsageError(
            f"--tensorboard takes no value, and '{more[0]}' is one too many: event files go to "
            f"'{out / EVENTS}'"
        )


@contextmanager
def _bar(title: str) -> Iterator[options.Progress]:
    """A progress bar; in a log lines, from the first iteration on: an error before is one line."""
    with ExitStack() as stack:
        begun: list[options.Progress] = []

        def show(done: int, total: int, label: str = "") -> None:
            if not begun:
                begun.append(stack.enter_context(options.progress_bar(title, announce=True)))
            begun[0](done, total, label)

        yield show


@dataclass(frozen=True)
class _Job:
    """What is trained, on what, and where it goes."""

    spec: VariantSpec
    data: CocoData
    recipe: Recipe
    proposals: Proposals | None
    device: str
    out: Path
    resume: bool
    workers: int
    tensorboard: bool

    def run(self, scoring: dict[str, Any]) -> Training:
        """Train, in this process or as one of those of `torchrun`."""
        from sepcbench import processes
        from sepcbench.checkpoints import native
        from sepcbench.training.loop import train as run_training

        leads = processes.announced().leads
        bar = _bar(f"train {self.spec.name}") if leads else nullcontext()
        with bar as progress, self._log(leads) as log:
            _, record = run_training(
                self.spec,
                self.data,
                self.recipe,
                proposals=self.proposals,
                device=self.device,
                out=self.out,
                resume=self.resume,
                progress=progress,
                save=native.save,
                workers=self.workers,
                log=log,
                say=lambda line: print(f"sepcbench: {line}", file=sys.stderr),
                **scoring,
            )
        return record

    @contextmanager
    def _log(self, leads: bool) -> Iterator[Any]:
        if not (self.tensorboard and leads):
            yield None
            return
        from sepcbench.training.watching import TensorBoard

        with closing(TensorBoard(self.out / EVENTS)) as log:
            yield log


def _scoring(job: _Job, folder: Path | None, text: str) -> dict[str, Any]:
    """How the detector is scored on the way.

    Raises:
        UsageError: the set has no folder to have a val split, or proposals would be needed.
    """
    from sepcbench.data.coco import check_images, open_data
    from sepcbench.measures.training_score import evaluator

    if folder is None or "proposals" in job.spec.head.needs:
        what = "--data with a val split" if folder is None else "a head with an RPN"
        raise UsageError(f"--evaluate-every needs {what}; use `sepcbench eval` afterwards")
    how_often = every(text)
    val = open_data(folder, "val", segmentations=False)
    check_images(val)
    return {"evaluate": evaluator(val, job.device, job.workers), **how_often}


def _table(record: Training, path: Path, proposes: bool) -> Table:
    losses = [value for _, value in record.losses]
    cells = {
        "variant": record.variant,
        "data": record.dataset,
        "images": str(record.images),
        "iterations": str(record.iterations),
        "first loss": f"{losses[0]:.3f}" if losses else "",
        "last loss": f"{losses[-1]:.3f}" if losses else "",
    }
    if record.speed is not None:
        cells["images/s"] = f"{record.speed.images_per_s:.1f}"
        cells["waited for data"] = f"{100 * record.speed.data_wait:.0f} %"
    if record.scores:
        at, best = max(record.scores, key=lambda pair: pair[1])
        score = "AR" if proposes else "AP"
        cells[f"best {score}"] = f"{100 * best:.1f} % at iteration {at}"
    cells["checkpoint"] = str(path)
    return Table("Training", tuple(cells), (tuple(cells.values()),))
