"""What two processes do together for `test_processes.py`: results go to a file per rank."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sepcbench import processes
from sepcbench.checkpoints import native
from sepcbench.data.coco import CocoData, open_data
from sepcbench.ops.norms import NORMS
from sepcbench.ops.synced_norm import synchronised
from sepcbench.specs import Recipe, VariantSpec
from sepcbench.training import loop
from sepcbench.variants import variant

SIDES = {"short_side": 64, "long_side": 64}
FCOS = variant("fcos_tiny_pconv_ibn", SIDES)
SGD = Recipe(
    optimizer="sgd", learning_rate=0.02, iterations=2, batch=4, warmup_iterations=1, sync_norm=True
)
# candidates are drawn at random in every process
SAMPLED = variant("rpn_tiny_fpn", SIDES)
ACCUMULATED = Recipe(iterations=4, batch=8, accumulate=2, warmup_iterations=2, decay_at=())
FLAVOURS = ("single", "independent", "integrated")


def pyramid() -> list[Tensor]:
    """Two levels of two images, with gradients."""
    generator = torch.Generator().manual_seed(3)
    shapes = ((2, 8, 5, 4), (2, 8, 3, 2))
    return [(torch.randn(s, generator=generator) * 2 + 1).requires_grad_() for s in shapes]


def normalise(norm: nn.Module, levels: list[Tensor], part: slice) -> dict[str, Tensor]:
    """Outputs, gradients and statistics, for a loss that weighs all values differently."""
    given = [level.detach()[part].requires_grad_() for level in levels]
    outputs = norm.train()(given)
    weights = [torch.linspace(-1, 1, level.numel()).view(level.shape)[part] for level in levels]
    loss = sum((w * (o + o.square())).sum() for w, o in zip(weights, outputs))
    assert isinstance(loss, Tensor)
    loss.backward()
    found = {f"output {i}": output.detach() for i, output in enumerate(outputs)}
    found |= {f"gradient {i}": x.grad for i, x in enumerate(given) if x.grad is not None}
    found |= {f"weight {k}": p.grad for k, p in norm.named_parameters() if p.grad is not None}
    return found | {f"buffer {k}": b.clone() for k, b in norm.named_buffers()}


def make(flavour: str) -> nn.Module:
    torch.manual_seed(0)
    norm = NORMS[flavour](8, 2, 4)
    for parameter in norm.parameters():
        nn.init.normal_(parameter)
    return norm


def _norms(rank: int) -> dict[str, dict[str, Tensor]]:
    found = {}
    for flavour in FLAVOURS:
        norm = make(flavour)
        with synchronised(norm):
            found[flavour] = normalise(norm, pyramid(), slice(rank, rank + 1))
        assert type(norm) is type(make(flavour))
    return found


def _resumed(data: CocoData, folder: Path) -> tuple[Any, Any]:
    """Losses of an undisturbed run, and of one that was made longer."""
    _, whole = loop.train(SAMPLED, data, ACCUMULATED)
    out: dict[str, Any] = {"out": folder / "resumed", "save": native.save}
    loop.train(SAMPLED, data, replace(ACCUMULATED, iterations=2), **out)
    _, again = loop.train(SAMPLED, data, ACCUMULATED, **out, resume=True)
    return whole.losses, again.losses


def _lopsided(data: CocoData) -> list[float]:
    """Losses where only one process has objects, with norms that talk in the backward pass."""
    spec: VariantSpec = variant("freeanchor_tiny_pconv_ibn", SIDES)
    recipe = replace(SGD, batch=2, iterations=3)
    kept = {image.id for image in data.images[:2]}
    boxes = tuple(box for box in data.boxes if box.image_id in kept)
    _, record = loop.train(spec, replace(data, boxes=boxes), recipe)
    return [value for _, value in record.losses]


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    data = open_data(folder, "train")
    with processes.joined("cpu") as job:
        detector, record = loop.train(FCOS, data, SGD)
        found = {
            "norms": _norms(job.rank),
            "weights": detector.state_dict(),
            "losses": record.losses,
            "processes": record.processes,
            "resumed": _resumed(data, folder),
            "lopsided": _lopsided(data),
        }
        torch.save(found, folder / f"{job.rank}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
