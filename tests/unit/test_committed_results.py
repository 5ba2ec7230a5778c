"""What is committed under results/: every row of every suite has its cost, every twin learnt."""

from pathlib import Path

import pytest

from sepcbench import suites
from sepcbench.records import Accuracy, Cost, Failure
from sepcbench.results import kept_suite
from sepcbench.runner.sets import Sets
from sepcbench.runner.state import Run, RunOptions
from sepcbench.runner.training import recipe_key, recipe_of, with_seed
from sepcbench.store import Store, plain_kind, result_folders

ROOT = Path(__file__).parents[2]
NAMES = sorted(path.stem for path in (ROOT / "suites").glob("*.toml"))
LEARNT = ("single_stage_twin", "fusion_twin", "two_stage_twin", "figure1_twin")

pytestmark = pytest.mark.skipif(
    not (ROOT / "results").is_dir(), reason="results are not in a source distribution"
)


def stored(name):
    """The folder's suite and records, of the first machine."""
    folders = result_folders(ROOT / "results", name)
    assert folders, f"no results of {name} are committed"
    store = Store(folders[0])
    return kept_suite(store), {(item.row, item.kind): item.record for item in store.records()}


@pytest.mark.parametrize("name", NAMES)
def test_every_row_of_every_suite_is_counted(name):
    kept, records = stored(name)
    rows = [row.name for row in suites.load(str(ROOT / "suites" / f"{name}.toml")).rows]
    assert [row.name for row in kept.rows] == rows
    for row in rows:
        assert isinstance(records[row, "cost"], Cost)
    assert not any(isinstance(record, Failure) for record in records.values())


@pytest.mark.parametrize("name", LEARNT)
def test_every_detector_learns_the_generated_set(name):
    """AP50 above 0.5 for the small version of every detector and neck."""
    kept, records = stored(name)
    for row in kept.rows:
        scored = records[row.name, "accuracy"]
        assert isinstance(scored, Accuracy)
        assert scored.ap50 > 0.5, row.name


def test_committed_trainings_are_those_that_twins_would_run_today():
    """A new field of a row, recipe or spec must not make what is stored stale."""
    checked = 0
    for name in NAMES:
        suite = suites.twin(suites.load(str(ROOT / "suites" / f"{name}.toml")))
        rows = {row.name: row for row in suite.rows}
        for folder in result_folders(ROOT / "results", suite.name):
            store = Store(folder)
            for item in store.records():
                if plain_kind(item.kind) != "training" or item.row not in rows:
                    continue
                run = Run(suite, RunOptions(), store, item.environment, suite.rows, None)
                recipe = with_seed(recipe_of(run, rows[item.row]), item.record.seed)
                sets = Sets(None, None, {}, made_here=True)
                key = recipe_key(run, rows[item.row].spec, recipe, sets)
                assert item.key == key, (name, item.row, item.kind)
                checked += 1
    assert checked > 100
