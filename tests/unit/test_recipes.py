"""Recipes as files: the papers' numbers, hit exactly, and lines for what is wrong."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from sepcbench import recipes
from sepcbench.errors import UsageError
from sepcbench.specs import Recipe
from sepcbench.training.schedule import learning_rate

EPOCH = 7330  # iterations of 16 of COCO's 117,266 images with objects, as mmdetection counts
ONE_X = recipes.load("1x").for_images(16 * EPOCH)


def test_every_recipe_can_be_read() -> None:
    assert {"1x", "2x", "2x_wide", "shapes"} <= set(recipes.names())
    for name in recipes.names():
        assert recipes.load(name).iterations


def test_the_small_recipe_is_what_no_recipe_means() -> None:
    assert recipes.load("shapes") == Recipe() == recipes.made({})


def test_1x_is_the_papers() -> None:
    one = recipes.load("1x")
    assert (one.optimizer, one.momentum, one.weight_decay) == ("sgd", 0.9, 1e-4)
    assert (one.batch, one.reference_batch, one.learning_rate) == (16, 16, 0.01)
    assert (one.clip_norm, one.flip, one.short_sides) == (35, 0.5, None)
    assert (one.epochs, one.pretrained, one.skip_empty) == (12, "imagenet", True)
    assert ONE_X.iterations == 12 * EPOCH


@pytest.mark.parametrize(
    ("iteration", "rate"),
    [
        (0, 0.01 / 3),
        (250, 0.01 * 2 / 3),
        (499, 0.01 * (1 / 3 + 2 / 3 * 499 / 500)),
        (500, 0.01),
        (8 * EPOCH - 1, 0.01),
        (8 * EPOCH, 0.001),
        (11 * EPOCH - 1, 0.001),
        (11 * EPOCH, 0.0001),
        (12 * EPOCH - 1, 0.0001),
    ],
)
def test_1x_has_the_papers_rate_at_every_iteration(iteration: int, rate: float) -> None:
    assert learning_rate(ONE_X, iteration) == pytest.approx(rate, rel=1e-12)


@pytest.mark.parametrize("batch", [4, 8, 32])
def test_the_rate_is_linear_in_the_whole_batch(batch: int) -> None:
    scaled = replace(recipes.load("1x"), batch=batch).for_images(16 * EPOCH)
    assert scaled.peak_rate == 0.01 * batch / 16
    assert scaled.iterations == 12 * EPOCH * 16 // batch
    decayed = scaled.iterations * 8 // 12
    assert learning_rate(scaled, decayed - 1) == scaled.peak_rate
    assert learning_rate(scaled, decayed) == pytest.approx(scaled.peak_rate / 10)


def test_2x_is_twice_as_long_with_jitter() -> None:
    two = recipes.load("2x").for_images(16 * EPOCH)
    assert two.iterations == 24 * EPOCH
    for epoch, rate in ((16, 0.001), (22, 0.0001)):
        assert learning_rate(two, epoch * EPOCH - 1) == pytest.approx(rate * 10)
        assert learning_rate(two, epoch * EPOCH) == pytest.approx(rate)
    assert two.short_sides == (640, 800)
    wide = recipes.load("2x_wide").for_images(16 * EPOCH)
    assert wide == replace(two, short_sides=(480, 960))


def test_a_recipe_stands_on_another_and_iterations_replace_epochs(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('recipe = "1x"\nbatch = 4\namp = "bf16"\n')
    mine = recipes.load(str(path))
    assert mine == replace(recipes.load("1x"), batch=4, amp="bf16")
    short = recipes.made({"recipe": str(path), "iterations": "90"})
    assert short.for_images(1000).iterations == 90


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('recipe = "2y"', r"unknown recipe '2y'.*2x"),
        ("lr = 1.0", r"unknown recipe field 'lr'"),
        ("batch = 'many'", "batch: expected int"),
        ("amp = 'fp8'", "unknown value 'fp8'"),
        ("short_sides = [800, 640]", "the smaller first"),
        ("batch = ", "cannot be read"),
        ("recipe = 'SELF'", "does not lead back here"),
        ("recipe = 3", "is the name of a recipe"),
    ],
)
def test_what_is_wrong_has_its_line(tmp_path: Path, text: str, line: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text.replace("SELF", str(path)))
    with pytest.raises(UsageError, match=line) as error:
        recipes.load(str(path))
    assert "\n" not in str(error.value)


def test_a_file_that_is_not_there_has_its_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no such file"):
        recipes.load(str(tmp_path / "none.toml"))


def test_a_suite_names_a_recipe(tmp_path: Path) -> None:
    from sepcbench import suites

    path = tmp_path / "mine.toml"
    rows = '[[row]]\nname = "fpn"\nvariant = "retinanet_r50_fpn"\n'
    path.write_text(f'title = "Mine"\ntrain = {{ recipe = "1x", batch = 8 }}\n{rows}')
    assert suites.load(str(path)).file.train == replace(recipes.load("1x"), batch=8)
    path.write_text(f'title = "Mine"\ntrain = {{ recipe = "9x" }}\n{rows}')
    with pytest.raises(UsageError, match="unknown recipe '9x'"):
        suites.load(str(path))
