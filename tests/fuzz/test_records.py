"""Damaged records and results folders: one line, or a report; never anything else."""

import functools
import json

import pytest
from damage import FUZZ, LONG, damaged, damaged_bytes, one_line, write
from hypothesis import given
from hypothesis import strategies as st
from unit.make import ENVIRONMENT, accuracy, cost, latency

from sepcbench.cli.app import run
from sepcbench.codec import encode
from sepcbench.records import SCHEMA, Failure, Ratio, Recall, Training
from sepcbench.report.html import html_page
from sepcbench.report.latex import latex
from sepcbench.report.suite_tables import tables
from sepcbench.results import assemble, kept_suite
from sepcbench.store import Store, Stored
from sepcbench.variants import VARIANTS

RATIO = Ratio("a", 1.07, (1.05, 1.09), 1.07, (1.05, 1.09), True)
RECALL = Recall("v", "d", 2, 3, "c", 0.1, 0.2, None, 0.3, 0.4)
TRAINING = Training("v", "d", 2, 3, 4, 0, "adamw", 0.1, ((1, 2.0), (2, 1.0)))
RECORDS = {
    "cost": cost(),
    "latency": latency("v", "cpu", RATIO),
    "accuracy": accuracy(),
    "masks": accuracy(),
    "recall": RECALL,
    "training": TRAINING,
}
SUITE = {
    "schema": SCHEMA,
    "name": "fuzzed",
    "suite": {
        "title": "Fuzzed",
        "row": [
            {"name": "a", "variant": "retinanet_tiny_fpn", "published": {
                "ap": {"value": 35.7, "source": "a paper"}}},
            {"name": "b", "variant": "retinanet_tiny_sepc", "set": {"necks.1.depth": 2}},
            {"name": "c", "published": {"ap": {"value": 1, "source": "x", "tolerance": 0.5}}},
        ],
        "latency": {"protocol": {"rounds": 3}},
        "shapes": {"images": 2},
        "train": {"iterations": 3},
        "claim": [{"name": "one", "formula": "(b.macs - a.macs) / 2", "published": 1.0}],
    },
}  # fmt: skip


@functools.cache
def bodies():
    """What is in each file of records, by name."""
    found = {}
    for row in ("a", "b"):
        for kind, record in RECORDS.items():
            failed = row == "b" and kind == "latency"
            record = Failure("v", kind, "it broke") if failed else record
            found[f"{row}.{kind}.json"] = {
                "schema": SCHEMA,
                "row": row,
                "kind": kind,
                "key": "k",
                "created": "2026-01-01T00:00:00+00:00",
                "failed": failed,
                "record": encode(record),
                "spec": encode(VARIANTS["retinanet_tiny_fpn"]),
                "environment": encode(ENVIRONMENT),
            }
    return found


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "records").mkdir()
    return tmp_path


def restore(folder):
    write(folder / "suite.json", SUITE)
    for name, body in bodies().items():
        write(folder / "records" / name, body)


def render(folder):
    """Everything that a report draws, but for the pictures."""
    store = Store(folder)
    results = assemble(kept_suite(store), store)
    assert tables(results)
    latex(results).encode("utf-8")
    html_page(results).encode("utf-8")
    return results


def test_the_undamaged_folder_is_rendered(folder):
    restore(folder)
    assert len(render(folder).origins) == 12


def check_record(folder, name, tree):
    restore(folder)
    write(folder / "records" / name, tree)
    row, kind, _ = name.split(".")
    assert Store(folder).done(row, kind, "k") in (True, False)
    one_line(render, folder)


NAMES = sorted(bodies())
TREES = st.sampled_from(NAMES).flatmap(lambda n: st.tuples(st.just(n), damaged(bodies()[n])))
# the parts that a report reads most of
INNER = st.sampled_from(NAMES).flatmap(
    lambda n: st.tuples(
        st.just(n), damaged(bodies()[n]["record"]).map(lambda r: {**bodies()[n], "record": r})
    )
)


@FUZZ
@given(TREES)
def test_a_damaged_record(folder, example):
    check_record(folder, *example)


@FUZZ
@given(INNER)
def test_a_record_of_damaged_values(folder, example):
    check_record(folder, *example)


@FUZZ
@given(damaged(SUITE))
def test_a_damaged_suite_beside_its_records(folder, tree):
    restore(folder)
    write(folder / "suite.json", tree)
    one_line(render, folder)


@FUZZ
@given(st.sampled_from(NAMES), st.data())
def test_a_record_of_damaged_bytes(folder, name, data):
    restore(folder)
    path = folder / "records" / name
    path.write_bytes(data.draw(damaged_bytes(path.read_bytes())))
    one_line(render, folder)


@pytest.mark.slow
@LONG
@given(st.one_of(TREES, INNER))
def test_many_damaged_records(folder, example):
    check_record(folder, *example)


def test_nesting_without_end_and_numbers_without_end(folder, capsys):
    for text in ("[" * 100_000, '{"schema": ' + "1" * 5000 + "}", "null", "", "{}", "\ufeff{}"):
        restore(folder)
        (folder / "records" / "a.cost.json").write_text(text)
        assert run(["report", str(folder)]) == 2
        err = capsys.readouterr().err
        assert err.count("\n") == 1
        assert "a.cost.json" in err


def test_what_is_written_comes_back(folder):
    """Whatever a record holds: `write` and `read` are each other's inverse."""
    store = Store(folder)
    for kind, record in RECORDS.items():
        item = Stored("a", kind, "k", "now", record, VARIANTS["fsaf_tiny_sepc"], ENVIRONMENT)
        store.write(item)
        assert store.read("a", kind) == item
        body = json.loads((folder / "records" / f"a.{kind}.json").read_text())
        assert json.loads(json.dumps(body, allow_nan=False)) == body
