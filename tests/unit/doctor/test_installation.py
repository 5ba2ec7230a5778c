"""The installation: which versions and builds belong together, and what is missing."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from sepcbench.doctor import examine, guarded, installation
from sepcbench.doctor.finding import Finding
from sepcbench.doctor.installation import pairing


def statuses(found: list[Finding]) -> list[str]:
    return [finding.status for finding in found]


@pytest.mark.parametrize(
    ("torch_version", "vision", "requires", "fits"),
    [
        # pairs of pytorch.org's table
        ("2.0.1", "0.15.2", [], True),
        ("2.4.1", "0.19.1", [], True),
        ("2.11.0", "0.26.0", [], True),
        ("2.11.0", "0.25.0", [], False),
        ("2.10.0a0+git1234", "0.25.0a0+abc", [], True),
        ("2.4.1", "0.19.1", ["numpy", "torch==2.4.1", "pillow>=5.3"], True),
        ("2.5.0", "0.19.1", ["numpy", "torch (==2.4.1)"], False),
        ("2.15.0", "0.29.2", ["torch (>=2.14.0)"], True),
        ("2.13.1", "0.29.2", ["torch (>=2.14.0)"], False),
        ("2.16.0", "0.29.2", ["torch>=2.14,<2.16; python_version > '3'"], False),
        ("2.4.1", "0.19.1", ["torchaudio==2.0", "torch-something>=9"], True),
    ],
)
def test_pairs(torch_version: str, vision: str, requires: list[str], fits: bool) -> None:
    found = list(pairing(torch_version, vision, requires))
    assert statuses(found)[0] == ("ok" if fits else "problem")
    assert bool(found[0].advice) != fits


def test_a_wrong_pair_is_told_with_the_right_one() -> None:
    (found,) = pairing("2.11.0", "0.20.0")
    assert "torchvision 0.26 goes with torch 2.11" in found.text
    assert found.advice == "pip install 'torchvision==0.26.*'"


@pytest.mark.parametrize(
    ("builds", "fits"),
    [
        (("+cu128", "+cpu"), False),
        (("+cpu", "+cu128"), False),
        (("+cu126", "+cu128"), False),
        (("+cu128", "+cu128"), True),
        (("", ""), True),
        (("", "+cpu"), True),  # the wheels of PyPI do not tell their build
    ],
)
def test_builds_for_different_devices(builds: tuple[str, str], fits: bool) -> None:
    found = list(pairing(f"2.11.0{builds[0]}", f"0.26.0{builds[1]}"))
    assert statuses(found) == (["ok"] if fits else ["ok", "problem"])
    if not fits:
        assert found[1].advice.endswith(f"/whl/{builds[0][1:]}")


def test_this_installation_has_no_problem() -> None:
    found = list(installation.check_installation())
    assert "problem" not in statuses(found)
    text = " ".join(finding.text for finding in found)
    assert torch.__version__ in text
    assert "nms and deform_conv2d run on cpu" in text


def test_versions_are_read_with_their_build() -> None:
    assert installation._version("torch") == torch.__version__
    assert installation._version("no-such-package") is None


@pytest.mark.parametrize(("version", "status"), [((3, 10, 4), "problem"), ((3, 11, 0), "ok")])
def test_python(version: tuple[int, ...], status: str) -> None:
    assert installation._python(version).status == status


def test_torch_that_cannot_be_imported_is_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = (None, "cannot be imported: libcudart.so.12: no such file")
    monkeypatch.setattr(installation, "_imported", lambda name: broken)
    last = list(installation.check_installation())[-1]
    assert (last.topic, last.status, last.text) == ("torch", "problem", broken[1])


def test_operators_that_fail_or_lie_are_problems(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object) -> bool:
        raise RuntimeError("Couldn't load custom C++ ops.\nmore text")

    monkeypatch.setattr(installation, "_nms_and_deformable", fail)
    (found,) = installation._operations("cpu")
    assert found.status == "problem"
    assert found.text.endswith("Couldn't load custom C++ ops.")
    monkeypatch.setattr(installation, "_nms_and_deformable", lambda *args: False)
    (found,) = installation._operations("cpu")
    assert found.status == "problem"


@pytest.mark.parametrize(
    ("cuda", "driver", "device", "status"),
    [
        ("12.8", True, "cuda", "ok"),
        (None, False, None, "ok"),
        (None, True, None, "warning"),
        (None, False, "cuda", "problem"),
    ],
)
def test_a_cpu_build_where_there_is_a_gpu(
    cuda: str | None,
    driver: bool,
    device: str | None,
    status: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file = tmp_path / "version"
    if driver:
        file.write_text("NVRM version")
    monkeypatch.setattr(installation, "_NVIDIA", file)
    made = SimpleNamespace(__version__="2.11.0", version=SimpleNamespace(cuda=cuda))
    (found,) = installation._build(made, device)
    assert found.status == status


def test_optional_packages_are_no_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", missing)
    found = list(installation.optional_packages())
    assert [finding.topic for finding in found] == list(installation.OPTIONAL)
    assert set(statuses(found)) == {"info"}
    assert all(finding.advice.startswith("pip install") for finding in found)


def test_onnxruntime_of_a_gpu_is_found_under_its_own_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def only_of_a_gpu(name: str) -> str:
        if name != "onnxruntime-gpu":
            raise metadata.PackageNotFoundError(name)
        return "1.26.0"

    monkeypatch.setattr(metadata, "version", only_of_a_gpu)
    found = {finding.topic: finding for finding in installation.optional_packages()}
    assert (found["onnxruntime"].status, found["onnxruntime"].text) == ("ok", "1.26.0")
    assert found["torch-tensorrt"].status == "info"


def test_a_check_that_breaks_down_is_a_problem_and_the_others_go_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def broken(device: object) -> None:
        raise ValueError("no such thing")

    monkeypatch.setattr("sepcbench.doctor.check_installation", broken)
    told: list[str] = []
    found = examine("cpu", None, (tmp_path,), lambda done, every, label: told.append(label))
    assert found[0].status == "problem"
    assert "no such thing" in found[0].text
    assert {"CPU", f"folder {tmp_path}"} <= {finding.topic for finding in found}
    assert told == ["installation", "processor", "GPU", "disk"]
    assert next(iter(guarded("x", lambda: iter([1 // 0])))).status == "problem"  # type: ignore[list-item]
