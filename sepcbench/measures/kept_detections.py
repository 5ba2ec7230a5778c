"""Detections of finished images on disk, so that an evaluation goes on where it was stopped.

Every process appends to a file of its own, one line per batch, each with its checksum: a line that
a kill or a full disk has cut off is passed over, and its images are done again.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import torch
from torch import nn

from sepcbench.errors import StoreError
from sepcbench.measures.result_format import Entries

_VERSION = 1
_ELSEWHERE = "name another folder with --keep"


class KeptDetections:
    """What is known of one evaluation: the same weights, images and options.

    Attributes:
        folder: of this evaluation alone, inside the one given.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any], process: str = "0") -> None:
        """Find the place of an evaluation.

        Args:
            folder: of all evaluations.
            identity: all that its detections depend on, as JSON values.
            process: goes into the name of this process's file.
        """
        text = json.dumps({"version": _VERSION, **identity}, sort_keys=True)
        self.folder = folder / hashlib.sha256(text.encode()).hexdigest()[:24]
        self._identity, self._process = text, process
        self._file: IO[bytes] | None = None

    def read(self) -> dict[int, Entries]:
        """Entries of every finished image, by its id.

        Raises:
            StoreError: a file cannot be read.
        """
        found: dict[int, Entries] = {}
        try:
            for path in sorted(self.folder.glob("*.jsonl")):
                for line in path.read_bytes().splitlines():
                    for image_id, entries in _parse(line):
                        found.setdefault(image_id, entries)
        except OSError as error:
            raise StoreError(
                f"{self.folder}: cannot be read: {error.strerror}; {_ELSEWHERE}"
            ) from None
        return found

    def add(self, found: Mapping[int, Entries]) -> None:
        """Keep the entries of finished images, all of them or, if cut off, none.

        Raises:
            StoreError: they cannot be written.
        """
        text = json.dumps(list(found.items()), allow_nan=False).encode()
        try:
            if self._file is None:
                self._file = self._open()
            self._file.write(b"%08x %s\n" % (zlib.crc32(text), text))
            self._file.flush()
        except OSError as error:
            raise StoreError(
                f"{self.folder}: cannot be written: {error.strerror}; make room or {_ELSEWHERE}"
            ) from None

    def _open(self) -> IO[bytes]:
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "identity.json").write_text(self._identity, encoding="utf-8")
        # a name that no one else has: what others have cut off is never written on
        name = f"{self._process}-{time.time_ns()}-{os.getpid()}.jsonl"
        return (self.folder / name).open("ab")

    def close(self) -> None:
        """Write no more."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def remove(self) -> None:
        """Forget this evaluation."""
        self.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def _parse(line: bytes) -> list[tuple[int, Entries]]:
    checksum, _, text = line.partition(b" ")
    if checksum != b"%08x" % zlib.crc32(text):
        return []
    return [(int(image_id), entries) for image_id, entries in json.loads(text)]


def weights_digest(module: nn.Module) -> str:
    """Short, of all parameters and buffers with their names."""
    found = hashlib.sha256()
    for name, value in module.state_dict().items():
        data = value.detach().cpu().contiguous()
        found.update(f"{name} {data.dtype} {tuple(data.shape)}".encode())
        found.update(data.reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()[:16]
