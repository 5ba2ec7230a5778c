"""The names at the top of the package: light to import, and equal to the commands."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pandas
import pytest
from torch import nn

import sepcbench
from sepcbench.cli.app import run
from sepcbench.errors import UsageError
from sepcbench.records import Failure, Latency

TINY = "retinanet_tiny_fpn"


class Neck(nn.Module):
    def __init__(self, in_channels):
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(c, 8, 1) for c in in_channels)

    def forward(self, maps):
        return [conv(x) for conv, x in zip(self.convs, maps)]


def test_importing_is_light_and_names_are_there() -> None:
    code = (
        "import sys, sepcbench\n"
        "heavy = {'torch', 'pandas', 'typer', 'numpy', 'sepcbench.api'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "assert set(sepcbench.__all__) <= set(dir(sepcbench))\n"
        "sepcbench.variant('retinanet_r50_sepc'), sepcbench.suite('quick')\n"
        "assert 'torch' not in sys.modules\n"
        "print(all(callable(getattr(sepcbench, n)) for n in sepcbench.__all__[1:]))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "True", done.stderr
    with pytest.raises(AttributeError, match="no attribute 'flop'"):
        sepcbench.flop  # noqa: B018


def test_flops_is_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["flops", TINY, "--shape", "64x96", "--format", "json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    spec = sepcbench.variant(TINY)
    for target in (TINY, spec, sepcbench.build(spec)):
        found = sepcbench.flops(target, (64, 96))
        assert dict(found.macs) == row["macs"]
        assert found.params == row["params"]


def test_a_module_of_ones_own() -> None:
    counted = sepcbench.flops(Neck, "64x64", backbone="tiny")
    assert counted.exact
    assert counted.variant.endswith(":Neck")
    rows = sepcbench.latency(
        [TINY, Neck, Neck], "64x64", backbone="tiny", scope="neck", rounds=1, max_seconds=2
    )
    assert list(rows) == [TINY, "Neck", "Neck#2"]
    assert all(isinstance(row, Latency) for row in rows.values())
    assert rows["Neck"].ratio.to == TINY
    headed = sepcbench.latency(
        {"mine": Neck}, "64x64", backbone="tiny", scope="end-to-end", rounds=1, max_seconds=2
    )
    assert isinstance(headed["mine"], Failure)


def test_from_data_to_numbers(tmp_path: Path) -> None:
    data = sepcbench.make_shapes(tmp_path / "s", images=4, val_images=2, size="64x64")
    small = sepcbench.variant(TINY, short_side=64, long_side=64)
    detector, record = sepcbench.train(small, data, out=tmp_path / "o", iterations=1, batch=2)
    assert record.iterations == 1
    from_file = sepcbench.evaluate(tmp_path / "o" / "last.safetensors", data)["accuracy"]
    direct = sepcbench.evaluate(detector, data)["accuracy"]
    assert (from_file.ap, from_file.detections) == (direct.ap, direct.detections)
    loaded = sepcbench.load(tmp_path / "o" / "last.safetensors")
    assert loaded.spec.num_classes == 3


def test_a_suite_and_its_flat_records(tmp_path: Path) -> None:
    suite = tmp_path / "two.toml"
    rows = "".join(f'[[row]]\nname = "{n}"\nvariant = "{TINY}"\n' for n in ("a", "b"))
    suite.write_text(f'title = "Two"\n[cost]\nshape = "64x64"\n{rows}')
    found = sepcbench.run(suite, measures=["cost"], results=tmp_path / "results")
    files = sepcbench.write_report(found, tmp_path / "report")
    table = pandas.read_json(next(file for file in files if file.name == "records.json"))
    assert list(table["name"]) == ["a", "b"]
    total = dict(found.rows[0].cost.macs)["total"]
    assert list(table["cost.macs.total"]) == [total, total]
    assert not any(isinstance(value, (dict, list)) for value in table.to_numpy().ravel())


def test_a_run_trains_on_ones_own_set_by_a_recipe(tmp_path: Path) -> None:
    data = sepcbench.make_shapes(tmp_path / "set", images=4, val_images=2, size="64x64")
    suite = tmp_path / "one.toml"
    suite.write_text(f'title = "One"\n[[row]]\nname = "a"\nvariant = "{TINY}"\n')
    short = {"recipe": "shapes", "iterations": 2, "batch": 2}
    places = {"results": tmp_path / "results", "work": tmp_path / "work"}
    found = sepcbench.run(
        suite, measures=["accuracy"], data=data, train=True, recipe=short, workers=1, **places
    )
    (row,) = found.rows
    assert (row.training.iterations, row.training.batch, row.training.images) == (2, 2, 4)
    assert row.accuracy.images == 2


@pytest.mark.parametrize(
    ("call", "line"),
    [
        (lambda: sepcbench.flops("retinanet_r50_spec"), "did you mean 'retinanet_r50_sepc'"),
        (lambda: sepcbench.flops(TINY, "64,64"), "is not HEIGHTxWIDTH"),
        (lambda: sepcbench.latency([TINY], round=3), "did you mean 'rounds'"),
        (lambda: sepcbench.latency([]), "nothing to time"),
        (lambda: sepcbench.train(TINY, ".", iteration=3), "did you mean 'iterations'"),
        (lambda: sepcbench.flops(lambda: 3), "not a torch.nn.Module"),
        (lambda: sepcbench.run("bn", train=True), "train=True needs data="),
        (lambda: sepcbench.run("bn", recipe="3x"), "unknown recipe '3x'"),
        (lambda: sepcbench.run("bn", recipe={"batches": 1}), "did you mean 'batch'"),
    ],
)
def test_bad_calls_have_their_line(call, line: str) -> None:
    with pytest.raises(UsageError, match=line):
        call()


def test_latency_takes_lists_of_conditions():
    short = {"rounds": 1, "samples_per_round": 1, "warmup_iterations": 1, "warmup_seconds": 0}
    found = sepcbench.latency(
        TINY,
        ["64x64", (64, 96)],
        engine=["eager", "folded"],
        batch=[1, 2],
        settle_spread=0,
        **short,
    )
    assert len(found) == 8
    last = found[f"{TINY}@folded-fp32-2-64x96"]
    assert (last.shape, last.eager_ratio.to) == ((64, 96), f"{TINY}@eager-fp32-2-64x96")
    paper = sepcbench.latency(TINY, "64x64", preset="paper", batch=1, warmup_iterations=1, rounds=1)
    assert (paper[TINY].scope, paper[TINY].protocol) == ("pipeline", "paper")
    with pytest.raises(UsageError, match="did you mean 'paper'"):
        sepcbench.latency(TINY, preset="papers")
