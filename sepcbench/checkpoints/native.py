"""Native checkpoints: safetensors with the variant, the class names and the training inside."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from sepcbench import codec, detectors
from sepcbench.detectors import Detector
from sepcbench.errors import CheckpointError, UsageError
from sepcbench.records import Training
from sepcbench.specs import VariantSpec
from sepcbench.whole_files import write_whole

KEY = "sepcbench"
SCHEMA = 1
# keys named in an error line, per kind of difference
_MOST_NAMED = 3
_HEADER_LIMIT = 100_000_000


@dataclass(frozen=True, eq=False)
class Saved:
    """What a checkpoint holds; `state` maps the detector's state-dict keys to CPU tensors."""

    spec: VariantSpec
    classes: tuple[str, ...]
    training: Training | None
    state: dict[str, Tensor]


def save(
    path: Path, detector: Detector, classes: Iterable[str], training: Training | None = None
) -> None:
    """Write a checkpoint; the file appears whole or not at all.

    Raises:
        CheckpointError: the folder cannot be written.
    """
    state = {
        key: value.detach().to("cpu", copy=True).contiguous()
        for key, value in detector.state_dict().items()
    }
    description = {
        "schema": SCHEMA,
        "spec": codec.encode(detector.spec),
        "classes": list(classes),
        "training": codec.encode(training),
    }
    # one key: safetensors writes several in any order, and the same weights give the same file
    content = safetensors.torch.save(state, {KEY: json.dumps(description)})
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, content)
    except OSError as error:
        raise CheckpointError(f"cannot write checkpoint '{path}': {error.strerror}") from None


def unreadable(path: Path, error: Exception) -> CheckpointError:
    """What is said of a description that cannot be used."""
    why = "is damaged"
    if isinstance(error, UsageError):
        why += ", or has a part that this installation does not know"
    return CheckpointError(f"checkpoint '{path}': its description {why}: {error}")


def digest(path: Path) -> str:
    """The sha256 of a file, in hexadecimal.

    Raises:
        CheckpointError: the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise CheckpointError(f"checkpoint '{path}' cannot be read: {error.strerror}") from None


def read(path: Path) -> Saved:
    """Read a checkpoint without building its detector.

    Raises:
        CheckpointError: not there, truncated, or not a checkpoint of this project.
    """
    text = _read_description(path)
    try:
        description = json.loads(text)
        check_schema(path, description["schema"])
        spec = codec.decode(VariantSpec, description["spec"], "spec")
        classes = tuple(str(name) for name in description["classes"])
        training = description["training"]
        training = training and codec.decode(Training, training, "training")
        state = safetensors.torch.load_file(path)
    except (UsageError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise unreadable(path, error) from None
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"checkpoint '{path}' is damaged: {error}") from None
    return Saved(spec, classes, training, state)


def check_schema(path: Path, schema: Any) -> None:
    """Check the schema number.

    Raises:
        CheckpointError: this version does not read it.
    """
    if schema != SCHEMA:
        raise CheckpointError(
            f"checkpoint '{path}' has schema {schema}; this version reads schema {SCHEMA}"
        )


def _read_description(path: Path) -> str:
    """The description in the header, after checking that the file is whole."""
    metadata = read_header(path).get("__metadata__", {})
    if KEY not in metadata:
        raise CheckpointError(
            f"'{path}' has tensors but no variant inside, so `sepcbench train` did not write it; "
            "see `sepcbench inspect`"
        )
    return str(metadata[KEY])


def read_header(path: Path) -> dict[str, Any]:
    """The header of a safetensors file, after checking that the file is whole.

    Raises:
        CheckpointError: not there, truncated, or not safetensors.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(9)
            length = int.from_bytes(start[:8], "little")
            _check_kind(path, start, length)
            header = (
                _parse_header(start[8:] + file.read(length - 1)) if size >= 8 + length else None
            )
    except FileNotFoundError:
        raise CheckpointError(f"checkpoint '{path}' is not there") from None
    except OSError as error:
        raise CheckpointError(f"checkpoint '{path}' cannot be read: {error.strerror}") from None
    if header == {}:
        raise CheckpointError(f"'{path}' is not a checkpoint: it is no safetensors file")
    if header is None or size < 8 + length + _end(header):
        raise CheckpointError(f"checkpoint '{path}' is truncated ({size} bytes); get it again")
    return header


def is_header(start: bytes) -> bool:
    """Whether the first nine bytes of a file are those of safetensors: a length, then JSON."""
    return start[8:9] == b"{" and 2 <= int.from_bytes(start[:8], "little") <= _HEADER_LIMIT


def _check_kind(path: Path, start: bytes, length: int) -> None:
    if not is_header(start) and (start[:4] == b"PK\x03\x04" or start[:1] == b"\x80"):
        raise CheckpointError(
            f"'{path}' is a torch pickle, not a checkpoint written by `sepcbench train`; "
            "see `sepcbench inspect`"
        )
    if len(start) >= 8 and not 2 <= length <= _HEADER_LIMIT:
        raise CheckpointError(f"'{path}' is not a checkpoint: it is no safetensors file")


def _parse_header(text: bytes) -> dict[str, Any]:
    """The header's JSON object, or an empty one where it is none."""
    try:
        header = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return header if isinstance(header, dict) and _sound(header) else {}


def _sound(header: dict[str, Any]) -> bool:
    """Whether the metadata are texts, and each tensor says where it lies."""
    metadata = header.get("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        return False
    return all(
        isinstance(value, dict)
        and isinstance(value.get("data_offsets"), list)
        and len(value["data_offsets"]) == 2
        and all(type(offset) is int for offset in value["data_offsets"])
        for key, value in header.items()
        if key != "__metadata__"
    )


def _end(header: dict[str, Any]) -> int:
    """Where the last tensor ends, in bytes after the header."""
    tensors = (value for key, value in header.items() if key != "__metadata__")
    return max((int(value["data_offsets"][1]) for value in tensors), default=0)


def load(path: Path, spec: VariantSpec | None = None) -> tuple[Detector, tuple[str, ...]]:
    """Build the detector of a checkpoint and load its weights, strictly.

    Args:
        path: the checkpoint.
        spec: the variant to build, instead of the one inside; the number of classes is taken
            from the checkpoint.

    Raises:
        CheckpointError: not readable, or keys or shapes are not those of the variant.
    """
    saved = read(path)
    detector = detectors.build(spec or saved.spec)
    problem = differences(saved.state, detector.state_dict())
    if problem:
        raise CheckpointError(
            f"checkpoint '{path}' holds {saved.spec.name} and does not fit "
            f"{detector.spec.name}: {problem}"
        )
    detector.load_state_dict(saved.state, strict=True)
    return detector, saved.classes


def differences(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> str:
    """Say in one line how a state dict differs from the one wanted; empty if it fits.

    Missing keys are wanted and not found, unexpected ones the reverse; shapes are put side by
    side. Long lists are shortened with their count.
    """
    missing = [key for key in wanted if key not in found]
    unexpected = [key for key in found if key not in wanted]
    shapes = [
        f"{key} {list(found[key].shape)} in the file, {list(wanted[key].shape)} in the variant"
        for key in wanted
        if key in found and found[key].shape != wanted[key].shape
    ]
    kinds = (("missing", missing), ("unexpected", unexpected), ("other shapes", shapes))
    return "; ".join(listed(kind, items) for kind, items in kinds if items)


def listed(kind: str, items: list[str]) -> str:
    """A count, a kind of keys and the first few of them."""
    rest = f", and {len(items) - _MOST_NAMED} more" if len(items) > _MOST_NAMED else ""
    return f"{len(items)} {kind}: {', '.join(items[:_MOST_NAMED])}{rest}"
