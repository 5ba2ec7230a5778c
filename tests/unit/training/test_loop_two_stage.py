"""The training loop with masks and proposals: given, learnt from, and resumed to the bit."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sepcbench.data.coco import CocoData, open_data
from sepcbench.data.proposals import Proposals
from sepcbench.data.shapes import generate
from sepcbench.errors import Interrupted, UsageError
from sepcbench.specs import Recipe
from sepcbench.training import loop, step
from sepcbench.variants import variant

RECIPE = Recipe(iterations=4, batch=2, warmup_iterations=2)
SIDES = {"short_side": 64, "long_side": 64}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> CocoData:
    folder = tmp_path_factory.mktemp("shapes")
    generate(folder, images=6, val_images=1, seed=0, size=(64, 64))
    return open_data(folder, "train")


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def proposals(data: CocoData, seed: int = 0) -> Proposals:
    rng = np.random.default_rng(seed)
    low = rng.uniform(0, 40, (len(data.images), 50, 2))
    boxes = np.concatenate([low, low + rng.uniform(4, 24, low.shape)], axis=2).astype(np.float32)
    return Proposals(Path("p.json"), {image.id: b for image, b in zip(data.images, boxes)})


def given_for(name: str, data: CocoData) -> Proposals | None:
    return proposals(data) if name.startswith("fast_") else None


@pytest.mark.parametrize("name", ["rpn", "fast_rcnn", "faster_rcnn", "mask_rcnn"])
def test_resuming_gives_the_same_losses_bit_for_bit(
    data: CocoData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Sampling of RoIs is random, too."""
    spec, given = variant(f"{name}_tiny_fpn", SIDES), given_for(name, data)
    _, wanted = loop.train(spec, data, RECIPE, proposals=given)
    monkeypatch.setattr(loop, "SAVE_EVERY", 2)

    def interrupt(done: int, total: int, label: str) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(Interrupted, match="iteration 2 is kept"):
        loop.train(spec, data, RECIPE, proposals=given, out=tmp_path, progress=interrupt)
    _, record = loop.train(spec, data, RECIPE, proposals=given, out=tmp_path, resume=True)
    assert record == wanted
    assert len(record.losses) == 4


def test_other_proposals_are_another_training(data: CocoData, tmp_path: Path) -> None:
    spec = variant("fast_rcnn_tiny_fpn", SIDES)
    _, first = loop.train(spec, data, RECIPE, proposals=proposals(data), out=tmp_path)
    _, second = loop.train(spec, data, RECIPE, proposals=proposals(data, seed=1))
    assert first.losses != second.losses
    with pytest.raises(UsageError, match="its proposals is not the one asked for"):
        loop.train(spec, data, RECIPE, proposals=proposals(data, 1), out=tmp_path, resume=True)


@pytest.mark.parametrize(
    ("name", "masks", "given"),
    [
        ("retinanet", False, False),
        ("faster_rcnn", False, False),
        ("mask_rcnn", True, False),
        ("fast_rcnn", False, True),
    ],
)
def test_targets_have_what_the_head_needs_and_no_more(
    data: CocoData, monkeypatch: pytest.MonkeyPatch, name: str, masks: bool, given: bool
) -> None:
    seen: list[Any] = []

    def spy(detector: Any, outputs: Any, targets: Any, sizes: Any) -> dict[str, torch.Tensor]:
        seen.extend(zip(targets, sizes, strict=True))
        return {"loss": next(p for p in detector.parameters() if p.requires_grad).sum()}

    monkeypatch.setattr(step, "loss", spy)
    spec = variant(f"{name}_tiny_fpn", SIDES)
    loop.train(spec, data, RECIPE, proposals=given_for(name, data))
    assert len(seen) == 8
    for target, size in seen:
        assert (target.masks is not None, target.proposals is not None) == (masks, given)
        if masks:
            assert target.masks.shape == (len(target.boxes), *size)
        if given:
            assert target.proposals.shape == (50, 4)
