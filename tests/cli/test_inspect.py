"""`inspect` and `eval` of published checkpoints from the command line."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import coco_sets
import lookalikes
import pytest
import torch
from lookalikes import RELEASED, save_mmdet, shapes, variant_of, weights

from sepcbench.checkpoints.class_names import COCO
from sepcbench.cli.app import run

SMALL = ("--set", "short_side=288", "--set", "long_side=512")
# P7 of one image, 3x3: what the extra convs without padding need
SMALLEST = ("--set", "short_side=264", "--set", "long_side=384", "--limit", "1")


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def coco(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two images of COCO's 80 classes, whose ids have gaps."""
    folder = tmp_path_factory.mktemp("coco")
    content = coco_sets.document(2)
    ids = [1 + i + i // 9 for i in range(80)]
    content["categories"] = [{"id": i, "name": name} for i, name in zip(ids, COCO)]
    coco_sets.write(folder, content)
    return folder


def call(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    capsys.readouterr()
    code = run([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    return code, captured.out, captured.err


def released(path: Path, head: str, flavour: str) -> Path:
    pad = 384 if (head, flavour) == ("fsaf", "baseline") else 32
    about = lookalikes.meta(config=lookalikes.config(head, pad), CLASSES=COCO)
    state = weights(lookalikes.released_shapes(head, flavour))
    # every anchor finds something: logits are not all alike
    state["bbox_head.retina_cls.bias"] = torch.linspace(
        -4, 0, len(state["bbox_head.retina_cls.bias"])
    )
    return save_mmdet(path, state, about)


@pytest.mark.parametrize(("head", "flavour"), RELEASED)
def test_inspect_released(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], head: str, flavour: str
) -> None:
    path = released(tmp_path / "epoch_12.pth", head, flavour)
    code, out, _ = call(capsys, "inspect", path, "--format", "json")
    found = json.loads(out)
    assert code == 0
    assert found["variant"] == variant_of(head, flavour)
    assert (found["format"], found["conventions"]) == ("mmdet1", "mmdet1")
    assert found["missing"] == found["unexpected"] == found["other_shapes"] == []


def one_of_each_head():
    """The last file of each head, with the most of SEPC in it; the others are slow."""
    last = dict(RELEASED)
    return [
        pytest.param(head, flavour, marks=() if last[head] == flavour else pytest.mark.slow)
        for head, flavour in RELEASED
    ]


@pytest.mark.parametrize(("head", "flavour"), one_of_each_head())
def test_eval_released(
    coco: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], head: str, flavour: str
) -> None:
    path = released(tmp_path / "epoch_12.pth", head, flavour)
    saved = tmp_path / "boxes.json"
    options = ("--data", coco, "--format", "json", "--save-detections", saved, *SMALLEST)
    code, out, err = call(capsys, "eval", path, *options)
    assert code == 0, err
    (scored,) = json.loads(out)
    assert scored["variant"] == variant_of(head, flavour)
    assert scored["images"] == 1
    assert len(json.loads(saved.read_text())) == scored["detections"] > 0


def test_inspect_says_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = released(tmp_path / "epoch_12.pth", "fsaf", "sepc")
    code, out, _ = call(capsys, "inspect", path, "--format", "md")
    assert code == 0
    for text in (
        "| format | mmdet1 |",
        "mmdetection 1.x, version 1.1.0+4d8557d",
        "| variant | fsaf_r50_sepc |",
        "80: person, bicycle, car, ...",
        "40,544,144 in 424 tensors (365 float32, 59 int64)",
        "meta.mmdet_version is 1.1.0+4d8557d",
        "necks.1.extra_padding = 0 | the released SEPC checkpoints were trained without padding",
    ):
        assert text in out, text


def test_ambiguity_is_stated_and_nothing_is_evaluated(
    coco: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = weights(shapes("keys11/retina_sepc"))
    path = save_mmdet(tmp_path / "epoch_12.pth", state, lookalikes.meta())
    code, out, _ = call(capsys, "inspect", path, "--format", "json")
    assert code == 1
    assert json.loads(out)["variant"] is None
    assert "differ only in head.type" in json.loads(out)["ambiguous"]
    code, out, err = call(capsys, "eval", path, "--data", coco)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert "retinanet_r50_sepc and freeanchor_r50_sepc have the same keys and shapes" in err
    assert "add --variant" in err
    options = ("--variant", "freeanchor_r50_sepc", "--data", coco, "--limit", 1, *SMALL)
    code, out, _ = call(capsys, "eval", path, *options, "--format", "json")
    assert code == 0
    assert json.loads(out)[0]["variant"] == "freeanchor_r50_sepc"


def test_keys_that_differ_are_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = weights(shapes("keys11/fsaf_sepc"))
    del state["bbox_head.retina_reg.bias"]
    state["neck.1.lbn.gamma"] = torch.zeros(1)
    state["neck.1.cbn.bias"] = torch.zeros(3)
    path = save_mmdet(tmp_path / "x.pth", state, lookalikes.meta())
    code, out, _ = call(capsys, "inspect", path, "--variant", "fsaf_r50_sepc", "--format", "csv")
    assert code == 1
    for line in (
        "missing,head.box_pred.bias,",
        "left over,neck.1.lbn.gamma,",
        'other shape,neck.1.cbn.bias,"[3] in the file, [256] in the variant"',
        "nor any other named variant: 1 missing: head.box_pred.bias; 1 unexpected: ",
    ):
        assert line in out, out


def test_conventions_are_chosen_and_overridden(
    coco: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = save_mmdet(tmp_path / "x.pth", weights(shapes("keys11/retina_baseline")), {})
    code, _, err = call(capsys, "eval", path, "--variant", "retinanet_r50_fpn", "--data", coco)
    assert code == 2
    assert "add --conventions mmdet1 or mmdet2" in err
    options = ("--variant", "retinanet_r50_fpn", "--conventions", "mmdet2")
    more = ("--set", "conventions.nms_iou=0.6", "--set", "score_threshold=0.2")
    code, out, _ = call(capsys, "inspect", path, *options, *more, "--format", "json")
    found = json.loads(out)
    assert code == 0
    assert found["conventions"] == "mmdet2"
    assert found["conventions_changed"] == {"score_threshold": "0.2", "nms_iou": "0.6"}
    code, _, err = call(capsys, "inspect", path, "--conventions", "mmdet22")
    assert code == 2
    assert "did you mean 'mmdet2'" in err


def test_classes_without_names_follow_the_ids(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    coco_sets.write(tmp_path)
    state = weights(shapes("keys11/fsaf_baseline"))
    state |= {k: v[:2] for k, v in state.items() if "retina_cls" in k}
    path = save_mmdet(tmp_path / "x.pth", state, lookalikes.meta())
    options = ("--set", "short_side=64", "--set", "pad_divisor=32", "--limit", 1)
    code, _, err = call(capsys, "eval", path, "--data", tmp_path, *options)
    assert code == 0
    assert "does not name its classes; taken in the order of the data's ids" in err
    state |= {k: v[:1] for k, v in state.items() if "retina_cls" in k}
    save_mmdet(path, state, lookalikes.meta())
    code, _, err = call(capsys, "eval", path, "--data", tmp_path, *options)
    assert code == 2
    assert "has 1 classes without names, and" in err


class Runs:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.mkdir, (self.folder,)


def test_unsafe_files_need_trust(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mark, path = tmp_path / "ran", tmp_path / "x.pth"
    state = weights(shapes("keys11/fsaf_sepc"))
    torch.save({"state_dict": state, "x": Runs(mark)}, path, pickle_module=pickle)
    code, out, err = call(capsys, "inspect", path)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "is refused: it asks for '" in err
    assert not mark.exists()
    code, out, _ = call(capsys, "inspect", path, "--trust", "--format", "json")
    assert code == 0
    assert json.loads(out)["variant"] == "fsaf_r50_sepc"
    assert mark.exists()
