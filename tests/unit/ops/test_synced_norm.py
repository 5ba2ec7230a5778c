"""Which norms can have the statistics of all processes; what they are is in test_processes."""

from __future__ import annotations

import pytest
from torch import nn

from sepcbench.errors import UsageError
from sepcbench.ops import synced_norm
from sepcbench.ops.norms import NORMS
from sepcbench.processes import Job


class OwnNorm(nn.BatchNorm2d):
    """A norm of a user's neck."""


def test_a_norm_of_another_kind_is_refused_where_it_trains(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    module = nn.Sequential(nn.BatchNorm2d(4), OwnNorm(4), nn.BatchNorm1d(4))
    with synced_norm.synchronised(module):
        pass  # one process
    monkeypatch.setattr(synced_norm, "job", lambda: Job(0, 2))
    with (
        pytest.raises(UsageError, match=r"norms of kind BatchNorm1d, OwnNorm cannot be sync") as e,
        synced_norm.synchronised(module),
    ):
        pass
    assert "\n" not in str(e.value)
    with synced_norm.synchronised(module, wanted=False):
        pass
    module[1:].eval()
    with synced_norm.synchronised(module):
        assert type(module[0]) is not nn.BatchNorm2d
        assert type(module[1]) is OwnNorm


@pytest.mark.parametrize("flavour", sorted(NORMS))
def test_no_norm_of_a_pyramid_is_refused(monkeypatch: pytest.MonkeyPatch, flavour: str) -> None:
    monkeypatch.setattr(synced_norm, "job", lambda: Job(0, 2))
    norm = NORMS[flavour](8, 2, 4)
    kinds = [type(one) for one in norm.modules()]
    with synced_norm.synchronised(norm):
        pass
    assert [type(one) for one in norm.modules()] == kinds
