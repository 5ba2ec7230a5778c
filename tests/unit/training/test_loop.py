from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from sepcbench.checkpoints import native
from sepcbench.data.coco import CocoData, open_data
from sepcbench.data.shapes import generate
from sepcbench.detectors import build
from sepcbench.errors import DataError, Interrupted, StoreError, TrainingError, UsageError
from sepcbench.measures.accuracy import detect_all
from sepcbench.measures.scoring import score
from sepcbench.specs import FsafSpec, Recipe
from sepcbench.training import loop, session, step
from sepcbench.training.objectives import OBJECTIVES
from sepcbench.variants import variant

SPEC = variant("retinanet_tiny_pconv_ibn", {"short_side": 64, "long_side": 64})
RECIPE = Recipe(iterations=6, batch=4, warmup_iterations=2)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> CocoData:
    folder = tmp_path_factory.mktemp("shapes")
    generate(folder, images=10, val_images=1, seed=0, size=(64, 64))
    return open_data(folder, "train")


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Interrupt:
    """A progress display that is interrupted after some iterations."""

    def __init__(self, after: int) -> None:
        self.after = after

    def __call__(self, done: int, total: int, label: str) -> None:
        if done == self.after:
            raise KeyboardInterrupt


def _state(detector: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in detector.state_dict().items()}


def _equal(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(one[key], two[key]) for key in one)


@pytest.mark.parametrize("name", ["fpn", "sepc"])
def test_the_seed_decides_every_loss_and_weight(data: CocoData, name: str) -> None:
    spec = variant(f"retinanet_tiny_{name}", {"short_side": 64, "long_side": 64})
    recipe = replace(RECIPE, iterations=3)
    one, first = loop.train(spec, data, recipe)
    torch.rand(3)  # the state of the global generator has no say
    two, second = loop.train(spec, data, recipe)
    assert first == second
    assert _equal(_state(one), _state(two))
    _, other = loop.train(spec, data, replace(recipe, seed=1))
    assert other.losses != first.losses


def test_the_global_generator_is_left_alone(data: CocoData) -> None:
    torch.manual_seed(5)
    wanted = torch.rand(1)
    torch.manual_seed(5)
    loop.train(SPEC, data, replace(RECIPE, iterations=1))
    assert torch.equal(torch.rand(1), wanted)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_resuming_gives_the_same_losses_bit_for_bit(
    data: CocoData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, optimizer: Any
) -> None:
    recipe = replace(RECIPE, optimizer=optimizer, learning_rate=1e-3)
    whole, wanted = loop.train(SPEC, data, recipe)
    monkeypatch.setattr(loop, "SAVE_EVERY", 2)
    with pytest.raises(Interrupted, match="iteration 4 is kept"):
        loop.train(SPEC, data, recipe, out=tmp_path, progress=Interrupt(5), save=native.save)
    assert native.read(tmp_path / "last.safetensors").training is not None
    resumed, record = loop.train(SPEC, data, recipe, out=tmp_path, resume=True, save=native.save)
    assert record == wanted
    assert len(record.losses) == 6
    assert _equal(_state(whole), _state(resumed))
    loaded, _ = native.load(tmp_path / "last.safetensors")
    assert _equal(_state(whole), _state(loaded))


@pytest.mark.parametrize(("presses", "kept"), [(1, "iteration 3 is kept"), (2, "nothing is kept")])
def test_ctrl_c_waits_for_the_iteration_and_a_second_one_does_not(
    data: CocoData, tmp_path: Path, presses: int, kept: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def press(done: int, total: int, label: str) -> None:
        for _ in range(presses if done == 3 else 0):
            os.kill(os.getpid(), signal.SIGINT)

    usual = signal.getsignal(signal.SIGINT)
    with pytest.raises(Interrupted, match=f"interrupted at iteration 3; {kept}"):
        loop.train(SPEC, data, RECIPE, out=tmp_path, progress=press, save=native.save)
    assert signal.getsignal(signal.SIGINT) is usual
    assert "Ctrl-C again stops at once" in capsys.readouterr().err
    if presses == 1:
        _, wanted = loop.train(SPEC, data, RECIPE)
        _, record = loop.train(SPEC, data, RECIPE, out=tmp_path, resume=True, save=native.save)
        assert record == wanted


def test_another_length_is_told_and_a_shorter_one_refused(data: CocoData, tmp_path: Path) -> None:
    loop.train(SPEC, data, replace(RECIPE, iterations=2), out=tmp_path)
    said: list[str] = []
    loop.train(
        SPEC, data, replace(RECIPE, iterations=3), out=tmp_path, resume=True, say=said.append
    )
    assert said[-1].startswith("goes on to 3 iterations; it was begun for 2, so its learning rate")
    with pytest.raises(UsageError, match="3 iterations are done, and 2 asked for"):
        loop.train(SPEC, data, replace(RECIPE, iterations=2), out=tmp_path, resume=True)


def test_a_finished_run_can_be_prolonged(data: CocoData, tmp_path: Path) -> None:
    recipe = replace(RECIPE, decay_at=())
    _, wanted = loop.train(SPEC, data, recipe)
    loop.train(SPEC, data, replace(recipe, iterations=2), out=tmp_path)
    _, same = loop.train(SPEC, data, replace(recipe, iterations=2), out=tmp_path, resume=True)
    assert same.losses == wanted.losses[:2]
    _, longer = loop.train(SPEC, data, recipe, out=tmp_path, resume=True)
    assert longer == wanted


def test_what_cannot_be_resumed_has_its_line(data: CocoData, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nothing to resume: there is no state\.pt"):
        loop.train(SPEC, data, RECIPE, out=tmp_path, resume=True)
    recipe = replace(RECIPE, iterations=1)
    loop.train(SPEC, data, recipe, out=tmp_path)
    with pytest.raises(UsageError, match="its recipe is not the one asked for"):
        loop.train(SPEC, data, replace(recipe, batch=2), out=tmp_path, resume=True)
    with pytest.raises(UsageError, match="its variant is not the one asked for"):
        loop.train(variant("retinanet_tiny_fpn"), data, recipe, out=tmp_path, resume=True)
    with pytest.raises(UsageError, match="its data is not the one asked for"):
        loop.train(SPEC, data.first(5), recipe, out=tmp_path, resume=True)
    content = (tmp_path / "state.pt").read_bytes()
    for damaged in (content[: len(content) // 2], b"", b"text"):
        (tmp_path / "state.pt").write_bytes(damaged)
        with pytest.raises(UsageError, match=r"state\.pt' is damaged"):
            loop.train(SPEC, data, recipe, out=tmp_path, resume=True)


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_checkpoint(
    data: CocoData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "SAVE_EVERY", 2)
    real = step.loss
    calls = []

    def broken(*args: Any) -> dict[str, torch.Tensor]:
        calls.append(1)
        losses = real(*args)
        return {k: v * float("nan") for k, v in losses.items()} if len(calls) == 4 else losses

    monkeypatch.setattr(step, "loss", broken)
    with pytest.raises(TrainingError, match=r"not finite at iteration 4 .*lower learning rate"):
        loop.train(SPEC, data, RECIPE, out=tmp_path, save=native.save)
    saved = native.read(tmp_path / "last.safetensors")
    assert saved.training is not None
    assert saved.training.iterations == 2
    assert all(value.isfinite().all() for value in saved.state.values())


def test_a_rate_far_too_high_ends_in_one_line(data: CocoData) -> None:
    recipe = replace(RECIPE, optimizer="sgd", learning_rate=1e12, warmup_factor=1.0, clip_norm=0.0)
    with pytest.raises(TrainingError, match=r"not finite|exploded"):
        loop.train(SPEC, data, recipe)


def test_data_and_folder_are_checked_before_anything_is_computed(
    data: CocoData, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="10 of 10 images are missing"):
        loop.train(SPEC, replace(data, image_folder=tmp_path), RECIPE)
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="cannot be written"):
        loop.train(SPEC, data, RECIPE, out=tmp_path / "file")


def test_a_head_without_objective_is_told_so_in_one_line(
    data: CocoData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(OBJECTIVES, FsafSpec)
    with pytest.raises(UsageError, match="fsaf_tiny_sepc: head 'fsaf' has no training obj") as e:
        loop.train(variant("fsaf_tiny_sepc"), data, RECIPE, out=tmp_path / "run")
    assert "\n" not in str(e.value)
    assert not (tmp_path / "run").exists()


def test_images_without_objects_alone_can_be_trained_on(data: CocoData) -> None:
    bare = replace(data, boxes=())
    _, record = loop.train(SPEC, bare, replace(RECIPE, iterations=2))
    assert len(record.losses) == 2


def test_long_runs_keep_few_losses_and_the_last(
    data: CocoData, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "_KEPT_LOSSES", 3)
    _, record = loop.train(SPEC, data, replace(RECIPE, batch=1))
    assert [iteration for iteration, _ in record.losses] == [1, 3, 5, 6]


def test_the_number_of_classes_is_that_of_the_set(data: CocoData) -> None:
    spec = replace(SPEC, num_classes=80)
    detector, record = loop.train(spec, data, replace(RECIPE, iterations=1))
    assert detector.spec.num_classes == 3
    assert not detector.training
    assert (record.variant, record.images, record.batch) == (SPEC.name, 10, 4)


def test_training_learns_the_generated_set(tmp_path: Path) -> None:
    """A short training on few and large shapes: AP50 above 0.5 on the images it has seen."""
    generate(tmp_path, images=24, val_images=1, seed=0, size=(96, 96))
    data = open_data(tmp_path, "train")
    recipe = Recipe(iterations=120, batch=8)
    detector, record = loop.train(variant("retinanet_tiny_fpn"), data, recipe)
    losses = [value for _, value in record.losses]
    assert sum(losses[-5:]) < 0.4 * sum(losses[:5])
    result = score(data, detect_all(detector, data, data.classes), variant="x")
    assert result.ap50 is not None
    assert result.ap50 > 0.5


def _evaluated(every: float, total: int) -> list[int]:
    return [i for i in range(1, total + 1) if loop.due(i, every, total)]


def test_evaluations_follow_the_epochs_and_do_not_crowd_at_the_end() -> None:
    epoch = 117_266 / 16  # of COCO, 7329.1 iterations
    for epochs in (12, 24):
        total = round(epochs * epoch)
        points = [round(k * total / epochs) for k in range(1, epochs + 1)]
        assert [i for i in points if loop.due(i, epoch, total)] == points
        near = [i + d for i in points for d in (-2, -1, 1, 2)]
        assert not any(loop.due(i, epoch, total) for i in near)
    assert _evaluated(500, 1200) == [500, 1000, 1200]
    assert _evaluated(500, 1001) == [500, 1001]
    assert _evaluated(0, 7) == [7]
    assert _evaluated(2.5, 10) == [2, 5, 8, 10]
    assert _evaluated(0.3, 3) == [1, 2, 3]


def test_it_evaluates_after_every_epoch_of_what_it_learns(data: CocoData) -> None:
    seen: list[int] = []
    crowd = replace(
        data,
        boxes=tuple(
            box._replace(iscrowd=1) if box.image_id == data.images[0].id else box
            for box in data.boxes
        ),
    )
    empty = sum(not len(data.objects(image.id).boxes) for image in data.images)
    recipe = replace(RECIPE, epochs=2.0, skip_empty=True)
    _, record = loop.train(
        SPEC, crowd, recipe, evaluate=lambda detector: float(len(seen)), evaluate_epochs=1
    )
    assert record.images == len(data.images) - empty - 1 == 8
    assert [at for at, _ in record.scores] == [2, 4]


def test_the_state_of_large_weights_is_kept_by_time_alone(
    data: CocoData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "SAVE_EVERY", 2)
    monkeypatch.setattr(loop, "SMALL_BYTES", 1000)
    with pytest.raises(Interrupted, match="nothing is kept"):
        loop.train(SPEC, data, RECIPE, out=tmp_path, progress=Interrupt(5))
    monkeypatch.setattr(loop, "LOG_EVERY", 3)
    monkeypatch.setattr(loop, "SAVE_SECONDS", 0.0)
    with pytest.raises(Interrupted, match="iteration 3 is kept"):
        loop.train(SPEC, data, RECIPE, out=tmp_path, progress=Interrupt(5))


def test_norms_of_the_pyramid_see_the_images_of_one_pass(data: CocoData) -> None:
    said: list[str] = []
    recipe = replace(RECIPE, iterations=2)
    _, wanted = loop.train(SPEC, data, replace(recipe, accumulate=2))
    _, record = loop.train(SPEC, data, replace(recipe, images_per_pass=2), say=said.append)
    assert record.losses == wanted.losses
    assert said == ["norms train on 2 images at a time (accumulate 2)"]
    without = replace(SPEC, necks=SPEC.necks[:1])
    loop.train(without, data, replace(recipe, iterations=1, images_per_pass=2), say=said.append)
    assert len(said) == 1


def test_another_set_of_the_same_name_is_not_resumed(data: CocoData, tmp_path: Path) -> None:
    recipe = replace(RECIPE, iterations=1)
    loop.train(SPEC, data, recipe, out=tmp_path)
    first = data.boxes[0]
    moved = first._replace(bbox=(first.bbox[0] + 1, *first.bbox[1:]))
    with pytest.raises(UsageError, match="its annotations is not the one asked for"):
        loop.train(
            SPEC, replace(data, boxes=(moved, *data.boxes[1:])), recipe, out=tmp_path, resume=True
        )
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    for later in ("annotations", "pretrained file"):
        del state["identity"][later]
    torch.save(state, tmp_path / "state.pt")
    loop.train(SPEC, data, recipe, out=tmp_path, resume=True)


def test_other_weights_under_the_same_name_are_not_resumed(data: CocoData, tmp_path: Path) -> None:
    weights = tmp_path / "tiny.pth"
    state = build(SPEC).backbone.state_dict()
    torch.save(state, weights)
    recipe = replace(RECIPE, iterations=1, pretrained=str(weights))
    loop.train(SPEC, data, recipe, out=tmp_path / "run")
    torch.save({key: value * 2 for key, value in state.items()}, weights)
    with pytest.raises(UsageError, match="its pretrained file is not the one asked for"):
        loop.train(SPEC, data, recipe, out=tmp_path / "run", resume=True)
    weights.unlink()  # what has begun does not need it
    loop.train(SPEC, data, recipe, out=tmp_path / "run", resume=True)
