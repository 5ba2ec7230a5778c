"""Results on disk: one JSON file per row and measure, written at once and whole.

Layout: `results/<suite>/<machine>/records/<row>.<measure>.json`, and `suite.json` beside
`records/`, so that a report can be drawn from the folder alone. A file holds the record (or the
failure), the variant's spec, the environment and a key over spec and settings: a rerun resumes
where the key still matches.
"""

from __future__ import annotations

import datetime
import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sepcbench.codec import decode, encode
from sepcbench.errors import StoreError, UsageError
from sepcbench.records import (
    SCHEMA,
    Accuracy,
    Cost,
    Environment,
    Failure,
    Latency,
    Recall,
    Record,
    Training,
)
from sepcbench.specs import VariantSpec
from sepcbench.whole_files import write_whole

KINDS: dict[str, type] = {
    "cost": Cost,
    "latency": Latency,
    "accuracy": Accuracy,
    "masks": Accuracy,
    "recall": Recall,
    "training": Training,
}


# "latency@graphed-fp16-8" is a latency under other conditions than the suite's first, "accuracy@1"
# the accuracy of seed 1: what is before the sign says what is in the file.
MORE = "@"


def plain_kind(kind: str) -> str:
    """The kind of record, one of `KINDS`, of a kind that may have further conditions."""
    return kind.split(MORE)[0]


def seeded_kind(kind: str, seed: int) -> str:
    """The kind of a record as stored: that of further seeds names them."""
    return f"{kind}{MORE}{seed}" if seed else kind


def seed_of(kind: str) -> int:
    """The number of the seed that a kind of record as stored is of, such as 1 of "accuracy@1"."""
    more = kind.partition(MORE)[2]
    return int(more) if more.isdecimal() else 0


KEY_VERSION = 2

Body = dict[str, Any]
UPGRADES: dict[int, Callable[[Body], Body]] = {}
"""How the body of a file of a schema becomes that of the next one, up to `SCHEMA`.

A new field with a default, which says what was done before, needs no new schema. Renaming, removing
or reinterpreting a field does: raise `records.SCHEMA` and add the step here, for records and
`suite.json` alike. Files keep their schema on disk until they are written again.
"""


@dataclass(frozen=True)
class Stored:
    """One record with where it belongs and how it was made."""

    row: str
    kind: str
    key: str
    created: str
    record: Record
    spec: VariantSpec
    environment: Environment

    @property
    def failed(self) -> bool:
        """Whether the measurement failed."""
        return isinstance(self.record, Failure)


def key_of(*parts: Any) -> str:
    """A short digest of specs and settings: two runs with the same key measure the same.

    Fields with their default are left out, so that a field that is new, and whose default is what
    was done before, does not make older records stale. A default that changes must raise
    `KEY_VERSION`.
    """
    text = json.dumps([KEY_VERSION, *(encode(part, sparse=True) for part in parts)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def write_json(path: Path, value: Any) -> None:
    """Write JSON so that the file is either the old one or the new one, never half of it.

    Raises:
        StoreError: the folder or the disk does not take it.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps(value, indent=1, allow_nan=False) + "\n")
    except OSError as error:
        raise StoreError(
            f"{path}: cannot be written: {error.strerror or error}; what was measured before is "
            "kept, make room or choose another --results folder and run again to resume"
        ) from None


class Store:
    """The records of one suite on one machine."""

    def __init__(self, folder: Path) -> None:
        """Use `folder`, such as `results/quick/nvidia-h200`; it is made when first written."""
        self.folder = folder

    def write_suite(self, body: dict[str, Any]) -> None:
        """Keep the suite beside its records, for reports drawn from the folder alone."""
        write_json(self.folder / "suite.json", {"schema": SCHEMA, **body})

    def read_suite(self) -> dict[str, Any]:
        """What `write_suite` kept.

        Raises:
            UsageError: the folder has none.
        """
        return _read(self.folder / "suite.json")

    def write(self, stored: Stored) -> None:
        """Write one record, replacing an older one of the same row and measure."""
        body: dict[str, Any] = {
            "schema": SCHEMA,
            "row": stored.row,
            "kind": stored.kind,
            "key": stored.key,
            "created": stored.created,
            "failed": stored.failed,
            "record": encode(stored.record),
            "spec": encode(stored.spec),
            "environment": encode(stored.environment),
        }
        write_json(self._path(stored.row, stored.kind), body)

    def read(self, row: str, kind: str) -> Stored | None:
        """One record, or None if there is none yet."""
        path = self._path(row, kind)
        return _stored(path) if path.is_file() else None

    def done(self, row: str, kind: str, key: str) -> bool:
        """Whether this very measurement is already there and did not fail."""
        try:
            stored = self.read(row, kind)
        except UsageError:
            return False  # damaged or of another schema: measured again
        return stored is not None and stored.key == key and not stored.failed

    def records(self) -> Iterator[Stored]:
        """All records, by file name."""
        for path in sorted((self.folder / "records").glob("*.json")):
            yield _stored(path)

    def _path(self, row: str, kind: str) -> Path:
        return self.folder / "records" / f"{row}.{kind}.json"


def now() -> str:
    """The time as UTC, ISO 8601, whole seconds."""
    return datetime.datetime.now(datetime.UTC).replace(microsecond=0).isoformat()


def _read(path: Path) -> Body:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(f"{path}: there is no such file; run the suite first") from None
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:  # not JSON, not text, or nested without end
        raise UsageError(f"{path}: cannot be read as JSON ({error}); {_ANEW}") from None
    if not isinstance(data, dict) or type(data.get("schema")) is not int:
        raise UsageError(f"{path}: it is no file of results: it has no schema number; {_ANEW}")
    return _upgraded(data, path)


_ANEW = "delete it to measure again"


def _upgraded(data: Body, path: Path) -> Body:
    """The body in today's schema.

    Raises:
        UsageError: it is of a newer schema, or of one that is not read any more.
    """
    schema = data["schema"]
    if schema > SCHEMA:
        raise UsageError(
            f"{path}: schema {schema} is newer than {SCHEMA}, the newest that this version reads; "
            "install a newer sepcbench"
        )
    for step in range(schema, SCHEMA):
        if step not in UPGRADES:
            raise UsageError(f"{path}: schema {schema} is not read any more; {_ANEW}")
        try:
            data = UPGRADES[step](data)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UsageError(f"{path}: its schema {step} is damaged ({error!r}); {_ANEW}") from None
    return {**data, "schema": SCHEMA}


def _stored(path: Path) -> Stored:
    """A record, which is of the row and kind that its file's name says: a copy counts once."""
    data = _read(path)
    texts = [_text(data, key, path) for key in ("row", "kind", "key", "created")]
    row, kind, key, created = texts
    if path.name != f"{row}.{kind}.json" or plain_kind(kind) not in KINDS:
        raise UsageError(
            f"{path}: it holds the record '{row}.{kind}', which its name does not say; delete it"
        )
    cls = Failure if data.get("failed") else KINDS[plain_kind(kind)]
    return Stored(
        row=row,
        kind=kind,
        key=key,
        created=created,
        record=decode(cls, data.get("record"), f"{path}: record"),
        spec=decode(VariantSpec, data.get("spec"), f"{path}: spec"),
        environment=decode(Environment, data.get("environment"), f"{path}: environment"),
    )


def _text(data: Body, key: str, path: Path) -> str:
    value = data.get(key)
    if not isinstance(value, str):
        raise UsageError(f"{path}: missing key '{key}', or it is no text; {_ANEW}")
    return value


def result_folders(root: Path, suite: str) -> list[Path]:
    """The machines' folders of a suite under a results folder."""
    return sorted(path.parent for path in (root / suite).glob("*/suite.json"))
