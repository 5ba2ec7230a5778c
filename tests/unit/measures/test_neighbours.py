"""How busy others are, from the system's ticks and this process's own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sepcbench.measures import neighbours
from sepcbench.measures.neighbours import Neighbours


@pytest.fixture
def ticks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Sets busy ticks, idle ticks, and seconds of this process."""
    monkeypatch.setattr(neighbours, "STAT", tmp_path / "stat")
    monkeypatch.setattr(neighbours.os, "cpu_count", lambda: 2)
    monkeypatch.setattr(neighbours, "_per_second", lambda: 100)

    def change(busy: int, idle: int, own_s: float) -> None:
        text = f"cpu  {busy - 30} 10 10 {idle} 0 5 4 1 7 0\ncpu0 1 2 3\n"
        neighbours.STAT.write_text(text)
        monkeypatch.setattr(neighbours.os, "times", lambda: (own_s - 1, 1.0, 0.0, 0.0, 9.9))

    change(100, 1000, 2.0)
    return change


@pytest.mark.parametrize(
    ("busy", "idle", "own_s", "share"),
    [(100, 1200, 2.0, 0.0), (200, 1100, 3.0, 0.0), (200, 1100, 2.0, 0.5), (160, 1340, 2.2, 0.1)],
)
def test_the_share_of_others(ticks, busy: int, idle: int, own_s: float, share: float) -> None:
    others = Neighbours()
    ticks(busy, idle, own_s)
    assert others.share() == pytest.approx(share)
    said = others.notes()
    assert bool(said) == (share > 0.1)
    assert not said or said[0].startswith("other programs kept 50 % of the processors busy")


def test_nothing_is_said_of_a_moment_or_without_ticks(ticks, monkeypatch) -> None:
    others = Neighbours()
    ticks(190, 1000, 2.0)
    assert others.share() is None, "0.45 s of two processors"
    monkeypatch.setattr(neighbours, "STAT", Path("/nowhere"))
    assert (others.share(), Neighbours().share(), others.notes()) == (None, None, ())


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="no ticks on this system")
def test_a_busy_neighbour_is_seen() -> None:
    others = Neighbours()
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as child:
        time.sleep(1.0)
        share = others.share()
        child.kill()
    assert share is not None
    assert 0.4 / (os.cpu_count() or 1) < share <= 1
