"""Every example in the help of a command runs, at a small size and on a tiny made set."""

from __future__ import annotations

import importlib
import json
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from sepcbench.checkpoints.native import save
from sepcbench.cli.app import COMMANDS, run
from sepcbench.data.shapes import CLASSES, generate
from sepcbench.detectors import build
from sepcbench.variants import variant

RESULTS = Path(__file__).parents[2] / "results" / "quick"
SIZE = 64
SMALL = {"short_side": SIZE, "long_side": SIZE}
SMALL_SETS = [word for name, side in SMALL.items() for word in ("--set", f"{name}={side}")]
ON_CPU = ["--device", "cpu"]
SHORT = ["--rounds", "1", "--samples", "1", "--max-seconds", "1", "--dtype", "fp32"]

MY_NECK = """
from torch import nn

class MyNeck(nn.Module):
    def __init__(self, in_channels, channels=16):
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(c, channels, 1) for c in in_channels)

    def forward(self, maps):
        return [conv(x) for conv, x in zip(self.convs, maps)]
"""

NO_DOWNLOAD = ["--recipe", "pretrained=", "--workers", "0"]

# What makes an example cheap here, after its own words: the last of an option counts.
ADDED: dict[str, list[str]] = {
    "flops": ["--shape", f"{SIZE}x{SIZE}"],
    "show": ["--shape", f"{SIZE}x{SIZE}"],
    "latency": ["--shape", f"{SIZE}x{SIZE}", *SHORT, *ON_CPU],
    "eval": ["--limit", "2", *ON_CPU],
    "train": ["--overwrite", "--batch", "2", *SMALL_SETS, *ON_CPU, *NO_DOWNLOAD],
    "run": ["--measures", "cost", "--results", "measured"],
    "data shapes": ["--images", "2", "--val-images", "2", "--size", f"{SIZE}x{SIZE}"],
}
NEEDS_GPUS = "--jobs cuda:0,cuda:1"  # devices by name; what has --device gets the CPU instead
NEEDS_RESULTS = ("report", "compare")


def examples() -> list[tuple[str, str]]:
    """The command and the line of every example."""
    functions = {**COMMANDS, "data shapes": ("data", "shapes")}
    found = []
    for command, (module, function) in functions.items():
        made = getattr(importlib.import_module(f"sepcbench.cli.{module}"), function)
        lines = re.findall(r"Example: (.+)", made.__doc__)
        found += [(command, line.strip()) for line in lines]
    return found


EXAMPLES = examples()
SLOW = ("retinanet_r50_fpn --data", "photo.jpg", "--plots", "--scales")


def cases() -> list[Any]:
    """The examples as parameters; those that take seconds even so are slow."""
    return [
        pytest.param(
            *found, id=found[1], marks=[pytest.mark.slow] * any(t in found[1] for t in SLOW)
        )
        for found in EXAMPLES
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with everything that the examples name."""
    here = tmp_path_factory.mktemp("examples")
    generate(here / "shapes", images=4, val_images=4, seed=0, size=(SIZE, SIZE))
    shutil.copytree(here / "shapes", here / "coco")
    (here / "my_neck.py").write_text(MY_NECK)
    Image.new("RGB", (SIZE, SIZE), (90, 120, 60)).save(here / "photo.jpg")
    torch.manual_seed(0)
    sepc = here / "runs/sepc/last.safetensors"
    for path, name in ((sepc, "retinanet_tiny_sepc"), (here / "runs/rpn", "rpn_tiny_fpn")):
        path = path if path.suffix else path / "last.safetensors"
        path.parent.mkdir(parents=True)
        save(path, build(variant(name, SMALL)), CLASSES, None)
    for name in ("a.safetensors", "b.safetensors", "retinanet.pth", "retinanet_sepc.pth"):
        shutil.copy(sepc, here / name)
    large = build(variant("retinanet_r50_fpn"))
    save(here / "model_final.pkl", large, [f"class {i}" for i in range(80)], None)
    _write_detections(here)
    return here


def _in_one_process(line: str) -> str:
    """Without torchrun, whose processes import torch for seconds: those have tests of their own."""
    return re.sub(r"^torchrun --nproc-per-node \d+ -m ", "", line)


def _write_detections(here: Path) -> None:
    truth = json.loads((here / "shapes/annotations/instances_val.json").read_text())
    trained = json.loads((here / "shapes/annotations/instances_train.json").read_text())
    ids = [image["id"] for image in truth["images"]]
    assert ids == [image["id"] for image in trained["images"]]
    boxes = [
        {"image_id": i, "category_id": 1, "bbox": [4, 4, 20, 20], "score": 0.5} for i in ids
    ]  # category 1 is also that of a proposal
    for name in ("detections.json", "proposals.json"):
        (here / name).write_text(json.dumps(boxes))


@pytest.fixture
def results(folder: Path) -> None:
    """Stored results of two machines, and of before a change."""
    if not RESULTS.is_dir():
        pytest.skip("this copy of the project has no results")
    measured = next(RESULTS.glob("*/suite.json")).parent
    places = ["results/quick/intel-xeon-2-cores", "results/quick/nvidia-h200"]
    places += [f"node{i}/results/quick/intel-xeon-2-cores" for i in (1, 2)]
    places += ["results/appendix1/intel-xeon-2-cores", "twice/before/quick", "twice/results/quick"]
    for place in places:
        shutil.copytree(measured, folder / place, dirs_exist_ok=True)


@pytest.mark.parametrize("command", sorted({command for command, _ in EXAMPLES} | set(COMMANDS)))
def test_every_command_has_two_examples(command: str) -> None:
    assert len([line for name, line in EXAMPLES if name == command]) >= 2


@pytest.mark.parametrize(("command", "line"), cases())
def test_an_example_runs(
    command: str,
    line: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if command in NEEDS_RESULTS:
        request.getfixturevalue("results")
    monkeypatch.chdir(folder / "twice" if "before/" in line else folder)
    _write_detections(folder)  # some examples write over them
    program, *arguments = shlex.split(_in_one_process(line))
    assert program == "sepcbench"
    assert " ".join(arguments).startswith(command)
    added = list(ADDED.get(command, []))
    if command == "train" and "--epochs" not in arguments:
        added += ["--iterations", "1"]
    if command == "data shapes":
        arguments[2] = "made/"  # the other examples need the set that is there
    code = run([*arguments, *added])
    captured = capsys.readouterr()
    if NEEDS_GPUS in line and torch.cuda.device_count() < 2:
        assert (code, len(captured.err.splitlines())) == (2, 1)
        assert "CUDA device" in captured.err
        return
    assert code == 0, captured.err
    assert captured.out or command in ("draw",)
