"""`records.flat`: one flat dict of plain values per record."""

from __future__ import annotations

import json
import math
from dataclasses import replace

from unit.make import accuracy, cost, latency, results

from sepcbench.records import Training, flat
from sepcbench.report.flat_rows import flat_rows

RECORDS = (
    cost(),
    latency(),
    accuracy(),
    Training("v", "d", 3, 4, 2, 0, "sgd", 0.01, ((0, 2.5), (3, 1.5))),
)


def test_values_are_plain_and_keys_are_text() -> None:
    for record in RECORDS:
        found = flat(record)
        assert found["variant"] == "v"
        assert all(type(key) is str for key in found)
        assert all(type(value) in (str, int, float, bool) for value in found.values())
        assert json.loads(json.dumps(found)) == found


def test_numbers_are_numbers_only() -> None:
    for record in RECORDS:
        found = flat(record, numbers=True)
        assert found
        assert all(type(value) in (int, float) for value in found.values())
        assert all(math.isfinite(value) for value in found.values())


def test_nested_values_have_dotted_keys() -> None:
    record = cost(total=7)
    assert flat(record)["macs.total"] == 7
    assert (flat(record)["shape.0"], flat(record)["shape.1"]) == record.shape
    found = flat(accuracy(ap=None))
    assert "ap" not in found
    timed = replace(latency(), interleaved_with=("a", "b"))
    assert flat(timed)["interleaved_with"] == "a, b"
    assert not any(key.startswith("samples_s") for key in flat(timed))


def test_a_row_has_its_measures_and_what_was_published() -> None:
    rows = flat_rows(results())
    assert [row["name"] for row in rows] == [row.name for row in results().rows]
    measured = [row for row in rows if "cost.macs.total" in row]
    assert measured
    assert {row["suite"] for row in rows} == {results().suite}
    assert not any("by_module" in key for row in rows for key in row)
