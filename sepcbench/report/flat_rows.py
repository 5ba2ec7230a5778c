"""A suite's rows as flat dicts: `pandas.read_json("records.json")` gives one line per row."""

from __future__ import annotations

import json
from typing import Any

from sepcbench.records import Results, Row, flat

# A hundred columns of single modules; they stay in the cost records.
_LEFT_OUT = "cost.by_module."


def flat_rows(results: Results) -> list[dict[str, Any]]:
    """One dict per row with keys such as `cost.macs.total` and `accuracy.ap`.

    A key stands for the same in every row; what a row does not have is left out of it.
    """
    return [_flat_row(results, row) for row in results.rows]


def records_json(results: Results) -> str:
    """`flat_rows` as JSON text, an array with one object per row."""
    return json.dumps(flat_rows(results), indent=1, allow_nan=False) + "\n"


def _flat_row(results: Results, row: Row) -> dict[str, Any]:
    found = {"suite": results.suite, "machine": results.machine, **flat(row)}
    reasons = "; ".join(f"{failure.measure}: {failure.reason}" for failure in row.failures)
    kept = {key: value for key, value in found.items() if not key.startswith(_LEFT_OUT)}
    return {**kept, "failures": reasons} if reasons else kept
