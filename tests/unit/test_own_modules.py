"""A user's own module is measured as it is: counts by formula, one line where it cannot be."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from sepcbench.cli.app import run
from sepcbench.errors import UsageError
from sepcbench.measures.cost import cost, count_dispatched
from sepcbench.own_modules import OwnDetector, OwnNeck, build, dress, find, tensors
from sepcbench.specs.own import OwnSpec

SOURCE = """
from torch import nn

class MyNeck(nn.Module):
    def __init__(self, in_channels, channels=16):
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(c, channels, 1) for c in in_channels)

    def forward(self, maps):
        return {"out": tuple(conv(x) for conv, x in zip(self.convs, maps))}

class Greedy(nn.Module):
    def __init__(self, in_channels, widths):
        super().__init__()

class First(MyNeck):
    def forward(self, maps):
        return maps[0] * 2

class Nothing(MyNeck):
    def forward(self, maps):
        super().forward(maps)

class Whole(nn.Module):
    def forward(self, images):
        pass

class Breaks(MyNeck):
    def forward(self, maps):
        raise KeyError("level 9")

def plain():
    return nn.Conv2d(3, 8, 3, padding=1)

def number():
    return 3

made = plain()
"""
# C2 to C5 of the tiny backbone at 64x64: strides 4 to 32, channels of TinySpec
CELLS = (16 * 16, 8 * 8, 4 * 4, 2 * 2)


class Folding(nn.Module):
    """Folds the batch into another dimension: an empty batch would count as nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 5)

    def forward(self, images: Tensor) -> Tensor:
        return self.linear(images.permute(0, 2, 3, 1).reshape(-1, 3))


@pytest.fixture(autouse=True)
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own_necks.py").write_text(SOURCE)
    (tmp_path / "torn.py").write_text("import no_such_thing_at_all\n")
    return tmp_path / "own_necks.py"


def test_a_neck_costs_what_the_formula_says() -> None:
    neck = build(OwnSpec("own_necks.py:MyNeck", "tiny"))
    assert isinstance(neck, OwnNeck)
    channels = neck.backbone.channels
    counted = dict(cost(neck, (64, 64), exact=True).macs)
    assert counted["neck"] == sum(16 * c * cells for c, cells in zip(channels, CELLS))
    assert counted["total"] == counted["backbone"] + counted["neck"]
    assert counted["total"] == count_dispatched(neck, (64, 64))


def test_maps_that_a_neck_does_not_use_are_counted() -> None:
    first = build(OwnSpec("own_necks.py:First", "tiny"))
    assert isinstance(first, OwnNeck)
    everything = count_dispatched(first.backbone, (64, 64))
    counted = dict(cost(first, (64, 64)).macs)
    assert counted == {"total": everything, "backbone": everything, "neck": 0, "head": 0}


def test_a_neck_behind_a_variant_gets_its_pyramid() -> None:
    neck = build(OwnSpec("own_necks.py:MyNeck", "retinanet_tiny_fpn"))
    out = neck(torch.zeros(1, 3, 64, 64))
    assert [tuple(level.shape[1:]) for level in out] == [(16, s, s) for s in (8, 4, 2, 1, 1)]
    with pytest.raises(UsageError, match="pyramid pair"):
        build(OwnSpec("own_necks.py:MyNeck", "retinanet_tiny_pconv"))


def test_what_takes_no_channels_gets_the_images() -> None:
    for target in ("own_necks.py:plain", "own_necks.py:made"):
        whole = build(OwnSpec(target))
        assert isinstance(whole, OwnDetector)
        counted = cost(whole, (6, 10), exact=True)
        assert dict(counted.macs) == {"total": 6 * 10 * 8 * 27}
        assert counted.params == 8 * 27 + 8


def test_a_folded_batch_is_counted_on_a_real_image(capsys: pytest.CaptureFixture[str]) -> None:
    whole = dress(Folding, OwnSpec("a:b"))
    assert dict(cost(whole, (6, 10), exact=True).macs)["total"] == 6 * 10 * 15


def test_seeds_make_the_weights() -> None:
    one, same, other = (build(OwnSpec("own_necks.py:MyNeck", "tiny"), seed=s) for s in (1, 1, 2))
    assert torch.equal(one.neck.convs[0].weight, same.neck.convs[0].weight)
    assert not torch.equal(one.neck.convs[0].weight, other.neck.convs[0].weight)


def test_tensors_of_any_nesting() -> None:
    a, b, c = torch.zeros(1), torch.ones(1), torch.ones(2)
    assert [id(t) for t in tensors({"x": [a, (b, None)], "y": c})] == [id(a), id(b), id(c)]


@pytest.mark.parametrize(
    ("target", "backbone", "line"),
    [
        ("own_necks.py:MyNek", None, "did you mean 'MyNeck'"),
        ("no_such_module:MyNeck", None, "cannot import 'no_such_module'"),
        ("torn.py:MyNeck", None, "No module named 'no_such_thing_at_all'"),
        ("nowhere.py:MyNeck", None, "there is no such file"),
        ("own_necks.py:Greedy", None, "needs 'widths' too"),
        ("own_necks.py:number", None, "gives a int, not a torch.nn.Module"),
        ("own_necks.py:SOURCE", None, "unknown name"),
        ("own_necks.py:MyNeck", "r5", "did you mean 'r50'"),
        ("own_necks.py:MyNeck", "none", "needs 'in_channels' too"),
    ],
)
def test_what_cannot_be_measured_has_its_line(
    target: str, backbone: str | None, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UsageError, match=line.replace("(", "\\(")):
        build(OwnSpec(target, backbone))
    given = ["--backbone", backbone] if backbone else []
    assert run(["flops", target, *given, "--shape", "64x64"]) == 2
    error = capsys.readouterr().err
    assert line in error
    assert len(error.splitlines()) == 1


def test_a_crash_inside_is_one_line_or_a_row(capsys: pytest.CaptureFixture[str]) -> None:
    call = ["own_necks.py:Breaks", "--backbone", "tiny", "--shape", "64x64"]
    assert run(["flops", *call]) == 2
    assert "does not run at 64x64: KeyError" in capsys.readouterr().err
    short = ["--rounds", "1", "--samples", "1", "--max-seconds", "1", "--format", "json"]
    assert run(["latency", "own_necks.py:MyNeck", *call, "--scope", "neck", *short]) == 1
    good, bad = json.loads(capsys.readouterr().out)
    assert good["scope"] == "neck"
    assert "level 9" in bad["reason"]


@pytest.mark.parametrize("name", ["Nothing", "Whole"])
def test_what_gives_no_tensors_is_told_so(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["flops", f"own_necks.py:{name}", "--shape", "64x64"]) == 2
    assert "gives no tensor but NoneType; its forward is to" in capsys.readouterr().err


def test_scopes_with_a_head_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    short = ["--rounds", "1", "--samples", "1", "--max-seconds", "1", "--format", "json"]
    call = ["latency", "own_necks:MyNeck", "--backbone", "tiny", "--shape", "64x64", *short]
    assert run([*call, "--scope", "end-to-end"]) == 1
    (row,) = json.loads(capsys.readouterr().out)
    assert "use --scope neck or forward" in row["reason"]


def test_options_that_nothing_takes_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["flops", "retinanet_tiny_fpn", "--backbone", "r50"]) == 2
    assert "--backbone is for modules of your own" in capsys.readouterr().err
    assert run(["flops", "own_necks.py:MyNeck", "--set", "norm=gn"]) == 2
    assert "--set changes variants" in capsys.readouterr().err


def test_finding_leaves_the_path_alone(file: Path) -> None:
    import sys

    before = list(sys.path)
    assert find(f"{file}:MyNeck").__name__ == "MyNeck"
    assert sys.path == before
