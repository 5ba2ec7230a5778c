"""`sepcbench run` by rows: seeds, rows as commands, jobs, training on one's own set."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from killing import litter

from sepcbench.cli.app import run
from sepcbench.runner.places import rows_locked
from sepcbench.store import Store

ROOT = Path(__file__).parents[2]
SUITE = """
title = "Rows"
measures = ["cost", "accuracy"]
[cost]
shape = "64x64"
[latency]
shape = "64x64"
[latency.protocol]
rounds = 2
samples_per_round = 1
warmup_iterations = 1
warmup_seconds = 0.01
[shapes]
images = 8
val_images = 4
size = "64x64"
[train]
iterations = 2
batch = 2
warmup_iterations = 1
[[row]]
name = "fpn"
variant = "retinanet_tiny_fpn"
[[row]]
name = "sepc"
variant = "retinanet_tiny_sepc"
"""
OWN = SUITE[: SUITE.index("[shapes]")] + SUITE[SUITE.index("[[row]]") :]
FAST = ["--recipe", "shapes", "--recipe", "iterations=2", "--recipe", "batch=2"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.toml").write_text(SUITE)
    (tmp_path / "own.toml").write_text(OWN)
    return tmp_path


def command(*more):
    return run(["run", "rows.toml", *more])


def records(folder, suite="rows"):
    found = folder.glob(f"results/{suite}/*/records/*.json")
    return {path.name.removesuffix(".json"): json.loads(path.read_text()) for path in found}


def trained(folder):
    return {path.name for path in folder.glob("runs/trained/*")}


def test_seeds_are_trained_and_stored_one_by_one(folder):
    assert command("--row", "fpn") == 0
    first = records(folder)
    assert set(first) == {"fpn.cost", "fpn.training", "fpn.accuracy"}
    assert command("--row", "fpn", "--seeds", "2") == 0
    both = records(folder)
    assert set(both) - set(first) == {"fpn.training@1", "fpn.accuracy@1"}
    assert {name: both[name] for name in first} == first, "seed 0 was measured again"
    assert [both[f"fpn.training{at}"]["record"]["seed"] for at in ("", "@1")] == [0, 1]
    losses = [both[f"fpn.training{at}"]["record"]["losses"] for at in ("", "@1")]
    assert losses[0] != losses[1]
    assert both["fpn.accuracy"]["key"] != both["fpn.accuracy@1"]["key"]
    (results,) = folder.glob("results/rows/*/records.json")
    assert "accuracy" in results.read_text()


def test_a_seed_is_the_training_of_a_recipe_with_that_seed(folder):
    """Suites share what is trained the same: seed 1 of the one is seed 0 of the other."""
    assert command("--row", "fpn", "--seeds", "2", "--measures", "accuracy") == 0
    before = trained(folder)
    (folder / "other.toml").write_text(SUITE.replace("[train]", "[train]\nseed = 1"))
    assert run(["run", "other.toml", "--row", "fpn", "--measures", "accuracy"]) == 0
    assert trained(folder) == before
    assert len(before) == 2
    ours, theirs = records(folder)["fpn.accuracy@1"], records(folder, "other")["fpn.accuracy"]
    assert ours["record"] == theirs["record"]


def test_a_seed_that_is_interrupted_keeps_the_others(folder, monkeypatch):
    from sepcbench.runner import scoring

    real = scoring.score

    def interrupted(run_, label, *rest):
        if "seed 1" in label:
            raise KeyboardInterrupt
        return real(run_, label, *rest)

    monkeypatch.setattr("sepcbench.runner.accuracy.score", interrupted)
    assert command("--row", "fpn", "--seeds", "3") == 130
    kept = records(folder)
    assert set(kept) == {"fpn.cost", "fpn.training", "fpn.accuracy", "fpn.training@1"}
    monkeypatch.undo()
    os.chdir(folder)
    assert command("--row", "fpn", "--seeds", "3") == 0
    after = records(folder)
    assert {name: after[name] for name in kept} == kept
    assert {"fpn.accuracy@1", "fpn.accuracy@2"} <= set(after)
    assert not list(folder.glob("runs/detections/*"))


def test_different_rows_run_at_once_and_the_same_row_does_not(folder, capsys):
    assert command("--row", "fpn", "--measures", "cost") == 0
    (taken,) = folder.glob("results/rows/*")
    with rows_locked(Store(taken), ["fpn"]):
        assert command("--row", "sepc", "--measures", "cost") == 0
        capsys.readouterr()
        assert command("--row", "fpn", "--measures", "cost") == 2
        words = (
            f"row 'fpn' of {taken.relative_to(folder)}: another sepcbench (process {os.getpid()})"
        )
        assert words in capsys.readouterr().err
        assert command("--measures", "cost") == 2
    assert command("--measures", "cost") == 0
    assert litter(folder) == []


def test_what_a_killed_process_left_of_a_row_goes_and_that_of_a_living_one_stays(folder):
    assert command("--row", "fpn", "--measures", "cost") == 0
    (taken,) = folder.glob("results/rows/*/records")
    mine, others = taken / ".fpn.cost.json.1.part", taken / ".sepc.cost.json.2.part"
    for part in (mine, others):
        part.write_text("half")
    assert command("--row", "fpn", "--measures", "cost") == 0
    assert not mine.exists()
    assert others.exists()


def test_a_set_that_another_process_makes_is_waited_for(folder, monkeypatch):
    """The lock is free when the other has ended, with the set there: it is not made again."""
    from sepcbench.data import shapes
    from sepcbench.runner import sets

    assert command("--row", "fpn") == 0
    (made,) = folder.glob("runs/shapes/*")
    (made / "complete").unlink()
    real = sets.locked

    def ended(folder_, *args, **kwargs):
        (made / "complete").touch()
        return real(folder_, *args, **kwargs)

    monkeypatch.setattr(sets, "locked", ended)
    monkeypatch.setattr(shapes, "generate", None)
    assert command("--row", "sepc") == 0


BROKEN = """
[[row]]
name = "broken"
variant = "retinanet_tiny_pconv_gn"
set = { "necks.1.groups" = 7 }
"""


@pytest.mark.parametrize("seeds", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_rows_run_as_jobs_and_times_come_after_them_from_one_process(folder, capsys, seeds):
    (folder / "rows.toml").write_text(SUITE + BROKEN)
    more = ("--measures", "cost,accuracy,latency", "--seeds", str(seeds))
    assert command("--jobs", "2", *more) == 1
    found = records(folder)
    kinds = ["cost", "latency", "training", "accuracy"]
    kinds += ["training@1", "accuracy@1"] if seeds == 2 else []
    assert {f"{row}.{kind}" for row in ("fpn", "sepc") for kind in kinds} <= set(found)
    assert {name.split(".")[0] for name, body in found.items() if body["failed"]} == {"broken"}
    out, err = capsys.readouterr()
    assert "[fpn] rows: train fpn" in err
    assert ("[sepc, seed 1] rows: train sepc, seed 1" in err) is (seeds == 2)
    assert ("Failed: broken, accuracy@1:" in out) is (seeds == 2)
    scored = max(body["created"] for name, body in found.items() if "latency" not in name)
    assert scored <= min(found[f"{row}.latency"]["created"] for row in ("fpn", "sepc"))
    assert found["sepc.latency"]["record"]["interleaved_with"][0] == "fpn"
    assert len(list(folder.glob("results/rows/*/table.md"))) == 1
    assert litter(folder) == []


def test_jobs_take_rows_and_seeds_one_by_one(folder, monkeypatch):
    """Three devices are busy with one row of three seeds, and the first seeds come first."""
    from sepcbench.runner import jobs

    taken, together = [], threading.Barrier(3, timeout=20)

    def taking(jobs_, part, device):
        taken.append((part.row.name, part.seed, part.measures))
        together.wait()  # broken, and so a failure, where fewer work at once
        return 0, ""

    monkeypatch.setattr(jobs, "_run_part", taking)
    given = ["--jobs", "cpu,cpu,cpu", "--seeds", "3", "--measures", "cost,accuracy"]
    assert command(*given, "--row", "fpn") == 0
    first = ("fpn", 0, ("cost", "accuracy"))
    assert sorted(taken) == [first, ("fpn", 1, ("accuracy",)), ("fpn", 2, ("accuracy",))]
    taken.clear()
    assert command(*given) == 0
    assert {part[1] for part in taken[:2]} == {0}
    assert len(set(taken)) == len(taken) == 6


def test_seeds_of_one_row_run_at_once_and_the_same_seed_does_not(folder, capsys):
    assert command("--row", "fpn", "--seed", "1") == 0
    alone = records(folder)
    assert set(alone) == {"fpn.training@1", "fpn.accuracy@1"}
    (taken,) = folder.glob("results/rows/*")
    mine, others = (
        taken / "records" / f".fpn.{kind}.json.1.part" for kind in ("cost", "accuracy@1")
    )
    with rows_locked(Store(taken), ["fpn"], seeds=[1]):
        for part in (mine, others):
            part.write_text("half")
        assert command("--row", "fpn") == 0
        assert (mine.exists(), others.exists()) == (False, True)
        capsys.readouterr()
        assert command("--row", "fpn", "--seeds", "2") == 2
        assert "row 'fpn', seed 1 of" in capsys.readouterr().err
    before = records(folder)
    assert command("--row", "fpn", "--seeds", "2") == 0
    assert records(folder) == before
    assert {name: before[name] for name in alone} == alone
    assert litter(folder) == []


def test_a_seed_whose_job_is_killed_is_a_failure_of_that_seed(folder, monkeypatch, capsys):
    from sepcbench.runner import jobs

    killed = "import os, sys; sys.argv[sys.argv.index('--seed') + 1] == '1' and os.kill({}, 9)\n"
    monkeypatch.setattr(jobs, "_START", killed.replace("{}", "os.getpid()"))
    given = ("--jobs", "2", "--row", "fpn", "--measures", "accuracy", "--seeds", "2")
    assert command(*given) == 1
    (name,) = records(folder)
    assert name == "fpn.accuracy@1"
    assert "row 'fpn', seed 1: its process was killed by signal 9" in capsys.readouterr().err


def test_a_job_that_is_killed_is_a_failure_with_its_last_words(folder, monkeypatch, capsys):
    from sepcbench.runner import jobs

    killed = "import os, sys; print('in the middle', file=sys.stderr, flush=True); os.kill({}, 9)"
    monkeypatch.setattr(jobs, "_START", killed.replace("{}", "os.getpid()"))
    assert command("--jobs", "1", "--row", "fpn", "--measures", "cost") == 1
    reason = records(folder)["fpn.cost"]["record"]["reason"]
    assert reason == "its process was killed by signal 9; it last said: in the middle"
    assert "row 'fpn': its process was killed by signal 9" in capsys.readouterr().err


def test_rows_are_trained_on_the_users_set_then_scored(folder):
    from sepcbench.data.shapes import generate

    generate(folder / "coco", images=6, val_images=4, seed=0, size=(64, 64))
    command_ = ["run", "own.toml", "--train", "--data", "coco", *FAST]
    assert run([*command_, "--row", "fpn"]) == 0
    first = records(folder, "own")
    assert set(first) == {"fpn.cost", "fpn.training", "fpn.accuracy"}
    assert first["fpn.training"]["record"]["images"] == 6
    assert first["fpn.accuracy"]["record"]["images"] == 4
    assert run(command_) == 0
    after = records(folder, "own")
    assert {name: after[name] for name in first} == first
    assert "sepc.accuracy" in after
    annotations = folder / "coco" / "annotations" / "instances_train.json"
    annotations.write_text(annotations.read_text() + " ")
    assert run([*command_, "--row", "fpn"]) == 0
    assert records(folder, "own")["fpn.training"]["key"] != first["fpn.training"]["key"]


def test_the_recipe_of_a_coco_folder_is_1x_unless_the_suite_or_the_user_says(folder):
    from sepcbench import recipes
    from sepcbench.cli.run_choices import Given, choose
    from sepcbench.runner.state import Run
    from sepcbench.runner.training import recipe_of

    def chosen(name, recipe=()):
        given = Given(
            (), "cost", True, "cpu", "coco", True, tuple(recipe), 1, None, 0, None, (), False,
            folder, folder, False,
        )  # fmt: skip
        suite, options = choose(name, given)
        return recipe_of(Run(suite, options, Store(folder), None, (), None))

    assert chosen("own.toml") == recipes.load("1x")
    assert chosen("rows.toml").iterations == 2
    assert chosen("rows.toml", ["2x"]) == recipes.load("2x")
    changed = chosen("own.toml", ["batch=4"])
    assert (changed.batch, changed.learning_rate) == (4, recipes.load("1x").learning_rate)
    shorter = chosen("own.toml", ["iterations=5"])
    assert (shorter.iterations, shorter.epochs) == (5, 0)
    assert chosen("own.toml", ["seed=1", "batch=4", "seed=2"]).seed == 2


@pytest.mark.parametrize("seeds", [("1", "2"), ("2", "1")])
def test_of_a_field_that_is_given_twice_the_last_value_counts_in_every_process(folder, seeds):
    """Also where the order of sets differs from process to process."""
    given = [f"seed={seed}" for seed in seeds]
    code = f"from sepcbench.cli.training_plan import recipe_fields; print(recipe_fields({given}))"
    for hashing in ("1", "2", "3"):
        environment = os.environ | {"PYTHONHASHSEED": hashing, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True
        )
        assert done.stdout == f"{{'seed': '{seeds[-1]}'}}\n", done.stderr


def test_a_row_is_trained_and_scored_in_its_own_way(folder):
    row = '[[row]]\nname = "sepc"\n'
    own = 'train = {iterations = 3}\ntest_time = {scales = "48,64", flip = true}\n'
    assert command("--measures", "accuracy", *FAST[2:]) == 0
    before = records(folder)
    (folder / "rows.toml").write_text(SUITE.replace(row, row + own))
    assert command("--measures", "accuracy") == 0
    after = records(folder)
    fpn = {name for name in before if name.startswith("fpn")}
    assert {name: after[name] for name in fpn} == {name: before[name] for name in fpn}
    assert after["sepc.training"]["record"]["iterations"] == 3
    assert after["sepc.accuracy"]["record"]["test_time"] == "scales 48,64, flip"
    assert after["fpn.accuracy"]["record"]["test_time"] == ""
    table = next(folder.glob("results/rows/*/table.md")).read_text()
    assert "sepc: scales 48,64, flip" in table
    # a field of the command line changes each row's own recipe
    assert command("--measures", "accuracy", "--recipe", "seed=5") == 0
    changed = [records(folder)[f"{name}.training"]["record"] for name in ("fpn", "sepc")]
    assert [(one["iterations"], one["seed"]) for one in changed] == [(2, 5), (3, 5)]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--train"], "--train needs --data DIR"),
        (["--jobs", "many"], "--jobs 'many' is no number of jobs"),
        (["--jobs", "0"], "--jobs '0' is no number of jobs"),
        (["--jobs", "cuda:0,cuda:1"], "no CUDA device"),
        (["--recipe", "3x"], "unknown recipe '3x'"),
        (["--recipe", "1x", "--recipe", "2x"], "takes one name"),
        (["--recipe", "batches=2"], "did you mean 'batch'"),
        (["--seeds", "0"], "greater than or equal to 1"),
        (["--seeds", "2", "--seed", "1"], "give --seeds or --seed, not both"),
        (["--seed", "1", "--measures", "cost"], "cost and latency are measured with --seed 0"),
        (["--row", "sepk"], "did you mean 'sepc'"),
    ],
)
def test_bad_options_are_one_line(folder, capsys, arguments, words):
    assert command(*arguments) == 2
    err = capsys.readouterr().err
    assert words in err
    assert err.strip().count("\n") == 0
