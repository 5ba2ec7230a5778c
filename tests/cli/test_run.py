"""`sepcbench run` and `report`, end to end on a suite that is trained for a few steps."""

import errno
import json
import os
import subprocess
import sys

import pytest

from sepcbench.cli.app import run

SUITE = """
title = "Small"
[cost]
shape = "64x64"
[latency]
shape = "64x64"
[latency.protocol]
rounds = 3
samples_per_round = 2
warmup_iterations = 2
warmup_seconds = 0.01
[shapes]
images = 16
val_images = 6
size = "64x64"
[train]
iterations = 3
batch = 4
warmup_iterations = 1
[[row]]
name = "fpn"
variant = "retinanet_tiny_fpn"
[[row]]
name = "broken"
label = "Broken"
variant = "retinanet_tiny_pconv_gn"
set = { "necks.1.groups" = 7 }
[[row]]
name = "sepc"
variant = "retinanet_tiny_sepc"
[[claim]]
name = "SEPC against FPN"
formula = "sepc.macs / fpn.macs"
published = 1.0
"""


@pytest.fixture
def small(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.toml").write_text(SUITE)
    return tmp_path


def records(folder):
    return sorted(folder.glob("results/small/*/records/*.json"))


def command(*more):
    return run(["run", "small.toml", *more])


def test_a_suite_runs_with_a_row_that_fails_and_resumes(small, capsys):
    assert command() == 1
    names = {path.name for path in records(small)}
    for row in ("fpn", "sepc"):
        assert {
            f"{row}.{kind}.json" for kind in ("cost", "latency", "training", "accuracy")
        } <= names
    broken = json.loads(next(p for p in records(small) if p.name == "broken.cost.json").read_text())
    assert broken["failed"]
    assert "7" in broken["record"]["reason"]
    out = capsys.readouterr().out
    assert "Failed: Broken, cost:" in out
    assert "SEPC against FPN" in out

    before = {path: path.stat().st_mtime_ns for path in records(small) if "broken" not in path.name}
    assert command("--measures", "cost,accuracy") == 1
    assert {path: path.stat().st_mtime_ns for path in before} == before

    folder = records(small)[0].parent.parent
    rows = (folder / "table.md").read_text().split("###")[1]
    assert rows.count("| fpn |") == 1
    assert (folder / "ap_over_latency.png").stat().st_size > 5000
    check_report_needs_no_torch(small, folder)


def check_report_needs_no_torch(small, folder):
    """From the folder alone: the suite file is gone."""
    (small / "small.toml").unlink()
    code = (
        "import sys\n"
        "sys.modules['torch'] = None\n"
        "from sepcbench.cli.app import run\n"
        f"sys.exit(run(['report', {str(folder)!r}, '--format', 'json']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    value = json.loads(done.stdout)
    assert [row["name"] for row in value[0]["rows"]] == ["fpn", "broken", "sepc"]
    assert value[0]["rows"][0]["cost"]["macs"]["total"] > 0


def test_ctrl_c_keeps_what_was_measured(small, monkeypatch, capsys):
    from sepcbench.measures import cost as measure

    real, calls = measure.cost, []

    def interrupted(*args, **kwargs):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*args, **kwargs)

    monkeypatch.setattr(measure, "cost", interrupted)
    assert command("--measures", "cost") == 130
    assert "what was measured is kept" in capsys.readouterr().err
    assert [path.name for path in records(small)] == ["broken.cost.json", "fpn.cost.json"]


def test_ctrl_c_before_anything_is_measured_says_nothing_of_it(small, monkeypatch, capsys):
    from sepcbench.measures import cost as measure

    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(measure, "cost", interrupted)
    assert command("--measures", "cost") == 130
    err = capsys.readouterr().err
    assert "sepcbench: interrupted" in err
    assert "kept" not in err
    assert records(small) == []


def test_one_row_alone_is_still_timed_against_the_first(small):
    """`--only` must not turn a ratio into 1: the first row is timed with it, but not replaced."""
    assert command("--only", "sepc", "--measures", "latency") == 0
    record = json.loads(records(small)[0].read_text())["record"]
    assert record["ratio"]["to"] == "fpn"
    assert record["interleaved_with"] == ["fpn"]
    assert [path.name for path in records(small)] == ["sepc.latency.json"]


def test_a_reference_that_fails_leaves_the_ratios_empty(small, capsys):
    working = '[[row]]\nname = "fpn"\nvariant = "retinanet_tiny_fpn"\n'
    text = SUITE.replace(working, "").replace('name = "broken"', 'name = "fpn"')
    (small / "small.toml").write_text(text)
    assert command("--measures", "latency") == 1
    out = capsys.readouterr().out
    sepc = next(path for path in records(small) if path.name == "sepc.latency.json")
    stored = json.loads(sepc.read_text())["record"]
    assert stored["ratio"] is None
    assert stored["reference"] == "fpn"
    assert "1.000" not in out


def test_ctrl_c_while_timing_keeps_the_complete_rounds(small, monkeypatch):
    from sepcbench.measures import timers

    real, calls = timers.CpuTimer.time, []

    def interrupted(self, call):
        calls.append(1)
        if len(calls) == 18:
            raise KeyboardInterrupt
        return real(self, call)

    settings = "rounds = 3\nsamples_per_round = 2\nwarmup_iterations = 2\nwarmup_seconds = 0.01"
    quick = "rounds = 9\nsamples_per_round = 1\nwarmup_iterations = 0\nwarmup_seconds = 0.0"
    (small / "small.toml").write_text(SUITE.replace(settings, quick))
    monkeypatch.setattr(timers.CpuTimer, "time", interrupted)
    assert command("--measures", "latency") == 130
    stored = [json.loads(path.read_text())["record"] for path in records(small)]
    timed = [record for record in stored if "samples_s" in record]
    assert [record["stopped"] for record in timed] == ["interrupted"] * 2
    assert len({len(record["samples_s"]) for record in timed}) == 1
    monkeypatch.setattr(timers.CpuTimer, "time", real)
    assert command("--measures", "latency") == 1
    stored = [json.loads(path.read_text())["record"] for path in records(small)]
    assert {r["stopped"] for r in stored if "stopped" in r} == {"rounds"}


def test_a_checkpoint_that_changed_is_scored_again(small):
    assert command("--only", "fpn", "--measures", "accuracy") == 0
    checkpoint = next(small.glob("runs/trained/retinanet_tiny_fpn-*/last.safetensors"))
    data = str(next(small.glob("runs/shapes/*")))
    given = ["--measures", "accuracy", "--data", data, "--checkpoint", "fpn=own.safetensors"]
    copy = small / "own.safetensors"
    copy.write_bytes(checkpoint.read_bytes())
    assert command(*given) == 0
    first = json.loads(next(small.glob("results/small/*/records/fpn.accuracy.json")).read_text())
    retrain = ["train", "retinanet_tiny_fpn", "--data", data, "--out", "again", "--seed", "1"]
    assert run([*retrain, "--iterations", "2"]) == 0
    copy.write_bytes((small / "again" / "last.safetensors").read_bytes())
    assert command(*given) == 0
    second = json.loads(next(small.glob("results/small/*/records/fpn.accuracy.json")).read_text())
    assert first["record"]["checkpoint"] != second["record"]["checkpoint"]


def test_a_whole_results_folder_is_reported(small, capsys):
    assert command("--only", "fpn", "--measures", "cost") == 0
    capsys.readouterr()
    assert run(["report", "results", "--format", "json"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == 1


def test_a_full_disk_is_one_line_and_loses_nothing(small, monkeypatch, capsys):
    assert command("--measures", "cost", "--only", "fpn") == 0
    before = records(small)[0].read_text()
    capsys.readouterr()

    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    assert command("--measures", "cost", "--fresh") == 2
    err = capsys.readouterr().err
    lines = [line for line in err.splitlines() if line.startswith("sepcbench: ")]
    assert len(lines) == 1
    assert "No space left on device" in lines[0]
    assert records(small)[0].read_text() == before


def test_a_given_checkpoint_is_scored_and_the_rest_stays_empty(small, capsys):
    assert command("--only", "fpn", "--measures", "accuracy") == 0
    checkpoint = next(small.glob("runs/trained/retinanet_tiny_fpn-*/last.safetensors"))
    data = next(small.glob("runs/shapes/*"))
    (small / "runs" / "own.toml").write_text(
        SUITE.split("[shapes]")[0] + SUITE[SUITE.index("[[row]]") :]
    )
    capsys.readouterr()
    arguments = ["run", "runs/own.toml", "--measures", "accuracy", "--data", str(data)]
    assert run([*arguments, "--checkpoint", f"fpn={checkpoint}"]) == 0
    captured = capsys.readouterr()
    assert "2 of 3 rows have no checkpoint" in captured.err
    assert len(list(small.glob("results/own/*/records/*.accuracy.json"))) == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "smal.toml"], "no such file"),
        (["run", "quik"], "did you mean 'quick'"),
        (["run", "small.toml", "--only", "fpm"], "did you mean 'fpn'"),
        (["run", "small.toml", "--measures", "costs"], "did you mean 'cost'"),
        (["run", "small.toml", "--measures", ""], "unknown measure ''"),
        (["train", "retinanet_tiny_fpn", "--data", "d"], "not there"),
        (["train", "retinanet_tiny_fpn", "--data", "d", "--epochs", "nan"], "nan is not a number"),
        (["run", "small.toml", "--device", "cudo"], "did you mean 'cuda'"),
        (["run", "small.toml", "--device", "cuda:99"], "this machine has"),
        (["run", "small.toml", "--checkpoint", "fpn"], "is not ROW=FILE"),
        (["run", "small.toml", "--results", "small.toml/x"], "cannot be written"),
        (["report", "small.toml"], "has no results"),
        (["report", "quik"], "did you mean 'quick'"),
        (["list", "neck"], "did you mean 'necks'"),
        (["show", "retinanet_r50_fnp"], "did you mean 'retinanet_r50_fpn'"),
        (["show", "retinanet_r50_fpn", "--shape", "800,1344"], "write it like 800x1344"),
        (["show", "retinanet_r50_fpn", "--format", "yaml"], "unknown format"),
        (["show", "retinanet_r50_fpn", "--set", "norm"], "is not FIELD=VALUE"),
        (["shwo"], "No such command"),
        (["show"], "Missing"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(small, capsys, arguments, words):
    assert run(arguments) == 2
    err = capsys.readouterr().err
    assert words in err
    assert err.strip().count("\n") == 0


def test_show_and_list_as_json(capsys):
    assert run(["show", "retinanet_r18_sepc", "--set", "extra_padding=0", "--format", "json"]) == 0
    (shown,) = json.loads(capsys.readouterr().out)
    assert shown["spec"]["necks"][1]["extra_padding"] == 0
    # Padding 0 in the extra convs: 800x1344 gives P3 100x168, two cells fewer each way.
    assert (shown["maps"][0]["height"], shown["maps"][0]["width"]) == (98, 166)
    assert run(["list", "norms", "--format", "json"]) == 0
    assert [item["name"] for item in json.loads(capsys.readouterr().out)][:2] == ["none", "single"]
