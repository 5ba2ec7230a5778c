"""Reading files of others: wrappers, averages, dtypes, damage, and pickles that would run code."""

from __future__ import annotations

import io
import os
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import lookalikes
import numpy as np
import pytest
import safetensors.torch
import torch
from lookalikes import save_mmdet, shapes, weights

from sepcbench.checkpoints.contents import read
from sepcbench.checkpoints.loading import inspect, load
from sepcbench.checkpoints.matching import Wishes
from sepcbench.errors import CheckpointError

STATE = {"a.weight": torch.arange(6.0).view(2, 3), "a.bias": torch.ones(2)}


def fails(path: Path, *texts: str, trust: bool = False) -> str:
    with pytest.raises(CheckpointError) as error:
        read(path, trust)
    line = str(error.value)
    assert "\n" not in line
    assert str(path) in line
    for text in texts:
        assert text in line, line
    return line


@pytest.mark.parametrize(
    "tree",
    [
        STATE,
        OrderedDict(STATE),
        {"state_dict": STATE, "meta": lookalikes.meta()},
        {"model": STATE, "epoch": 1},
        {"model": {key: value.numpy() for key, value in STATE.items()}},
        {"state_dict": {f"module.{key}": value for key, value in STATE.items()}},
        {"state_dict": {f"module._orig_mod.{key}": value for key, value in STATE.items()}},
    ],
)
@pytest.mark.parametrize("old", [True, False])
def test_the_state_dict_is_found(tmp_path: Path, tree: Any, old: bool) -> None:
    path = tmp_path / "x.bin"
    torch.save(tree, path, _use_new_zipfile_serialization=not old)
    found = read(path)
    assert found.container == "torch"
    assert list(found.state) == list(STATE)
    for key, value in STATE.items():
        assert torch.equal(found.state[key], value)


def test_other_containers(tmp_path: Path) -> None:
    safetensors.torch.save_file(STATE, tmp_path / "x", {"format": "pt"})
    found = read(tmp_path / "x")
    assert (found.container, found.about) == ("safetensors", {"format": "pt"})
    assert torch.equal(found.state["a.weight"], STATE["a.weight"])
    for protocol in range(2, 6):
        arrays = {"model": {key: value.numpy() for key, value in STATE.items()}, "x": np.float64(2)}
        (tmp_path / "y").write_bytes(pickle.dumps(arrays, protocol))
        found = read(tmp_path / "y")
        assert (found.container, found.about) == ("pickle", {"x": 2.0})
        assert torch.equal(found.state["a.weight"], STATE["a.weight"])


def test_arrays_of_python_2_programs(tmp_path: Path) -> None:
    """As old model zoos: names of Python 2 and numpy 1, bytes as text."""
    content = pickle.dumps({"model": {"a": np.arange(3.0)}}, protocol=2)
    content = content.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    (tmp_path / "x.pkl").write_bytes(content)
    assert read(tmp_path / "x.pkl").state["a"].tolist() == [0, 1, 2]


def test_other_dtypes_are_read_as_float32_and_reported(tmp_path: Path) -> None:
    state = {"a": torch.ones(2).half(), "b": torch.ones(2).bfloat16(), "n": torch.tensor(3)}
    torch.save(state, tmp_path / "x.pth")
    found = read(tmp_path / "x.pth")
    assert found.dtypes == (("bfloat16", 1), ("float16", 1), ("int64", 1))
    assert found.notes == (
        "1 tensors in bfloat16, read as float32",
        "1 tensors in float16, read as float32",
    )
    assert [value.dtype for value in found.state.values()] == [torch.float32] * 2 + [torch.int64]


def test_averages_are_left_out_and_reported(tmp_path: Path) -> None:
    """mmdetection 2.x keeps them as buffers named after the keys, 3.x beside the state dict."""
    copies = {f"ema_{key.replace('.', '_')}": value + 1 for key, value in STATE.items()}
    torch.save({"state_dict": {**STATE, **copies}}, tmp_path / "x.pth")
    found = read(tmp_path / "x.pth")
    assert list(found.state) == list(STATE)
    assert found.notes == ("2 'ema_' keys left out: the plain keys hold the averaged weights",)
    torch.save({"state_dict": STATE, "ema_state_dict": copies}, tmp_path / "x.pth")
    assert "'ema_state_dict' left out" in read(tmp_path / "x.pth").notes[0]


# --- nothing in a file is run ------------------------------------------------------------------


class Runs:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("kind", ["zip", "old", "plain"])
@pytest.mark.parametrize("place", ["meta", "state_dict"])
def test_a_pickle_that_would_run_code_does_not(tmp_path: Path, kind: str, place: str) -> None:
    mark, path = tmp_path / "ran", tmp_path / "x.pth"
    tree: dict[str, Any] = {"state_dict": dict(STATE), "meta": {}}
    tree[place]["x"] = Runs(mark)
    if kind == "plain":
        tree["state_dict"] = {**tree["state_dict"], **{k: v.numpy() for k, v in STATE.items()}}
        path.write_bytes(pickle.dumps(tree))
    else:
        torch.save(tree, path, _use_new_zipfile_serialization=kind == "zip")
    fails(path, "is refused", f"'{os.mkdir.__module__}.mkdir'", "--trust")
    assert not mark.exists()
    assert "a.weight" in read(path, trust=True).state
    assert mark.exists()


@pytest.mark.parametrize(
    "code",
    [
        b"cbuiltins\neval\n(V1+1\ntR.",
        b"cbuiltins\ngetattr\n(cbuiltins\neval\nV__call__\ntR.",
        b"cbuiltins\ngetattr\n(cnumpy\nndarray\nVtofile\ntR.",
        b"cnumpy\nload\n(Vx\ntR.",
        b"ctorch\nload\n(Vx\ntR.",
        b"c_codecs\nencode\n(Vx\nVutf-7\ntR.",
        b"csepcbench.checkpoints.pickles\nload_plain\n.",
    ],
)
def test_ways_around_the_list_are_closed(tmp_path: Path, code: bytes) -> None:
    path = tmp_path / "x.pkl"
    path.write_bytes(b"\x80\x02" + code)
    fails(path, "is refused: it asks for '")


def test_what_the_programs_write_beside_the_weights_is_read(tmp_path: Path) -> None:
    with lookalikes.mmengine() as history:
        hub = {"log_scalars": {"loss": history(), "lr": history()}}
        torch.save({"state_dict": STATE, "message_hub": hub, "meta": lookalikes.meta()},
                   tmp_path / "x.pth")  # fmt: skip
    found = read(tmp_path / "x.pth")
    assert found.meta["iter"] == 87960
    losses = found.about["message_hub"]["log_scalars"]["loss"]
    assert losses._log_history.tolist() == [0.7, 0.5]
    assert not hasattr(losses, "min")


def test_trusting_a_file_whose_package_is_missing_has_its_line(tmp_path: Path) -> None:
    with lookalikes.mmengine() as history:
        torch.save({"state_dict": STATE, "x": history()}, tmp_path / "x.pth")
    fails(tmp_path / "x.pth", "package that is not installed", "mmengine", trust=True)


# --- damage ------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.01, 0.3, 0.7, 0.99])
@pytest.mark.parametrize("kind", ["zip", "old", "plain"])
def test_truncated_files(tmp_path: Path, share: float, kind: str) -> None:
    whole, path = io.BytesIO(), tmp_path / "x.pth"
    state = {"a": torch.randn(50, 50), "b": torch.randn(50, 50)}
    if kind == "plain":
        pickle.dump({key: value.numpy() for key, value in state.items()}, whole)
    else:
        torch.save(state, whole, _use_new_zipfile_serialization=kind == "zip")
    content = whole.getvalue()
    path.write_bytes(content[: int(len(content) * share)])
    fails(path, "is damaged or truncated")


def test_what_is_no_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    fails(path, "is not there")
    fails(tmp_path, "cannot be read")
    path.write_bytes(b"")
    fails(path, "is truncated (0 bytes)")
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    fails(path, "is not a checkpoint: it is no torch file")
    path.write_bytes(pickle.dumps([1, 2]))
    fails(path, "it holds a list, not a state dict")
    torch.save({"epoch": 3, "best": 0.5}, path)
    fails(path, "holds no state dict; at its top level: 'epoch', 'best'")
    torch.save({}, path)
    fails(path, "at its top level: nothing")
    torch.save({"layer.weight": torch.zeros(1), "other": torch.zeros(1)}, path)
    with pytest.raises(CheckpointError, match=r"no format known here \(layer.weight, other, ...\)"):
        load(path)


def test_nan_weights_are_reported_and_not_used(tmp_path: Path) -> None:
    state = weights(shapes("keys11/fsaf_baseline"))
    state["bbox_head.retina_cls.bias"] = torch.full((80,), float("nan"))
    state["neck.fpn_convs.0.conv.bias"] = torch.full((256,), float("inf"))
    path = save_mmdet(tmp_path / "x.pth", state, lookalikes.meta())
    found = inspect(path)
    assert set(found.not_finite) == {"bbox_head.retina_cls.bias", "neck.fpn_convs.0.conv.bias"}
    assert found.variant == "fsaf_r50_fpn"
    with pytest.raises(CheckpointError, match="NaN or infinite values in 2 tensors, the first"):
        load(path)


def test_half_the_keys(tmp_path: Path) -> None:
    state = weights(shapes("keys11/fsaf_sepc"))
    half = dict(list(state.items())[: len(state) // 2])
    half["bbox_head.retina_cls.bias"] = state["bbox_head.retina_cls.bias"]
    half["bbox_head.new.weight"] = torch.zeros(1)
    path = save_mmdet(tmp_path / "x.pth", half, lookalikes.meta())
    wishes = Wishes("fsaf_r50_sepc")
    found = inspect(path, wishes)
    counted = [key for key in state if key not in half and "num_batches" not in key]
    assert len(found.missing) == len(counted)
    assert found.unexpected == ("bbox_head.new.weight",)
    with pytest.raises(CheckpointError) as error:
        load(path, wishes)
    for text in (f"{len(counted)} missing: ", f"and {len(counted) - 3} more", "1 unexpected: "):
        assert text in str(error.value)


def test_counters_of_batches_may_be_left_out(tmp_path: Path) -> None:
    state = {k: v for k, v in weights(shapes("keys11/fsaf_sepc")).items() if "num_batches" not in k}
    path = save_mmdet(tmp_path / "x.pth", state, lookalikes.meta())
    loaded = load(path)
    assert loaded.inspection.missing == ()
    assert int(loaded.detector.state_dict()["backbone.bn1.num_batches_tracked"]) == 0


def test_another_depth_names_the_variant_that_it_fits(tmp_path: Path) -> None:
    deep = {}
    for key, shape in shapes("keys11/fsaf_baseline").items():
        deep[key] = shape
        if key.startswith("backbone.layer3.5."):
            deep |= {key.replace(".5.", f".{i}."): shape for i in range(6, 23)}
    path = save_mmdet(tmp_path / "x.pth", weights(deep), lookalikes.meta())
    assert inspect(path).variant == "fsaf_r101_fpn"
    with pytest.raises(CheckpointError) as error:
        load(path, Wishes("fsaf_r50_fpn"))
    assert "does not fit fsaf_r50_fpn but fsaf_r101_fpn: " in str(error.value)
    assert "unexpected: backbone.layer3.6.conv1.weight" in str(error.value)
