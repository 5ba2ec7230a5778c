"""Every published count that a suite's row claims to match, derived again."""

from pathlib import Path

import pytest

from sepcbench import detectors, suites
from sepcbench.measures.cost import cost
from sepcbench.units import parse_shape

FOLDER = Path(__file__).parents[2] / "suites"
UNITS = {"gmacs": 1e9, "params_m": 1e6}


def claims():
    """(suite row, key, published value) of every value with a tolerance."""
    for path in sorted(FOLDER.glob("*.toml")):
        for row in suites.load(str(path)).rows:
            for key, value in row.published:
                if value.tolerance is not None:
                    yield pytest.param(row, key, value, id=f"{path.stem}-{row.name}-{key}")


@pytest.fixture(scope="module")
def counted():
    """Costs by row name: a row with two claims is counted once."""
    return {}


@pytest.mark.parametrize(("row", "key", "published"), claims())
def test_published_count(row, key, published, counted):
    if row not in counted:
        detector = detectors.build(row.spec, init=False)
        shape = parse_shape(row.cost.shape)
        counted[row] = cost(detector, shape, convention=row.cost.convention)
    found = {"gmacs": dict(counted[row].macs)["total"], "params_m": counted[row].params}[key]
    assert found / UNITS[key] == pytest.approx(published.value, abs=published.tolerance)


def test_there_are_claims():
    assert len(list(claims())) >= 10
