"""The environment record, and flags that are set only while measuring."""

import subprocess
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch

from sepcbench import codec
from sepcbench.measures.environment import (
    environment,
    float32,
    git_commit,
    measuring,
    on_device,
    slug,
    usable_cores,
)
from sepcbench.records import Environment


def test_record_of_this_machine():
    found = environment("cpu")
    assert codec.decode(Environment, codec.encode(found)) == found
    assert found.cores == usable_cores() >= 1
    assert found.threads == torch.get_num_threads()
    assert (found.gpu, found.driver) == (None, None)
    assert found.machine == slug(found.machine)
    assert found.machine.endswith(("-cores", "-core"))
    versions = dict(found.versions)
    assert versions["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert {"python", "torchvision", "fvcore", "numpy", "sepcbench"} <= set(versions)


def test_record_has_no_host_and_no_path():
    import getpass
    import socket

    text = str(codec.encode(environment("cpu")))
    assert socket.gethostname() not in text
    assert str(Path.home()) not in text
    assert f"/{getpass.getuser()}/" not in text


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("NVIDIA H200", "nvidia-h200"),
        ("Intel(R) Xeon(R) Gold 6130 CPU @ 2.10GHz 2 cores", "intel-xeon-gold-6130-2-cores"),
        ("AMD EPYC 7B13 64-Core Processor 1 core", "amd-epyc-7b13-64-core-1-core"),
        ("12th Gen Intel(R) Core(TM) i7-1260P", "12th-gen-intel-core-i7-1260p"),
    ],
)  # fmt: skip
def test_slug(name, expected):
    assert slug(name) == expected


FLAGS = (True, False)


@pytest.mark.parametrize("precision", ["highest", "high", "medium"])
@pytest.mark.parametrize("cudnn_tf32", FLAGS)
def test_flags_are_set_and_restored(precision, cudnn_tf32):
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul

    def flags():
        return (cudnn.allow_tf32, cudnn.benchmark, cudnn.deterministic,
                matmul.allow_tf32, torch.get_float32_matmul_precision())  # fmt: skip

    before = flags()
    try:
        torch.set_float32_matmul_precision(precision)
        cudnn.allow_tf32 = cudnn_tf32
        outside = flags()
        with measuring():
            assert (cudnn.allow_tf32, matmul.allow_tf32, cudnn.benchmark) == (False, False, True)
            assert not cudnn.deterministic
            with float32(tf32=True):
                assert (cudnn.allow_tf32, matmul.allow_tf32) == (True, True)
            assert (cudnn.allow_tf32, matmul.allow_tf32) == (False, False)
        with measuring(tf32=True):
            assert (cudnn.allow_tf32, matmul.allow_tf32, cudnn.benchmark) == (True, True, True)
        assert flags() == outside
        with pytest.raises(ZeroDivisionError), measuring():
            1 / 0  # noqa: B018
        assert flags() == outside
    finally:
        cudnn.allow_tf32, cudnn.benchmark, cudnn.deterministic = before[:3]
        torch.set_float32_matmul_precision(before[4])


def test_a_gpu_that_is_measured_is_the_current_one(monkeypatch):
    """Streams, events and graphs are made on the current one, not on that of the tensors."""
    entered = []
    monkeypatch.setattr(
        torch.cuda, "device", lambda device: entered.append(device) or nullcontext()
    )
    with on_device("cuda:1"), on_device("cuda"), on_device("cpu"):
        assert entered == [torch.device("cuda:1"), torch.device("cuda")]


def test_recorded_flags_are_those_while_measuring():
    flags = dict(environment("cpu").flags)
    assert flags["cudnn.allow_tf32"] == flags["cuda.matmul.allow_tf32"] == "false"
    assert flags["cudnn.benchmark"] == "true"


def git(folder, *arguments):
    who = ("-c", "user.name=test", "-c", "user.email=test@example.com")
    done = subprocess.run(
        ["git", *who, "-C", str(folder), *arguments], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_git_commit(tmp_path):
    assert git_commit(tmp_path) is None
    git(tmp_path, "init", "-q")
    assert git_commit(tmp_path) is None  # no commit yet
    package = tmp_path / "sepcbench"
    package.mkdir()
    (package / "a.py").write_text("a = 1\n")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "first")
    head = git(tmp_path, "rev-parse", "HEAD")
    assert git_commit(tmp_path) == head
    (tmp_path / "results.json").write_text("{}")
    assert git_commit(tmp_path) == head  # results do not make the code another
    (package / "a.py").write_text("a = 2\n")
    assert git_commit(tmp_path) == f"{head}+changes"
    assert git_commit(package) is None


@pytest.mark.gpu
def test_record_of_a_gpu():
    found = environment("cuda")
    assert found.gpu == torch.cuda.get_device_name()
    assert found.machine == slug(found.gpu)
    assert found.driver
    assert {"cuda", "cudnn"} <= set(dict(found.versions))
