"""Damaged checkpoints and training states: loaded, described, or refused in one line."""

import json
import pickle

import numpy as np
import pytest
import torch
from damage import FUZZ, LONG, damaged, damaged_bytes, one_line
from hypothesis import given
from hypothesis import strategies as st

from sepcbench import detectors
from sepcbench.checkpoints import loading, native
from sepcbench.cli.app import run
from sepcbench.data.coco import open_data
from sepcbench.data.shapes import generate
from sepcbench.records import Training
from sepcbench.specs import Recipe
from sepcbench.training import loop
from sepcbench.variants import variant

SPEC = variant("retinanet_tiny_fpn", {"backbone.channels": "8,8,8,8", "necks.0.channels": 8,
                                      "head.channels": 8})  # fmt: skip


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    """A small checkpoint of ours, as bytes."""
    path = tmp_path_factory.mktemp("native") / "a.safetensors"
    training = Training("v", "d", 2, 3, 4, 0, "adamw", 0.1, ((1, 2.0), (2, 1.0)))
    native.save(path, detectors.build(SPEC), ["a", "b", "c"], training)
    return path.read_bytes()


def use(path):
    """All ways in which a file is read."""
    one_line(native.read, path)
    one_line(loading.inspect, path)
    one_line(loading.load, path)


def test_the_undamaged_checkpoint_is_loaded(tmp_path, content):
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    assert loading.load(path).detector.spec == SPEC


@FUZZ
@given(st.data())
def test_a_checkpoint_of_damaged_bytes(tmp_path, content, data):
    path = tmp_path / "a.safetensors"
    path.write_bytes(data.draw(damaged_bytes(content)))
    use(path)


@FUZZ
@given(st.data())
def test_a_checkpoint_with_a_damaged_header(tmp_path, content, data):
    path = tmp_path / "a.safetensors"
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    if data.draw(st.booleans()):
        header = data.draw(damaged(header))
    else:
        about = json.loads(header["__metadata__"][native.KEY])
        header["__metadata__"] = {native.KEY: json.dumps(data.draw(damaged(about)))}
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + length :])
    use(path)


@pytest.fixture(scope="module")
def others(tmp_path_factory):
    """What other programs write: torch's zip, torch's old format, and a pickle of arrays."""
    state = {"backbone.conv1.weight": torch.ones(2, 3), "a": torch.zeros(2, dtype=torch.int64)}
    tree = {"state_dict": state, "meta": {"CLASSES": ("a", "b"), "config": "model = dict(a=1)"}}
    folder = tmp_path_factory.mktemp("others")
    torch.save(tree, folder / "zip.pth")
    torch.save(tree, folder / "old.pth", _use_new_zipfile_serialization=False)
    arrays = {"model": {"w": np.ones((2, 3), np.float32)}, "__author__": "x"}
    (folder / "arrays.pkl").write_bytes(pickle.dumps(arrays, protocol=2))
    return [path.read_bytes() for path in sorted(folder.iterdir())]


@FUZZ
@given(st.data())
def test_a_pickle_of_damaged_bytes(tmp_path, others, data):
    path = tmp_path / "a.pth"
    path.write_bytes(data.draw(damaged_bytes(data.draw(st.sampled_from(others)))))
    use(path)


@FUZZ
@given(
    st.binary(max_size=64), st.sampled_from([b"", b"PK\x03\x04", b"\x80\x02", b"\x80\x04", b"{"])
)
def test_any_bytes_are_no_checkpoint(tmp_path, noise, start):
    path = tmp_path / "a.pth"
    path.write_bytes(start + noise)
    use(path)


@pytest.mark.slow
@LONG
@given(st.data())
def test_many_damaged_checkpoints(tmp_path, content, others, data):
    path = tmp_path / "a.pth"
    path.write_bytes(data.draw(damaged_bytes(data.draw(st.sampled_from([content, *others])))))
    use(path)


@pytest.mark.parametrize(
    "header",
    [
        "[" * 50_000, '{"a":' * 50_000, '{"__metadata__": 1}', '{"a": 1}', '{"a": {}}',
        '{"__metadata__": {"sepcbench": "' + "[" * 50_000 + '"}}',
        '{"__metadata__": {"sepcbench": "[]"}}', '{"__metadata__": {"sepcbench": "{}"}}',
        '{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, null]}}',
        '{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0]}}',
        '{"a": {"dtype": "F32", "shape": [1], "data_offsets": "ab"}}',
        '{"a": {"dtype": "F32", "shape": [' + "9" * 4000 + '], "data_offsets": [0, 4]}}',
        '{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, ' + "9" * 5000 + "]}}",
    ],
    ids=range(13),
)  # fmt: skip
def test_odd_headers_are_one_line(tmp_path, capsys, header):
    path = tmp_path / "odd.safetensors"
    text = header.encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(16))
    use(path)
    assert run(["inspect", str(path)]) in (0, 1, 2)
    err = capsys.readouterr().err
    assert err.count("\n") <= 1
    assert "Traceback" not in err


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    generate(folder / "data", images=2, val_images=1, seed=0, size=(64, 64))
    data = open_data(folder / "data", "train")
    recipe = Recipe(iterations=1, batch=1)
    loop.train(SPEC, data, recipe, out=folder / "out")
    return data, recipe, (folder / "out" / "state.pt").read_bytes()


@FUZZ
@given(st.data())
def test_a_training_state_of_damaged_bytes(tmp_path, trained, data):
    (tmp_path / "state.pt").write_bytes(data.draw(damaged_bytes(trained[2])))
    one_line(resume, tmp_path, trained)


def resume(out, trained):
    data, recipe, _ = trained
    return loop.train(SPEC, data, recipe, out=out, resume=True)


KEYS = [
    "detector", "optimizer", "iteration", "losses", "scores", "meter", "identity", "generators",
]  # fmt: skip


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("value", [None, [], {}, "x", [1], {"x": 1}], ids=str)
def test_a_state_with_something_else_in_it_is_one_line(tmp_path, trained, key, value):
    path = tmp_path / "state.pt"
    path.write_bytes(trained[2])
    state = torch.load(path, weights_only=True)
    torch.save(state | {key: value}, path)
    one_line(resume, tmp_path, trained)
    del state[key]
    torch.save(state, path)
    assert one_line(resume, tmp_path, trained) is None


def test_a_run_starts_a_damaged_training_again(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "s.toml").write_text(
        'title = "s"\nmeasures = ["accuracy"]\n[shapes]\nimages = 2\nval_images = 1\n'
        'size = "64x64"\n[train]\niterations = 1\nbatch = 1\n'
        '[[row]]\nname = "fpn"\nvariant = "retinanet_tiny_fpn"\n'
    )
    assert run(["run", "s.toml"]) == 0
    (state,) = tmp_path.glob("runs/trained/*/state.pt")
    (record,) = tmp_path.glob("results/s/*/records/fpn.accuracy.json")
    wanted = json.loads(record.read_text())["record"]
    state.write_bytes(state.read_bytes()[:1000])
    record.unlink()
    assert run(["run", "s.toml"]) == 0
    assert json.loads(record.read_text())["record"] == wanted
