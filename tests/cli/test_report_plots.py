"""`sepcbench report --plots`: pictures in the formats that papers take."""

import pytest

from sepcbench.cli.app import run
from sepcbench.results import keep_suite
from sepcbench.store import Store
from sepcbench.suites import load


@pytest.fixture
def published(tmp_path):
    """A results folder of a suite that nothing was measured of."""
    folder = tmp_path / "figure1" / "a-machine"
    keep_suite(Store(folder), load("figure1"))
    return folder


def test_pictures_come_as_vectors_besides_and_the_tables_show_each_once(published, capsys):
    assert run(["report", str(published), "--plots", "svg, PDF", "--format", "csv"]) == 0
    names = {path.name for path in published.iterdir() if path.stem == "ap_over_latency"}
    assert names == {"ap_over_latency.png", "ap_over_latency.svg", "ap_over_latency.pdf"}
    assert (published / "table.md").read_text().count("ap_over_latency") == 1
    assert "ap_over_latency.svg" in capsys.readouterr().err


def test_an_unknown_format_is_one_line_with_the_nearest(published, capsys):
    assert run(["report", str(published), "--plots", "svgg"]) == 2
    said = capsys.readouterr().err.strip()
    assert said == "sepcbench: unknown plot format 'svgg'; did you mean 'svg'?"
    assert not (published / "table.md").exists()
