from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from sepcbench.checkpoints import native
from sepcbench.detectors import build
from sepcbench.errors import CheckpointError
from sepcbench.records import Training
from sepcbench.variants import variant

CLASSES = ("circle", "square", "triangle")
TRAINING = Training("v", "d", 5, 2, 1, 0, "sgd", 0.1, ((1, 2.5), (2, 1.25)))


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "run" / "last.safetensors"
    torch.manual_seed(0)
    native.save(path, build(variant("retinanet_tiny_pconv_ibn")), CLASSES, TRAINING)
    return path


def test_everything_comes_back(saved: Path) -> None:
    found = native.read(saved)
    assert found.spec == variant("retinanet_tiny_pconv_ibn")
    assert found.classes == CLASSES
    assert found.training == TRAINING
    torch.manual_seed(0)
    wanted = build(found.spec)
    detector, classes = native.load(saved)
    assert classes == CLASSES
    assert detector.state_dict().keys() == wanted.state_dict().keys()
    for key, value in wanted.state_dict().items():
        assert torch.equal(detector.state_dict()[key], value), key
    image = torch.randn(1, 3, 64, 64)
    for ours, theirs in zip(detector.eval()(image), wanted.eval()(image)):
        assert torch.equal(ours.cls, theirs.cls)
        assert torch.equal(ours.box, theirs.box)


def test_overridden_fields_are_inside_so_no_variant_is_needed(tmp_path: Path) -> None:
    spec = variant("retinanet_tiny_pconv", {"depth": 2, "num_classes": 5, "norm": "independent"})
    native.save(tmp_path / "c.safetensors", build(spec), "abcde")
    detector, _ = native.load(tmp_path / "c.safetensors")
    assert detector.spec == spec
    assert native.read(tmp_path / "c.safetensors").training is None


def test_the_digest_is_sha256(saved: Path) -> None:
    assert native.digest(saved) == hashlib.sha256(saved.read_bytes()).hexdigest()
    with pytest.raises(CheckpointError, match="cannot be read"):
        native.digest(saved.with_name("none"))


def test_the_same_detector_gives_the_same_file(saved: Path, tmp_path: Path) -> None:
    detector, _ = native.load(saved)
    native.save(tmp_path / "again.safetensors", detector, CLASSES, TRAINING)
    assert native.digest(tmp_path / "again.safetensors") == native.digest(saved)


@pytest.mark.parametrize("share", [0.0, 0.00001, 0.01, 0.5, 0.999999])
def test_a_truncated_file_is_called_truncated(saved: Path, share: float) -> None:
    content = saved.read_bytes()
    saved.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(CheckpointError, match=r"last\.safetensors' is truncated") as error:
        native.load(saved)
    assert "\n" not in str(error.value)


def test_what_is_not_a_checkpoint_has_its_line(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    with pytest.raises(CheckpointError, match="is not there"):
        native.read(path)
    path.write_text("this is a text file, and not a short one either")
    with pytest.raises(CheckpointError, match="is not a checkpoint"):
        native.read(path)
    path.write_bytes((20).to_bytes(8, "little") + b"not json at all here" + bytes(50))
    with pytest.raises(CheckpointError, match="is not a checkpoint"):
        native.read(path)
    safetensors.torch.save_file({"a": torch.zeros(2)}, path)
    with pytest.raises(CheckpointError, match="has tensors but no variant inside"):
        native.read(path)
    with pytest.raises(CheckpointError, match="cannot be read: Is a directory"):
        native.read(tmp_path)


@pytest.mark.parametrize("old", [True, False])
def test_torch_pickles_are_not_native(tmp_path: Path, old: bool) -> None:
    for name in ("model.pth", "model.bin"):
        torch.save({"state_dict": {}}, tmp_path / name, _use_new_zipfile_serialization=not old)
        with pytest.raises(
            CheckpointError, match=r"is a torch pickle, not a checkpoint written by"
        ):
            native.read(tmp_path / name)


def test_a_header_of_any_length_is_one(tmp_path: Path) -> None:
    """The first byte is the low one of the length; at 0x80 a pickle starts alike."""
    path, found = tmp_path / "x.safetensors", set()
    for letters in range(0, 300, 8):
        safetensors.torch.save_file({"a": torch.zeros(1)}, path, {"note": "x" * letters})
        found.add(path.read_bytes()[:1])
        assert native.read_header(path)["__metadata__"]["note"] == "x" * letters
    assert b"\x80" in found


def _describe(path: Path, **changes: Any) -> None:
    state = safetensors.torch.load_file(path)
    with safetensors.safe_open(path, "pt") as file:
        description = json.loads(file.metadata()[native.KEY])
    description.update(changes)
    safetensors.torch.save_file(state, path, {native.KEY: json.dumps(description)})


def test_damaged_descriptions_and_other_schemas_have_their_line(saved: Path) -> None:
    _describe(saved, schema=99)
    with pytest.raises(CheckpointError, match="has schema 99; this version reads schema 1"):
        native.read(saved)
    _describe(saved, schema=1, spec={"name": "x", "neck": 1})
    with pytest.raises(
        CheckpointError, match=r"is damaged, or has a part that .*: spec: unknown key"
    ):
        native.read(saved)
    safetensors.torch.save_file({}, saved, {native.KEY: "[1"})
    with pytest.raises(CheckpointError, match="its description is damaged"):
        native.read(saved)


def test_another_variant_lists_the_differences(saved: Path) -> None:
    with pytest.raises(CheckpointError) as error:
        native.load(saved, variant("retinanet_tiny_sepc"))
    line = str(error.value)
    assert "holds retinanet_tiny_pconv_ibn and does not fit retinanet_tiny_sepc" in line
    assert " missing: necks.1." in line
    assert "and " in line
    assert "\n" not in line
    with pytest.raises(CheckpointError, match=r" unexpected: necks.1."):
        native.load(saved, variant("retinanet_tiny_pconv"))


def test_other_shapes_are_put_side_by_side(saved: Path) -> None:
    spec = variant("retinanet_tiny_pconv_ibn", {"num_classes": 4})
    with pytest.raises(CheckpointError) as error:
        native.load(saved, spec)
    assert (
        "2 other shapes: head.cls_pred.weight [27, 32, 3, 3] in the file, "
        "[36, 32, 3, 3] in the variant"
    ) in str(error.value)


def test_the_differences_are_counted_and_shortened() -> None:
    found = {f"a{i}": torch.zeros(1) for i in range(5)} | {"same": torch.zeros(2)}
    wanted = {"b": torch.zeros(1), "same": torch.zeros(2)}
    line = native.differences(found, wanted)
    assert line == "1 missing: b; 5 unexpected: a0, a1, a2, and 2 more"
    assert native.differences(wanted, wanted) == ""


def test_a_file_that_cannot_be_written_leaves_the_old_one(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = saved.read_bytes()
    detector, _ = native.load(saved)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(CheckpointError, match=r"cannot write checkpoint .*No space left"):
        native.save(saved, detector, CLASSES)
    assert saved.read_bytes() == before
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]


def test_a_folder_that_cannot_be_made_has_its_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    detector = build(variant("retinanet_tiny_fpn"))
    with pytest.raises(CheckpointError, match=r"cannot write checkpoint .*(File exists|Not a dir)"):
        native.save(tmp_path / "file" / "c.safetensors", detector, CLASSES)
