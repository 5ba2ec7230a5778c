"""One process at a time in a folder: a lock file that its process cannot outlive.

The lock is the operating system's, so that a killed process leaves none behind; the file has the
number of the process for those who find it locked. A file system without locks, as some cluster's,
locks nothing, which is said once.
"""

from __future__ import annotations

import errno
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sepcbench.errors import StoreError

try:
    import fcntl
except ImportError:  # Windows: nothing is locked there
    fcntl = None  # type: ignore[assignment]

NAME = ".lock"
_POLL_S = 0.05

# flock's ways to say that there are no locks on this file system
_NO_LOCKS = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK}
# On a network's disk another machine may remove the file while it is opened here.
_STALE_TRIES = 20
_said: set[int] = set()  # file systems without locks that there was a note about


@contextmanager
def locked(
    folder: Path, otherwise: str, *, name: str = NAME, what: str = "", wait_s: float = 0.0
) -> Iterator[None]:
    """Keep other processes out of a folder, which is made if it is not there.

    Args:
        folder: what to lock.
        otherwise: what to do instead of waiting, such as "choose another --results folder".
        name: of the lock file, where a folder has several things to lock.
        what: is locked, in words, where it is not the folder.
        wait_s: how long to wait for another process to be done.

    Raises:
        StoreError: another process is at work there, or the folder cannot be written.
    """
    path = folder / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = _acquire_within(path, wait_s)
    except OSError as error:
        raise StoreError(
            f"{folder}: cannot be written: {error.strerror or error}; {otherwise}"
        ) from None
    if handle is None:
        raise StoreError(
            f"{what or folder}: another sepcbench ({_owner(path)}) is at work there; wait for it "
            f"to end, or {otherwise}"
        )
    try:
        yield
    finally:
        with suppress(OSError):
            path.unlink()
        os.close(handle)


def _acquire_within(path: Path, wait_s: float) -> int | None:
    end = time.monotonic() + wait_s
    handle = _acquire(path)
    while handle is None and time.monotonic() < end:
        time.sleep(_POLL_S)
        handle = _acquire(path)
    return handle


def _acquire(path: Path) -> int | None:
    """The open and locked file, or None if another process has it."""
    stale = 0
    while True:
        try:
            taken, handle = _try(path)
        except OSError as error:
            stale += 1
            if error.errno != errno.ESTALE or stale >= _STALE_TRIES:
                raise
            time.sleep(_POLL_S)
            continue
        if taken:
            return handle


def _try(path: Path) -> tuple[bool, int | None]:
    """Whether it is known who has the file, and the file if it is this process."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        if not _lock(handle, path.parent):
            os.close(handle)
            return True, None
        if _is_still(path, handle):
            with suppress(OSError):  # on a full disk it is locked all the same
                os.ftruncate(handle, 0)
                os.write(handle, f"{os.getpid()}\n".encode())
            return True, handle
    except BaseException:
        with suppress(OSError):
            os.close(handle)
        raise
    os.close(handle)
    return False, None


def _lock(handle: int, folder: Path) -> bool:
    """Lock an open file; whether no other process has it.

    Raises:
        OSError: it cannot be known.
    """
    if fcntl is None:
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno == errno.EACCES:  # how some network disks say that another has it
            return False
        if error.errno not in _NO_LOCKS:
            raise
        _say_unlocked(handle, folder)
    return True


def _say_unlocked(handle: int, folder: Path) -> None:
    """Say, once for a file system, that nothing keeps other processes away."""
    disk = os.fstat(handle).st_dev
    if disk not in _said:
        _said.add(disk)
        print(
            f"sepcbench: {folder}: there are no locks on this file system; see to it that no other "
            "sepcbench works there on the same rows",
            file=sys.stderr,
        )


def _is_still(path: Path, handle: int) -> bool:
    """Whether the open file is the one at `path`: its last owner may have just removed it."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(handle))
    except FileNotFoundError:
        return False


def _owner(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        text = ""
    return f"process {text}" if text.isdigit() else "process unknown"
