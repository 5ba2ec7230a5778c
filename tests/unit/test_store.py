"""Records on disk: whole, resumable, and never half written."""

import errno
import json
import os

import pytest
from unit.make import ENVIRONMENT, cost

from sepcbench.errors import StoreError, UsageError
from sepcbench.records import Failure
from sepcbench.store import Store, Stored, key_of, write_json
from sepcbench.variants import VARIANTS

SPEC = VARIANTS["retinanet_tiny_fpn"]


def stored(record, key="k", row="fpn"):
    return Stored(row, "cost", key, "2026-01-01T00:00:00+00:00", record, SPEC, ENVIRONMENT)


def test_a_record_comes_back_equal(tmp_path):
    store = Store(tmp_path)
    item = stored(cost())
    store.write(item)
    assert store.read("fpn", "cost") == item
    assert list(store.records()) == [item]


def test_done_needs_the_same_key_and_no_failure(tmp_path):
    store = Store(tmp_path)
    assert not store.done("fpn", "cost", "k")
    store.write(stored(cost()))
    assert store.done("fpn", "cost", "k")
    assert not store.done("fpn", "cost", "other")
    store.write(stored(Failure("v", "cost", "why")))
    assert not store.done("fpn", "cost", "k")
    assert store.read("fpn", "cost").record.reason == "why"


def test_a_damaged_record_is_measured_again_but_named_in_a_report(tmp_path):
    store = Store(tmp_path)
    store.write(stored(cost()))
    path = tmp_path / "records" / "fpn.cost.json"
    path.write_text(path.read_text()[:100])
    assert not store.done("fpn", "cost", "k")
    with pytest.raises(UsageError, match=r"fpn\.cost\.json: cannot be read as JSON"):
        list(store.records())


def test_another_schema_is_refused(tmp_path):
    store = Store(tmp_path)
    store.write(stored(cost()))
    path = tmp_path / "records" / "fpn.cost.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema": 99}))
    with pytest.raises(UsageError, match="schema 99 is not 1"):
        store.read("fpn", "cost")


def test_a_full_disk_loses_nothing(tmp_path, monkeypatch):
    store = Store(tmp_path)
    store.write(stored(cost()))
    before = (tmp_path / "records" / "fpn.cost.json").read_text()

    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match="No space left on device") as caught:
        store.write(stored(cost("other")))
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)
    files = list((tmp_path / "records").iterdir())
    assert [file.name for file in files] == ["fpn.cost.json"]
    assert files[0].read_text() == before


def test_a_folder_that_is_a_file_is_one_line(tmp_path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(StoreError, match="cannot be written"):
        write_json(tmp_path / "taken" / "x.json", {})


def test_keys_differ_when_a_setting_does():
    other = VARIANTS["retinanet_tiny_sepc"]
    assert key_of(SPEC, "a") == key_of(SPEC, "a")
    assert len({key_of(SPEC, "a"), key_of(SPEC, "b"), key_of(other, "a")}) == 3
