"""Records on disk: whole, resumable, and never half written."""

import errno
import json
import os

import pytest
from unit.make import ENVIRONMENT, cost

from sepcbench.errors import StoreError, UsageError
from sepcbench.records import SCHEMA, Failure
from sepcbench.store import UPGRADES, Store, Stored, key_of, write_json
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
    with pytest.raises(UsageError, match=r"schema 99 is newer than 1.*newer sepcbench"):
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


def body_of(store):
    path = store.folder / "records" / "fpn.cost.json"
    return path, json.loads(path.read_text())


def test_a_record_of_an_older_schema_is_read_through_every_step(tmp_path, monkeypatch):
    """As if schema 2 had renamed `parameters` to `params`, and 3 put the counts into thousands."""
    item, store = stored(cost()), Store(tmp_path)
    store.write(item)
    store.write_suite({"name": "x"})
    path, body = body_of(store)
    body["record"]["parameters"] = body["record"].pop("params") // 1000
    path.write_text(json.dumps(body))

    def renamed(old):
        record = dict(old.get("record", {}))
        if "parameters" in record:
            record["params"] = record.pop("parameters")
        return old | ({"record": record} if record else {})

    def in_units(old):
        record = dict(old.get("record", {}))
        if "params" in record:
            record["params"] *= 1000
        return old | ({"record": record} if record else {})

    monkeypatch.setattr("sepcbench.store.SCHEMA", 3)
    monkeypatch.setattr("sepcbench.store.UPGRADES", {1: renamed, 2: in_units})
    assert store.read("fpn", "cost").record.params == item.record.params // 1000 * 1000
    assert store.done("fpn", "cost", "k")
    assert store.read_suite()["name"] == "x"
    assert json.loads(path.read_text())["schema"] == 1  # reading changes nothing on disk
    store.write(item)
    assert json.loads(path.read_text())["schema"] == 3

    monkeypatch.setattr("sepcbench.store.UPGRADES", {2: in_units})
    path.write_text(json.dumps(body))
    with pytest.raises(UsageError, match="schema 1 is not read any more; delete it"):
        store.read("fpn", "cost")


def test_an_older_record_that_a_step_cannot_use_is_one_line(tmp_path, monkeypatch):
    store = Store(tmp_path)
    store.write(stored(cost()))
    monkeypatch.setattr("sepcbench.store.SCHEMA", 2)
    monkeypatch.setattr("sepcbench.store.UPGRADES", {1: lambda old: {"x": old["no such key"]}})
    with pytest.raises(UsageError, match="its schema 1 is damaged") as caught:
        store.read("fpn", "cost")
    assert "\n" not in str(caught.value)


def test_every_step_up_to_today_is_there():
    assert sorted(UPGRADES) == list(range(min(UPGRADES, default=SCHEMA), SCHEMA))


def test_a_copy_of_a_record_is_named_instead_of_counted(tmp_path):
    store = Store(tmp_path)
    store.write(stored(cost()))
    path, _ = body_of(store)
    path.with_name("sepc.cost.json").write_text(path.read_text())
    with pytest.raises(UsageError, match=r"sepc\.cost\.json: it holds the record 'fpn\.cost'"):
        list(store.records())
    assert not store.done("sepc", "cost", "k")
