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
    assert {"1x", "1x_two_stage", "2x", "2x_wide", "shapes"} <= set(recipes.names())
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
        ("lr = 1.0", r"unknown recipe field 'lr'.*`sepcbench list recipes`"),
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


def test_two_stage_detectors_and_proposals_have_twice_the_rate_of_1x() -> None:
    """mmdetection's configs/_base_/schedules/schedule_1x.py: lr=0.02 for 8 GPUs of 2 images."""
    from sepcbench import suites

    recipe = recipes.load("1x_two_stage")
    assert recipe == replace(recipes.load("1x"), learning_rate=0.02)
    assert recipe.peak_rate == 0.02
    for name in suites.names():
        for row in suites.load(name).rows:
            if not row.spec.head.one_stage and name != "published_costs":  # which trains nothing
                assert (row.train or suites.load(name).file.train) == recipe, (name, row.name)


def test_the_rows_of_table_3_are_trained_as_the_paper_says() -> None:
    """SEPC, section 5.2: 24 epochs, 640 to 800 pixels; 480 to 960 with the DCN backbone."""
    from sepcbench import suites

    suite = suites.load("state_of_the_art")
    for row in suite.rows:
        recipe = row.train or suite.file.train
        assert recipe is not None
        sides = (480, 960) if row.name.startswith("dcn") else (640, 800)
        assert (recipe.epochs, recipe.short_sides) == (24, sides), row.name
    twin = suites.twin(suite)
    assert twin.file.train == Recipe(iterations=300)
    assert all(row.train is None for row in twin.rows)


@pytest.mark.parametrize(
    ("train", "row", "wanted"),
    [
        ("", 'train = "2x"', recipes.load("2x")),
        ('train = {recipe = "1x"}', "train = {seed = 3}", replace(recipes.load("1x"), seed=3)),
        ('train = {recipe = "1x"}', 'train = {recipe = "2x", seed = 3}',
         replace(recipes.load("2x"), seed=3)),
        ('train = {recipe = "1x"}', "", None),
    ],
)  # fmt: skip
def test_a_row_names_its_recipe_or_changes_the_suites(
    tmp_path: Path, train: str, row: str, wanted: Recipe | None
) -> None:
    from sepcbench import suites
    from sepcbench.codec import decode, encode

    path = tmp_path / "mine.toml"
    rows = f'[[row]]\nname = "fpn"\nvariant = "retinanet_r50_fpn"\n{row}\n'
    path.write_text(f'title = "Mine"\n{train}\n{rows}')
    suite = suites.load(str(path))
    assert suite.rows[0].train == wanted
    assert decode(suites.SuiteFile, encode(suite.file)) == suite.file
    assert suites.twin(suite).rows[0].train is None


@pytest.mark.parametrize(
    ("row", "line"),
    [
        ("train = {seed = 3}", "has fields on top of no recipe; add recipe = 'NAME'"),
        ('train = "9x"', "unknown recipe '9x'"),
        ('train = {recipe = "1x", lr = 1}', "unknown key 'lr'"),
        ("train = 3", "expected a table"),
        ('test_time = {scales = "400:1"}', "row 'a': test_time: scales '400:1'"),
        ('test_time = {scale = "400"}', "did you mean 'scales'"),
        ('test_time = {flip = true}\nset = {head = "x"}', "head"),
    ],
)
def test_what_is_wrong_with_a_row_has_its_line(tmp_path: Path, row: str, line: str) -> None:
    from sepcbench import suites

    path = tmp_path / "mine.toml"
    rows = f'[[row]]\nname = "a"\nvariant = "retinanet_r50_fpn"\n{row}\n'
    path.write_text(f'title = "Mine"\n{rows}')
    with pytest.raises(UsageError, match=line) as error:
        suites.load(str(path))
    assert "\n" not in str(error.value)


def test_test_time_options_are_for_one_stage(tmp_path: Path) -> None:
    from sepcbench import suites

    path = tmp_path / "mine.toml"
    rows = '[[row]]\nname = "a"\nvariant = "faster_rcnn_r50_fpn"\ntest_time = {flip = true}\n'
    path.write_text(f'title = "Mine"\n{rows}')
    with pytest.raises(UsageError, match="row 'a': test_time is for one-stage detectors"):
        suites.load(str(path))


def test_a_suite_names_a_recipe(tmp_path: Path) -> None:
    from sepcbench import suites

    path = tmp_path / "mine.toml"
    rows = '[[row]]\nname = "fpn"\nvariant = "retinanet_r50_fpn"\n'
    path.write_text(f'title = "Mine"\ntrain = {{ recipe = "1x", batch = 8 }}\n{rows}')
    assert suites.load(str(path)).file.train == replace(recipes.load("1x"), batch=8)
    path.write_text(f'title = "Mine"\ntrain = {{ recipe = "9x" }}\n{rows}')
    with pytest.raises(UsageError, match="unknown recipe '9x'"):
        suites.load(str(path))
