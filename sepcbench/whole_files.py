"""Files that appear whole or not at all: whatever stops a program leaves the old or the new one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Write a file beside `path` that takes its place at the end, if all went well.

    What is half written has the number of its process in its name, so that two processes never
    write into one file.

    Args:
        path: the file to make or replace.

    Yields:
        The path to write to.

    Raises:
        OSError: the folder is not there, or the disk does not take it.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield part
        with part.open("rb+") as file:
            os.fsync(file.fileno())  # before the name: a power cut must not leave an empty file
        os.replace(part, path)
    except BaseException:
        with suppress(OSError):
            part.unlink()
        raise


def write_whole(path: Path, content: str | bytes) -> None:
    """Write text (as UTF-8) or bytes as `replacing` does.

    Raises:
        OSError: the folder is not there, or the disk does not take it.
    """
    data = content.encode("utf-8") if isinstance(content, str) else content
    with replacing(path) as part:
        part.write_bytes(data)


def sweep(folder: Path, start: str = ".") -> None:
    """Remove what killed processes left half written, where no one else writes now.

    Args:
        folder: where to look.
        start: how the names begin, such as ".sepc." for the records of one row.
    """
    for part in folder.glob(f"{start}*.part"):
        with suppress(OSError):
            part.unlink()
