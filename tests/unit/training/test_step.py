"""One iteration: passes that add up, half precision, and when a training is stopped."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from sepcbench.checkpoints import native
from sepcbench.data.coco import CocoData, open_data
from sepcbench.data.shapes import generate
from sepcbench.errors import TrainingError
from sepcbench.specs import Recipe
from sepcbench.training import loop, step
from sepcbench.variants import variant

SIDES = {"short_side": 64, "long_side": 64}
# no norm of this one depends on the batch: no BN in the tower, a backbone with BN in eval mode
STEADY = variant("retinanet_r50_fpn", {"backbone": "r18", "channels": 32, **SIDES})
TINY = variant("retinanet_tiny_sepc", SIDES)
SGD = Recipe(
    optimizer="sgd", learning_rate=1e-3, batch=4, iterations=2, warmup_iterations=1, flip=0.0
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> CocoData:
    folder = tmp_path_factory.mktemp("shapes")
    generate(folder, images=8, val_images=1, seed=0, size=(64, 64))
    return open_data(folder, "train")


@pytest.fixture
def alike(data: CocoData) -> CocoData:
    """Every image has the same objects, so that every part of a batch has as many positives."""
    first = [box for box in data.boxes if box.image_id == data.images[0].id]
    copies = [box._replace(image_id=image.id) for image in data.images for box in first]
    boxes = tuple(box._replace(id=number) for number, box in enumerate(copies, start=1))
    return replace(data, boxes=boxes)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_passes_add_up_to_the_whole_batch(alike: CocoData) -> None:
    whole, wanted = loop.train(STEADY, alike, SGD)
    parts, record = loop.train(STEADY, alike, replace(SGD, accumulate=2))
    values = [value for _, value in record.losses]
    assert values == pytest.approx([value for _, value in wanted.losses], rel=1e-5)
    start, _ = loop.train(STEADY, alike, replace(SGD, learning_rate=1e-30, iterations=1, batch=1))
    begun = start.state_dict()
    for key, value in whole.state_dict().items():
        moved = value - begun[key]
        torch.testing.assert_close(
            parts.state_dict()[key] - begun[key], moved, atol=1e-6, rtol=0.02
        )


@pytest.mark.parametrize("amp", ["bf16", pytest.param("fp16", marks=pytest.mark.slow)])
def test_half_precision_learns_nearly_the_same(data: CocoData, amp: Any) -> None:
    recipe = replace(SGD, iterations=3)
    _, wanted = loop.train(TINY, data, recipe)
    detector, record = loop.train(TINY, data, replace(recipe, amp=amp))
    values = [value for _, value in record.losses]
    assert values == pytest.approx([value for _, value in wanted.losses], rel=0.03)
    assert values != [value for _, value in wanted.losses]
    assert all(p.dtype == torch.float32 for p in detector.parameters())
    assert record.amp == amp


@pytest.mark.parametrize("name", ["freeanchor_tiny_sepc", "fcos_tiny_sepc", "faster_rcnn_tiny_fpn"])
def test_every_kind_of_head_learns_in_half_precision(data: CocoData, name: str) -> None:
    spec = variant(name, SIDES)
    _, record = loop.train(spec, data, replace(SGD, iterations=1, batch=2, amp="bf16"))
    _, wanted = loop.train(spec, data, replace(SGD, iterations=1, batch=2))
    assert record.losses[0][1] == pytest.approx(wanted.losses[0][1], rel=0.05)


def test_channels_last_learns_the_same(data: CocoData) -> None:
    _, wanted = loop.train(TINY, data, SGD)
    detector, record = loop.train(TINY, data, replace(SGD, channels_last=True))
    values = [value for _, value in record.losses]
    assert values == pytest.approx([value for _, value in wanted.losses], rel=1e-4)
    weight = detector.backbone.stages[0][0][0].weight  # type: ignore[index, union-attr]
    assert weight.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"amp": "fp16"}, marks=pytest.mark.slow),
        {"accumulate": 2, "optimizer": "adamw"},
        {"short_sides": (48, 64), "group_by_aspect": True},
    ],
)
def test_it_resumes_bit_for_bit_under_every_option(
    data: CocoData, tmp_path: Path, change: dict[str, Any]
) -> None:
    """Sampled candidates and a scaler whose scale moves are part of the state."""
    spec = variant("rpn_tiny_fpn", SIDES)
    recipe = replace(SGD, iterations=5, decay_at=(), **change)
    _, wanted = loop.train(spec, data, recipe)
    loop.train(spec, data, replace(recipe, iterations=3), out=tmp_path, save=native.save)
    _, record = loop.train(spec, data, recipe, out=tmp_path, save=native.save, resume=True)
    assert record == wanted


def test_workers_load_what_would_be_loaded_here(data: CocoData) -> None:
    spec = variant("rpn_tiny_fpn", SIDES)
    _, wanted = loop.train(spec, data, SGD)
    _, record = loop.train(spec, data, SGD, workers=1)
    assert record == wanted
    assert record.speed is not None
    assert record.speed.images_per_s > 0
    assert 0 <= record.speed.data_wait <= 1


def _spoilt(monkeypatch: pytest.MonkeyPatch, at: int, factor: float) -> None:
    """Multiply the losses of the iterations from one on."""
    real, calls = step.loss, []

    def spoilt(*given: Any) -> dict[str, torch.Tensor]:
        calls.append(1)
        losses = real(*given)
        return {k: v * factor for k, v in losses.items()} if len(calls) >= at else losses

    monkeypatch.setattr(step, "loss", spoilt)


def test_an_exploding_loss_stops_and_keeps_the_last_checkpoint(
    data: CocoData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "SAVE_EVERY", 2)
    _spoilt(monkeypatch, 4, 1e6)
    with pytest.raises(
        TrainingError, match=r"has exploded at iteration 4 \(loss .*checkpoint is"
    ) as e:
        loop.train(TINY, data, replace(SGD, iterations=5), out=tmp_path, save=native.save)
    assert "\n" not in str(e.value)
    saved = native.read(tmp_path / "last.safetensors")
    assert saved.training is not None
    assert saved.training.iterations == 2


def test_a_loss_that_rises_a_lot_goes_on(data: CocoData, monkeypatch: pytest.MonkeyPatch) -> None:
    _spoilt(monkeypatch, 2, 1000)
    _, record = loop.train(TINY, data, SGD)
    assert len(record.losses) == 2


def test_float16_gives_up_after_many_skipped_steps(
    data: CocoData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gradients that no scale makes finite."""
    monkeypatch.setattr(step, "MOST_SKIPPED", 1)
    real = step._clip

    def lost(session: Any) -> float:
        real(session)
        return float("inf")

    monkeypatch.setattr(step, "_clip", lost)
    with pytest.raises(TrainingError, match="not finite at iteration 2"):
        loop.train(TINY, data, replace(SGD, amp="fp16", iterations=3, batch=1))
