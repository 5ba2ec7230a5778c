"""`sepcbench train`: recipes by name, scores on the way, event files, and lines of error."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from sepcbench.checkpoints import native
from sepcbench.cli.app import run
from sepcbench.cli.train import _table
from sepcbench.cli.training_plan import every, parse_recipe
from sepcbench.data.shapes import generate
from sepcbench.errors import UsageError
from sepcbench.records import Training

SMALL = ["--set", "short_side=64", "--set", "long_side=64", "--batch", "2", "--format", "json"]


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shapes")
    generate(folder, images=8, val_images=2, seed=0, size=(64, 64))
    return folder


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def test_scores_event_files_and_speed(
    shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("tensorboard")
    out = tmp_path / "run"
    call = ["train", "rpn_tiny_fpn", "--data", str(shapes), "--out", str(out), *SMALL]
    more = ["--epochs", "1", "--evaluate-every", "0.5 epochs", "--tensorboard"]
    assert run([*call, *more]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert [at for at, _ in found["scores"]] == [2, 4]
    assert found["speed"]["images_per_s"] > 0
    best = native.read(out / "best.safetensors").training
    assert best is not None
    assert best.speed is None
    assert best.iterations == max(found["scores"], key=lambda pair: pair[1])[0]
    logged = _events(out / "events")
    assert logged["loss"][0] == 4
    assert logged["loss"][1] == pytest.approx(found["losses"][-1][1], rel=1e-5)
    parts = [value for name, (_, value) in logged.items() if name.startswith("loss/")]
    assert sum(parts) == pytest.approx(logged["loss"][1], rel=1e-5)
    assert logged["score"] == (4, pytest.approx(found["scores"][-1][1]))
    assert logged["lr"][1] > 0


def _events(folder: Path) -> dict[str, tuple[int, float]]:
    """The last step and value of every scalar."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    reader = EventAccumulator(str(folder))
    reader.Reload()
    last = {tag: reader.Scalars(tag)[-1] for tag in reader.Tags()["scalars"]}
    return {tag: (event.step, event.value) for tag, event in last.items()}


def test_a_named_recipe_and_fields_on_top(
    shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call = ["train", "retinanet_tiny_fpn", "--data", str(shapes), "--out", str(tmp_path / "run")]
    recipe = ["--recipe", "1x", "--recipe", "pretrained=", "--recipe", "epochs=0.5"]
    assert run([*call, *recipe, *SMALL]) == 0
    captured: Any = capsys.readouterr()
    (found,) = json.loads(captured.out)
    assert captured.err == "train retinanet_tiny_fpn ...\n", "what the log of a cluster shows"
    assert (found["optimizer"], found["iterations"], found["batch"]) == ("sgd", 2, 2)
    assert found["learning_rate"] == pytest.approx(0.01 * 2 / 16)


def test_options_come_last() -> None:
    plan = parse_recipe(["batch=32", "2x"], {"iterations": 90, "seed": None})
    assert (plan.batch, plan.iterations, plan.epochs) == (32, 90, 0)
    assert plan.short_sides == (640, 800)


@pytest.mark.parametrize(
    ("given", "field", "number"),
    [
        ("500", "evaluate_every", 500),
        ("1 epoch", "evaluate_epochs", 1),
        ("2epochs", "evaluate_epochs", 2),
        ("0.5e", "evaluate_epochs", 0.5),
    ],
)
def test_how_often_to_score(given: str, field: str, number: float) -> None:
    assert every(given) == {field: number}


@pytest.mark.parametrize("given", ["often", "0", "1.5", "-1", "2 days"])
def test_how_often_to_score_has_its_line(given: str) -> None:
    with pytest.raises(UsageError, match="--evaluate-every"):
        every(given)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--recipe", "3x"], "unknown recipe '3x'; did you mean"),
        (["--recipe", "1x", "--recipe", "2x"], "takes one name or file, not both '1x' and '2x'"),
        (["--recipe", "1x"], "backbone 'tiny' has no ImageNet weights"),
        (["--recipe", "accumulate=3"], "a batch of 2 images does not divide among 1 processes"),
        (["--recipe", "epochs=-1"], "epochs is a number of 0 or more"),
        (
            ["--tensorboard", "logs"],
            "--tensorboard takes no value, and 'logs' is one too many",
        ),
        (["logs"], "unexpected extra argument(s) (logs)"),
    ],
)
def test_what_is_wrong_has_its_line(
    shapes: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    line: str,
) -> None:
    call = ["train", "retinanet_tiny_fpn", "--data", str(shapes), "--out", str(tmp_path / "run")]
    assert run([*call, *SMALL, *options]) == 2
    captured: Any = capsys.readouterr()
    assert line in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""


@pytest.mark.parametrize(("proposes", "name"), [(False, "best AP"), (True, "best AR")])
def test_the_best_score_is_named_with_its_unit_and_iteration(proposes: bool, name: str) -> None:
    scores = ((15, 0.05), (30, 0.07))
    record = Training("v", "val", 9, 30, 2, 0, "sgd", 0.01, ((1, 1.0),), scores)
    table = _table(record, Path("last.safetensors"), proposes)
    assert dict(zip(table.headers, table.rows[0]))[name] == "7.0 % at iteration 30"


def test_more_processes_than_gpus_have_their_line(
    shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    for name, value in (("RANK", "1"), ("LOCAL_RANK", "1"), ("WORLD_SIZE", "2")):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    call = ["train", "retinanet_tiny_fpn", "--data", str(shapes), "--out", str(tmp_path / "run")]
    assert run([*call, "--device", "cuda"]) == 2
    err = capsys.readouterr().err
    assert err == "sepcbench: device 'cuda:1': this machine has only cuda:0 to cuda:0\n"
