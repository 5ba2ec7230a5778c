"""One process at a time in a folder, whatever became of the last one."""

import errno
import os
import signal
import subprocess
import sys

import pytest

from sepcbench import locks
from sepcbench.errors import StoreError
from sepcbench.locks import NAME, locked

HOLD = (
    "import sys, time\n"
    "from pathlib import Path\n"
    "from sepcbench.locks import locked\n"
    "with locked(Path(sys.argv[1]), 'go'):\n"
    "    print('locked', flush=True)\n"
    "    time.sleep(60)\n"
)


@pytest.fixture
def holder(tmp_path):
    """Another process that is at work in `tmp_path`."""
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "locked\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_second_process_is_refused_in_one_line_that_names_the_first(tmp_path, holder):
    with (
        pytest.raises(StoreError, match=rf"\(process {holder.pid}\).*wait.*or go$") as caught,
        locked(tmp_path, "go"),
    ):
        pytest.fail("let in")
    assert "\n" not in str(caught.value)
    assert holder.poll() is None
    assert (tmp_path / NAME).is_file()


def test_the_lock_of_a_killed_process_is_taken_over(tmp_path, holder):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert (tmp_path / NAME).is_file()  # it had no time to clear up
    with locked(tmp_path, "go"):
        assert (tmp_path / NAME).read_text() == f"{os.getpid()}\n"
    assert not (tmp_path / NAME).exists()


def test_a_file_without_an_owner_locks_nothing_however_it_reads(tmp_path):
    for content in (b"", b"1\n", b"\xff\xfe", b"not a number"):
        (tmp_path / NAME).write_bytes(content)
        with locked(tmp_path, "go"):
            pass


def test_the_lock_ends_with_the_block_also_after_an_error(tmp_path):
    with pytest.raises(KeyError), locked(tmp_path, "go"):
        raise KeyError
    with locked(tmp_path, "go"), pytest.raises(StoreError), locked(tmp_path, "go"):
        pytest.fail("let in twice")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").touch()
    with (
        pytest.raises(StoreError, match="file: cannot be written: File exists; go") as caught,
        locked(tmp_path / "file", "go"),
    ):
        pytest.fail("let in")
    assert "\n" not in str(caught.value)


def test_one_at_a_time_among_many(tmp_path):
    """Four processes add to a number: none is lost, whoever is refused tries again."""
    code = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from sepcbench.errors import StoreError\n"
        "from sepcbench.locks import locked\n"
        "folder = Path(sys.argv[1])\n"
        "number = folder / 'number'\n"
        "for _ in range(25):\n"
        "    while True:\n"
        "        try:\n"
        "            with locked(folder, 'go'):\n"
        "                number.write_text(str(int(number.read_text()) + 1))\n"
        "            break\n"
        "        except StoreError:\n"
        "            time.sleep(0.001)\n"
    )
    (tmp_path / "number").write_text("0")
    command = [sys.executable, "-c", code, str(tmp_path)]
    running = [subprocess.Popen(command) for _ in range(4)]
    assert [process.wait(timeout=60) for process in running] == [0] * 4
    assert (tmp_path / "number").read_text() == "100"


def flock_says(monkeypatch, *numbers):
    """Have the next calls of flock fail with these errors, then work."""
    real, left = locks.fcntl.flock, list(numbers)

    def flock(handle, how):
        if left:
            number = left.pop(0)
            raise OSError(number, os.strerror(number))
        real(handle, how)

    monkeypatch.setattr(locks.fcntl, "flock", flock)
    monkeypatch.setattr(locks, "_POLL_S", 0.0)
    monkeypatch.setattr(locks, "_said", set())
    return left


def test_a_file_that_another_machine_has_just_removed_is_opened_again(tmp_path, monkeypatch):
    left = flock_says(monkeypatch, errno.ESTALE, errno.ESTALE)
    with locked(tmp_path, "go"):
        assert left == []
        # it is locked in truth
        with pytest.raises(StoreError, match="another sepcbench"), locked(tmp_path, "go"):
            pytest.fail("let in twice")


def test_a_file_that_stays_stale_is_one_line(tmp_path, monkeypatch):
    flock_says(monkeypatch, *[errno.ESTALE] * 1000)
    with pytest.raises(StoreError, match="cannot be written: Stale"), locked(tmp_path, "go"):
        pytest.fail("let in")


@pytest.mark.parametrize("name", ["ENOSYS", "ENOTSUP", "EOPNOTSUPP", "ENOLCK"])
def test_a_disk_without_locks_locks_nothing_and_says_so_once(tmp_path, monkeypatch, capsys, name):
    flock_says(monkeypatch, *[getattr(errno, name)] * 2)
    for folder in ("a", "b"):
        with locked(tmp_path / folder, "go"):
            pass
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"sepcbench: {tmp_path / 'a'}: there are no locks")


@pytest.mark.parametrize("name", ["EIO", "EBADF", "EINVAL"])
def test_an_error_of_the_disk_is_no_lock(tmp_path, monkeypatch, capsys, name):
    flock_says(monkeypatch, getattr(errno, name))
    with pytest.raises(StoreError, match="cannot be written"), locked(tmp_path, "go"):
        pytest.fail("let in")
    assert capsys.readouterr().err == ""


def test_a_network_disk_that_denies_the_lock_has_given_it_to_another(tmp_path, monkeypatch):
    flock_says(monkeypatch, errno.EACCES)
    with pytest.raises(StoreError, match="another sepcbench"), locked(tmp_path, "go"):
        pytest.fail("let in")
