"""A file is the old one or the new one, whatever stops the writing."""

import errno
import os
import subprocess
import sys

import pytest

from sepcbench.whole_files import replacing, sweep, write_whole


def test_text_and_bytes_are_written_and_replaced(tmp_path):
    write_whole(tmp_path / "b.txt", "naïve\n")
    assert (tmp_path / "b.txt").read_bytes() == "naïve\n".encode()
    write_whole(tmp_path / "b.txt", b"\x00")
    assert (tmp_path / "b.txt").read_bytes() == b"\x00"
    assert [path.name for path in tmp_path.iterdir()] == ["b.txt"]
    with pytest.raises(FileNotFoundError):
        write_whole(tmp_path / "a" / "b.txt", "")


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_what_fails_leaves_the_old_file_alone(tmp_path, monkeypatch, failing):
    path = tmp_path / "file"
    write_whole(path, "old")

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, failing, full)
    with pytest.raises(OSError, match="No space left"):
        write_whole(path, "new")
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_an_error_while_writing_leaves_nothing(tmp_path):
    def write():
        with replacing(tmp_path / "file") as part:
            part.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write()
    assert list(tmp_path.iterdir()) == []


def test_a_killed_process_leaves_a_part_that_is_swept(tmp_path):
    write_whole(tmp_path / "file.json", "old")
    code = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from sepcbench.whole_files import replacing\n"
        "with replacing(Path(sys.argv[1])) as part:\n"
        "    part.write_text('half')\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "file.json")], timeout=60)
    assert done.returncode == -9
    assert len(list(tmp_path.iterdir())) == 2
    assert [path.name for path in tmp_path.glob("*.json")] == ["file.json"]
    sweep(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["file.json"]
    assert (tmp_path / "file.json").read_text() == "old"
