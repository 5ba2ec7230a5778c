"""Two processes that train together (gloo): as one process with all images, and resumed alike."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from several_processes import together

from sepcbench.data.coco import open_data
from sepcbench.data.shapes import generate
from sepcbench.errors import UsageError
from sepcbench.specs import Recipe
from sepcbench.training import loop

_SCRIPT = Path(__file__).with_name("two_process_job.py")
_spec = importlib.util.spec_from_file_location("two_process_job", _SCRIPT)
assert _spec is not None
assert _spec.loader is not None
job = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(job)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shapes")
    generate(folder, images=12, val_images=1, seed=0, size=(64, 64))
    return folder


@pytest.fixture(scope="module")
def both(folder: Path) -> list[dict[str, Any]]:
    """What each of the two processes found."""
    for code, _, err in together([_SCRIPT, folder], folder):
        assert code == 0, err
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in (0, 1)]


@pytest.mark.parametrize("flavour", job.FLAVOURS)
def test_synchronised_norms_are_those_of_one_process_with_the_double_batch(
    both: list[dict[str, Any]], flavour: str
) -> None:
    wanted = job.normalise(job.make(flavour), job.pyramid(), slice(None))
    found = [one["norms"][flavour] for one in both]
    assert set(found[0]) == set(wanted)
    for key, value in wanted.items():
        if key.startswith("weight"):  # each process has the share of its own images
            got = found[0][key] + found[1][key]
        elif key.startswith("buffer"):
            got = found[0][key]
            assert torch.equal(found[0][key], found[1][key])
        else:
            got = torch.cat([found[0][key], found[1][key]])
        torch.testing.assert_close(got, value, atol=1e-5, rtol=1e-5, msg=key)


def test_two_processes_learn_as_one_with_the_double_batch(
    folder: Path, both: list[dict[str, Any]]
) -> None:
    """FCOS: its losses are divided by the positives of all processes."""
    detector, record = loop.train(job.FCOS, open_data(folder, "train"), job.SGD)
    for one in both:
        assert one["processes"] == 2
        values = [value for _, value in one["losses"]]
        assert values == pytest.approx([value for _, value in record.losses], rel=1e-5)
        for key, value in detector.state_dict().items():
            torch.testing.assert_close(one["weights"][key], value, atol=1e-5, rtol=1e-4)


def test_two_processes_resume_bit_for_bit(both: list[dict[str, Any]]) -> None:
    """With accumulation, momentum and candidates drawn at random in each process."""
    whole, again = both[0]["resumed"]
    assert len(whole) == 4
    assert whole == again
    assert both[1]["resumed"] == both[0]["resumed"]


def test_a_process_without_objects_keeps_in_step(both: list[dict[str, Any]]) -> None:
    assert both[0]["lopsided"] == both[1]["lopsided"]
    assert all(math.isfinite(value) for value in both[0]["lopsided"])


def test_norms_that_train_have_the_images_of_one_gpu_of_the_papers() -> None:
    recipe = Recipe(batch=16, images_per_pass=4)
    passes = {n: recipe.for_norms(n).accumulate for n in (1, 2, 4, 8)}
    assert passes == {1: 4, 2: 2, 4: 1, 8: 1}
    assert Recipe(batch=24, images_per_pass=5).for_norms(1).accumulate == 6
    for fixed in (
        Recipe(batch=16),
        Recipe(batch=16, images_per_pass=4, accumulate=8),
        Recipe(batch=16, images_per_pass=4, sync_norm=True),
    ):
        assert fixed.for_norms(1) == fixed


def test_a_batch_divides_among_processes_and_passes() -> None:
    assert Recipe(batch=16).share(8) == 2
    assert Recipe(batch=16, accumulate=4).share(1) == 4
    with pytest.raises(UsageError, match=r"16 images does not divide among 3 .* --batch 18"):
        Recipe(batch=16).share(3)
