"""kill -9 at random moments: a rerun ends where an undisturbed run ends."""

import json
import random
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
from killing import duration, finish, killed, litter, measured, records, table

SUITE = """
title = "Killed"
measures = ["cost", "accuracy"]
[cost]
shape = "64x64"
[shapes]
images = 8
val_images = 4
size = "64x64"
[train]
iterations = 7
batch = 2
warmup_iterations = 1
[[row]]
name = "fpn"
variant = "retinanet_tiny_fpn"
[[row]]
name = "sepc"
variant = "retinanet_tiny_sepc"
[[claim]]
name = "SEPC against FPN"
formula = "sepc.macs / fpn.macs"
"""
RUN = ["run", "killed.toml"]
DATA = "runs/shapes"


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """A folder in which the suite ran to its end, and how long it worked."""
    folder = tmp_path_factory.mktemp("undisturbed")
    (folder / "killed.toml").write_text(SUITE)
    seconds = duration(RUN, folder)
    assert len(records(folder)) == 6
    return folder, seconds


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "killed.toml").write_text(SUITE)
    return tmp_path


def check_run(folder, undisturbed, moments):
    """Kill at each of the moments (as parts of the whole), run to the end, compare."""
    whole, seconds = undisturbed
    wanted = measured(whole)
    before = {}
    for part in moments:
        killed(RUN, folder, part * seconds)
        kept = records(folder)
        assert all(kept[name] == body for name, body in before.items()), "measured again, or lost"
        assert measured(folder).items() <= wanted.items()
        before = kept
    code, _, err = finish(RUN, folder)
    assert code == 0, err
    after = records(folder)
    assert all(after[name] == body for name, body in before.items()), "measured again, or lost"
    assert measured(folder) == wanted
    assert table(folder) == table(whole)
    assert litter(folder) == []


def test_a_run_killed_again_and_again_ends_like_an_undisturbed_one(folder, undisturbed):
    check_run(folder, undisturbed, sorted(random.Random(7).uniform(0.05, 1) for _ in range(2)))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_runs_killed_at_many_moments(folder, undisturbed, seed):
    drawn = random.Random(seed)
    check_run(folder, undisturbed, [drawn.uniform(0, 1.1) for _ in range(drawn.randint(1, 5))])


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_a_run_of_jobs_that_is_killed_takes_its_processes_along(folder, undisturbed, seed):
    """The rerun is not refused by what the killed one left, and ends like an undisturbed one."""
    whole, seconds = undisturbed
    drawn = random.Random(seed)
    for _ in range(2):
        killed([*RUN, "--jobs", "2"], folder, drawn.uniform(1, 2 * seconds))
    assert finish([*RUN, "--jobs", "2"], folder)[0] == 0
    assert measured(folder) == measured(whole)
    assert table(folder) == table(whole)
    assert litter(folder) == []


@pytest.mark.slow
def test_rows_run_by_commands_of_their_own_that_are_killed_end_in_the_same_table(
    folder, undisturbed
):
    """What a scheduler does: a process per row, at once, each killed and started again."""
    whole, seconds = undisturbed
    rows = [[*RUN, "--row", name] for name in ("fpn", "sepc")]
    with ThreadPoolExecutor(2) as pool:
        for part in (0.4, 0.8):
            list(pool.map(partial(killed, folder=folder, seconds=part * seconds), rows))
        assert [code for code, _, _ in pool.map(partial(finish, folder=folder), rows)] == [0, 0]
    assert measured(folder) == measured(whole)
    assert table(folder) == table(whole)
    assert litter(folder) == []


@pytest.mark.slow
def test_a_run_that_is_timed_too_has_every_time_once(folder):
    """Times differ from run to run; there must be one set of them, all from one sitting."""
    text = SUITE.replace('measures = ["cost", "accuracy"]\n', "").replace(
        "[shapes]",
        '[latency]\nshape = "64x64"\n[latency.protocol]\nrounds = 40\nsamples_per_round = 2\n'
        "warmup_iterations = 2\nwarmup_seconds = 0.01\n[shapes]",
    )
    (folder / "killed.toml").write_text(text)
    drawn = random.Random(3)
    for _ in range(4):
        killed(RUN, folder, drawn.uniform(0.2, 6))
    assert finish(RUN, folder)[0] == 0
    found = records(folder)
    assert len(found) == 8
    timed = [found[f"{row}.latency.json"]["record"] for row in ("fpn", "sepc")]
    assert [record["stopped"] for record in timed] == ["rounds"] * 2
    assert [len(record["samples_s"]) for record in timed] == [40] * 2
    before = records(folder)
    assert finish(RUN, folder)[0] == 0
    assert records(folder) == before


TRAIN = [
    "train", "retinanet_tiny_fpn", "--out", "out", "--iterations", "9", "--batch", "2",
    "--format", "json",
]  # fmt: skip


def data(folder):
    (found,) = (folder / DATA).iterdir()
    return str(found)


# every generator and every part of the state: candidates drawn at random, passes that add up,
# momentum, a score on the way
THICK = [
    "train", "rpn_tiny_fpn", "--out", "out", "--iterations", "9", "--batch", "4",
    "--recipe", "accumulate=2", "--recipe", "optimizer=sgd", "--lr", "0.01",
    "--evaluate-every", "4", "--workers", "1", "--format", "json",
]  # fmt: skip


def check_train(folder, undisturbed, moments, call=TRAIN):
    whole, _ = undisturbed
    command = [*call, "--data", data(whole)]
    code, wanted, _ = finish([*command, "--out", "whole"], folder)
    assert code == 0
    for seconds in moments:
        saved = (folder / "out" / "state.pt").exists()
        killed([*command, *(["--resume"] if saved else [])], folder, seconds)
        assert not saved or (folder / "out" / "state.pt").exists()
    saved = (folder / "out" / "state.pt").exists()
    code, out, err = finish([*command, *(["--resume"] if saved else [])], folder)
    assert code == 0, err
    assert value(out) | {"checkpoint": ""} == value(wanted) | {"checkpoint": ""}
    weights = [(folder / name / "last.safetensors").read_bytes() for name in ("out", "whole")]
    assert weights[0] == weights[1]
    assert litter(folder) == []


def value(out):
    """The JSON on stdout, between the marks of the start and the end, without how fast it was."""
    found = json.loads(out[: out.rindex("done")])[0]
    return {key: value for key, value in found.items() if key != "speed"}


@pytest.mark.slow
def test_a_training_killed_again_and_again_gives_the_same_weights(folder, undisturbed):
    check_train(folder, undisturbed, [random.Random(1).uniform(0.3, 1.2)])


@pytest.mark.slow
@pytest.mark.parametrize("call", [TRAIN, THICK], ids=["plain", "thick"])
@pytest.mark.parametrize("seed", range(10))
def test_trainings_killed_at_many_moments(folder, undisturbed, seed, call):
    drawn = random.Random(seed)
    moments = [drawn.uniform(0, 2) for _ in range(drawn.randint(1, 4))]
    check_train(folder, undisturbed, moments, call)


@pytest.mark.slow
def test_an_eval_that_is_killed_leaves_whole_detections_or_none(folder, undisturbed):
    whole, _ = undisturbed
    (checkpoint,) = whole.glob("runs/trained/retinanet_tiny_sepc-*/last.safetensors")
    command = [
        "eval",
        str(checkpoint),
        "--data",
        data(whole),
        "--format",
        "json",
        "--out",
        "d.json",
    ]
    code, wanted, _ = finish([*command[:-1], "wanted.json"], folder)
    assert code == 0
    drawn = random.Random(5)
    for _ in range(2):
        killed(command, folder, drawn.uniform(0.05, 0.8))
        if (folder / "d.json").exists():
            assert (folder / "d.json").read_text() == (folder / "wanted.json").read_text()
    code, out, _ = finish(command, folder)
    assert code == 0
    assert value(out) == value(wanted)
    assert (folder / "d.json").read_text() == (folder / "wanted.json").read_text()
