"""`data shapes`, `train`, `eval` and `score` from the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sepcbench.cli.app import run

NUMBERS = "ap ap50 ap75 ap_small ap_medium ap_large ar1 ar10 ar100 ar_small ar_medium ar_large"
SMALL = ("--set", "short_side=64", "--set", "long_side=64")


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "shapes"
    size = ("--images", "6", "--val-images", "4", "--size", "64x64")
    assert run(["data", "shapes", str(folder), *size]) == 0
    return folder


@pytest.fixture(scope="module")
def checkpoint(shapes: Path) -> Path:
    out = shapes.parent / "run"
    options = ("--iterations", "2", "--batch", "2", "--set", "score_threshold=0")
    call = ["train", "retinanet_tiny_fpn", "--data", str(shapes), "--out", str(out)]
    assert run([*call, *SMALL, *options]) == 0
    return out / "last.safetensors"


def _json(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


def _fails(capsys: pytest.CaptureFixture[str], code: int, *arguments: object) -> str:
    """Run a command that must fail with one line on stderr and nothing on stdout."""
    capsys.readouterr()
    assert run([str(argument) for argument in arguments]) == code
    captured = capsys.readouterr()
    lines = [line for line in captured.err.splitlines() if line.startswith("sepcbench: ")]
    assert len(lines) == 1, captured.err
    assert "Traceback" not in captured.err
    assert captured.out == ""
    return lines[0]


def test_train_then_eval_then_score(
    shapes: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`eval` needs no `--variant`; saved detections score the same as the checkpoint."""
    capsys.readouterr()
    saved = tmp_path / "detections.json"
    call = ["eval", str(checkpoint), "--data", str(shapes), "--save-detections", str(saved)]
    assert run([*call, "--format", "json"]) == 0
    (evaluated,) = _json(capsys)
    assert evaluated["variant"] == "retinanet_tiny_fpn"
    assert evaluated["images"] == 4
    assert set(NUMBERS.split()) <= set(evaluated)
    assert list(evaluated["per_class"]) == ["circle", "square", "triangle"]
    assert len(json.loads(saved.read_text())) == evaluated["detections"] > 0
    assert run(["score", str(saved), "--data", str(shapes), "--format", "json"]) == 0
    (scored,) = _json(capsys)
    for name in [*NUMBERS.split(), "per_class", "images", "detections", "dataset"]:
        assert scored[name] == evaluated[name], name


def test_tables_name_the_unit_and_direction(
    shapes: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    call = ["eval", str(checkpoint), "--data", str(shapes), "--per-class", "--limit", "2"]
    assert run([*call, "--format", "md"]) == 0
    text = capsys.readouterr().out
    assert "AP50 %" in text
    assert "%, higher is better" in text
    assert "triangle" in text
    assert "2 images of shapes/instances_val" in text


def test_a_bad_checkpoint_is_a_row_and_the_others_go_on(
    shapes: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(checkpoint.read_bytes()[:5000])
    capsys.readouterr()
    call = ["eval", str(cut), str(checkpoint), "--data", str(shapes), "--format", "json"]
    assert run(call) == 1
    failed, evaluated = _json(capsys)
    assert "is truncated" in failed["reason"]
    assert evaluated["ap"] is not None
    assert run(["eval", str(cut), str(cut), "--data", str(shapes)]) == 2


def test_training_is_resumed_and_reported(
    shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call = ["train", "retinanet_tiny_fpn", "--data", str(shapes), "--out", str(tmp_path), *SMALL]
    call += ["--batch", "2", "--format", "json", "--recipe", "optimizer=sgd", "--lr", "0.001"]
    capsys.readouterr()
    assert run([*call, "--iterations", "1"]) == 0
    (first,) = _json(capsys)
    assert run([*call, "--epochs", "1", "--resume"]) == 0
    (second,) = _json(capsys)
    assert (first["iterations"], second["iterations"]) == (1, 3)
    assert second["losses"][0] == first["losses"][0]
    assert (second["optimizer"], second["learning_rate"]) == ("sgd", 0.001)
    before = Path(second["checkpoint"]).read_bytes()
    assert "--overwrite" in _fails(capsys, 2, *call, "--iterations", 1)
    assert Path(second["checkpoint"]).read_bytes() == before
    assert run([*call, "--iterations", "1", "--overwrite"]) == 0
    assert Path(second["checkpoint"]).read_bytes() != before


def test_bad_training_options_have_their_line(
    shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def line(*arguments: object, name: str = "retinanet_tiny_fpn") -> str:
        return _fails(capsys, 2, "train", name, "--out", tmp_path / "out", *arguments)

    data = ("--data", shapes)
    assert "did you mean 'retinanet_tiny_sepc'" in line(*data, name="retinanet_tiny_sepcs")
    assert "did you mean 'momentum'" in line(*data, "--recipe", "momentun=1")
    assert "recipe optimizer" in line(*data, "--recipe", "optimizer=adam")
    assert "not both" in line(*data, "--iterations", 1, "--epochs", 1)
    assert "is not a number above 0" in line(*data, "--epochs", "nan")
    assert "nothing to resume" in line(*data, "--resume", "--iterations", 1)
    assert "is not there" in line("--data", tmp_path / "nowhere")
    assert "no data set given" in line()
    (tmp_path / "file").touch()
    call = ("train", "retinanet_tiny_fpn", *data, "--out", tmp_path / "file")
    assert "cannot be written" in _fails(capsys, 2, *call)


def test_bad_data_has_its_line(
    shapes: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def line(*arguments: object) -> str:
        return _fails(capsys, 2, "eval", checkpoint, *arguments)

    assert "is not there" in line("--data", tmp_path / "nowhere")
    assert "no annotations in" in line("--data", tmp_path)
    assert "no split 'test'" in line("--data", shapes, "--split", "test")
    text = (shapes / "annotations/instances_val.json").read_text()
    bad = tmp_path / "bad.json"
    bad.write_text(text[: len(text) // 2])
    assert "is truncated" in line("--annotations", bad, "--images", shapes / "val")
    bad.write_text(text.replace(":", ";", 1))
    assert "is not valid JSON" in line("--annotations", bad, "--images", shapes / "val")
    bad.write_text(text.replace("triangle", "triangles"))
    found = line("--annotations", bad, "--images", shapes / "val")
    assert "'triangle' (nearest 'triangles')" in found
    bad.write_text(text)
    assert "4 of 4 images are missing" in line("--annotations", bad, "--images", tmp_path)


def test_a_corrupt_image_is_named(
    shapes: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for picture in (shapes / "val").iterdir():
        (tmp_path / picture.name).write_bytes(picture.read_bytes())
    (tmp_path / "000003.png").write_bytes((shapes / "val/000003.png").read_bytes()[:500])
    annotations = shapes / "annotations/instances_val.json"
    call = ("eval", checkpoint, "--annotations", annotations, "--images", tmp_path)
    assert "000003.png' is corrupt or truncated" in _fails(capsys, 2, *call)


def test_bad_checkpoints_have_their_line(
    shapes: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def line(path: Path, *arguments: object) -> str:
        return _fails(capsys, 2, "eval", path, "--data", shapes, *arguments)

    assert "is not there" in line(tmp_path / "none.safetensors")
    other = line(checkpoint, "--variant", "retinanet_tiny_sepc")
    assert "does not fit retinanet_tiny_sepc" in other
    assert "unexpected: " in other
    text = tmp_path / "text.safetensors"
    text.write_text("not a checkpoint at all, but a text")
    assert "is not a checkpoint" in line(text)
    text.write_bytes(checkpoint.read_bytes()[:-100])
    assert "is truncated" in line(text)
    assert "no such folder" in line(
        checkpoint, "--save-detections", tmp_path / "nowhere" / "d.json"
    )


def test_bad_detections_have_their_line(
    shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "d.json"

    def line() -> str:
        return _fails(capsys, 2, "score", path, "--data", shapes)

    assert "is not there" in line()
    path.write_text('[{"image_id": 1, "category_id"')
    assert "is truncated" in line()
    entry = {"image_id": 1, "category_id": 2, "bbox": [1, 2, 3, 4], "score": 0.5}
    path.write_text(json.dumps([entry]))
    assert "first category_id 2" in line()
    path.write_text("[]")
    assert run(["score", str(path), "--data", str(shapes), "--format", "json"]) == 0
    assert _json(capsys)[0]["ap"] == 0.0


def test_bad_sizes_of_shapes_have_their_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for size in ("800,1344", "0x0", "8x8"):
        assert size in _fails(capsys, 2, "data", "shapes", tmp_path / "s", "--size", size)
    assert "--images" in _fails(capsys, 2, "data", "shapes", tmp_path / "s", "--images", 0)
    (tmp_path / "file").touch()
    assert "cannot write" in _fails(capsys, 2, "data", "shapes", tmp_path / "file")
