"""The named protocols, and which one a device and a suite get."""

from typing import get_args

import pytest

from sepcbench.errors import UsageError
from sepcbench.specs import PROTOCOLS, Protocol, ProtocolName
from sepcbench.specs.protocols import SUITE_SECONDS_ON_GPU, default_protocol, protocol_on, timed


def test_table_and_names_agree():
    assert set(PROTOCOLS) == set(get_args(ProtocolName))
    assert all(protocol.name == name for name, protocol in PROTOCOLS.items())


def test_a_gpu_is_timed_thoroughly_by_default():
    assert default_protocol("cuda:0") == PROTOCOLS["thorough"]
    assert default_protocol("cpu") == PROTOCOLS["standard"]
    assert default_protocol("cuda", "paper") == PROTOCOLS["paper"]
    thorough = PROTOCOLS["thorough"]
    assert (thorough.min_rounds, thorough.stop_spread) == (50, 0.005)


def test_a_suites_protocol_keeps_its_samples_and_limit_on_a_gpu():
    base = Protocol(rounds=20, samples_per_round=7, max_seconds=99, seed=3)
    found = protocol_on("cuda", base)
    assert (found.name, found.rounds, found.min_rounds) == ("thorough", 200, 50)
    assert (found.samples_per_round, found.max_seconds, found.seed) == (7, 99, 3)
    assert protocol_on("cuda", Protocol(max_seconds=900)).max_seconds == SUITE_SECONDS_ON_GPU
    assert protocol_on("cpu", base) == base
    assert protocol_on("cuda", PROTOCOLS["paper"]) == PROTOCOLS["paper"]


def test_the_papers_protocol_is_of_the_pipeline_with_batch_8():
    paper = PROTOCOLS["paper"]
    assert 1 + paper.warmup_iterations == 100
    assert paper.rounds * paper.samples_per_round == 200
    assert timed("paper", None, None) == ("pipeline", 8)
    assert timed("paper", "forward", 2) == ("forward", 2)
    assert timed("standard", None, None) == ("forward", 1)


def test_changes_keep_limits_in_order():
    found = PROTOCOLS["thorough"].changed(rounds=5, max_seconds=10)
    assert (found.rounds, found.min_rounds, found.warmup_max_seconds) == (5, 5, 10)
    with pytest.raises(UsageError, match="rounds is at least 1"):
        PROTOCOLS["thorough"].changed(rounds=0)
