"""Wheel and sdist: built from the tree, installed into a fresh environment, used from elsewhere."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow


def call(*arguments: object, cwd: Path) -> str:
    done = subprocess.run(
        [str(argument) for argument in arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    call(sys.executable, "-m", "hatchling", "build", "-d", out, cwd=ROOT)
    return out


def test_a_wheel_holds_suites_types_and_the_page(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    suites = {path.name for path in (ROOT / "suites").glob("*.toml")}
    assert {f"sepcbench/_suites/{name}" for name in suites} <= names
    assert {"sepcbench/py.typed", "sepcbench/report/page/page.html"} <= names
    assert not any(name.startswith(("tests/", "results/", "docs/")) for name in names)


def test_an_sdist_can_be_built_and_tested(built: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    wanted = {"pyproject.toml", "README.md", "LICENSE", "gpu.sh", "suites/quick.toml"}
    assert wanted | {"docs/getting-started.md", "tests/conftest.py"} <= names
    assert not any("__pycache__" in name for name in names)


@pytest.mark.parametrize("kind", ["whl", "tar.gz"])
def test_it_installs_clean_and_runs_from_elsewhere(built: Path, tmp_path: Path, kind: str) -> None:
    (file,) = built.glob(f"*.{kind}")
    home = tmp_path / "env"
    venv.create(home, with_pip=False)
    python = home / "bin" / "python"
    # the heavy packages of the environment that runs the tests, and its build backend
    site = Path(pytest.__file__).parents[1]
    installed = call(python, "-c", "import site; print(site.getsitepackages()[0])", cwd=tmp_path)
    target = Path(installed.strip())
    flags = ("--no-deps", "--no-build-isolation", "--no-index", "--target", target)
    call(sys.executable, "-m", "pip", "install", *flags, file, cwd=tmp_path)
    # as a path file, read after the folder of the new environment, whose sepcbench comes first
    (target / "others.pth").write_text(f"{site}\n")
    where = call(python, "-c", "import sepcbench; print(sepcbench.__file__)", cwd=tmp_path)
    assert where.strip().startswith(str(home))
    listed = call(python, "-m", "sepcbench", "list", "suites", "--format", "csv", cwd=tmp_path)
    assert {line.split(",")[0] for line in listed.splitlines()} >= {"quick", "appendix1"}
    counted = call(
        *(python, "-m", "sepcbench", "flops", "retinanet_tiny_fpn"),
        *("--shape", "64x64", "--format", "csv"),
        cwd=tmp_path,
    )
    assert "retinanet_tiny_fpn" in counted
