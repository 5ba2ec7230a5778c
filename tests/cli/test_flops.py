"""`sepcbench flops`."""

import csv
import json
import subprocess
import sys
import time

import pytest
import torch

from sepcbench.cli.app import run
from sepcbench.records import Cost
from sepcbench.variants import VARIANTS

NECKS = ("fpn", "pafpn", "pconv", "pconv_ibn", "sepc_lite", "sepc")
R50 = [f"retinanet_r50_{neck}" for neck in NECKS]
TINY = ["retinanet_tiny_fpn", "retinanet_tiny_sepc"]
SMALL = ["--shape", "128x128"]

SUITE = """
title = "Two"
[cost]
shape = "64x96"
[[row]]
name = "plain"
variant = "retinanet_tiny_fpn"
[[row]]
name = "plain_again"
variant = "retinanet_tiny_fpn"
"""


@pytest.fixture(autouse=True)
def threads():
    """Small maps: several threads would only wait for each other. Yields how many there were."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield before
    torch.set_num_threads(before)


def flops(capsys, *arguments):
    code = run(["flops", *arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def as_json(capsys, *arguments):
    code, out, _ = flops(capsys, *arguments, "--format", "json")
    assert code == 0
    return json.loads(out)


def test_json_has_stable_names(capsys):
    found = as_json(capsys, *TINY, *SMALL)
    assert [row["variant"] for row in found] == TINY
    fields = {"variant", "shape", "params", "trainable_params", "macs", "by_op", "unsupported_ops"}
    for row in found:
        assert fields <= set(row) == set(Cost.__dataclass_fields__)
        assert row["shape"] == [128, 128]
        macs = row["macs"]
        assert list(macs) == ["total", "backbone", "neck", "head", "tower"]
        assert macs["total"] == macs["backbone"] + macs["neck"] + macs["head"]
        assert macs["total"] == sum(row["by_op"].values())


def test_table_says_mac_and_the_shape(capsys):
    code, out, err = flops(capsys, "retinanet_r50_fpn", "--shape", "800x1280", "--format", "md")
    assert (code, err) == (0, "")
    assert "| retinanet_r50_fpn | 37.969 | 37.743 | 238.536 | 83.411 | 17.324 | 137.801 |" in out
    assert "GMAC (lower is better)" in out
    assert "800x1280" in out


def test_mmdet_convention(capsys):
    arguments = ("retinanet_r50_fpn", "--shape", "1280x800", "--convention", "mmdet")
    _, out, _ = flops(capsys, *arguments, "--format", "csv")
    assert ",239.317," in out


@pytest.mark.parametrize("by", ["part", "module", "op"])
@pytest.mark.parametrize("fmt", ["table", "csv", "md"])
def test_every_view_in_every_format(capsys, by, fmt):
    code, out, _ = flops(capsys, *TINY, *SMALL, "--by", by, "--format", fmt)
    assert code == 0
    assert "GMAC" in out
    for name in TINY:
        assert name in out
    if fmt == "csv":
        rows = list(csv.reader(out.splitlines()))
        assert len(rows) > len(TINY)
        assert len({len(row) for row in rows}) == 1


def test_views_show_modules_and_ops(capsys):
    _, modules, _ = flops(capsys, TINY[1], *SMALL, "--by", "module", "--format", "csv")
    assert ",necks.1," in modules
    _, ops, _ = flops(capsys, TINY[1], *SMALL, "--by", "op", "--format", "csv")
    assert ",deform_conv," in ops
    assert ",deform_sampling," in ops


def test_exact_and_check_agree_with_the_default(capsys):
    default = as_json(capsys, *TINY, *SMALL)
    exact = as_json(capsys, *TINY, *SMALL, "--exact", "--check")
    assert [row["macs"] for row in exact] == [row["macs"] for row in default]
    assert [row["exact"] for row in exact] == [True, True]
    checked = as_json(capsys, TINY[1], *SMALL, "--check", "--convention", "paper")
    assert checked[0]["macs"]["total"] > default[1]["macs"]["total"]


def test_check_finds_a_difference(capsys, monkeypatch):
    monkeypatch.setattr("sepcbench.measures.cost.count_dispatched", lambda *_: 1)
    code, out, err = flops(capsys, *TINY, *SMALL, "--check")
    assert (code, out) == (2, "")
    assert "FlopCounterMode 1" in err
    assert TINY[0] in err


def test_set_overrides_every_variant(capsys):
    four, six = (
        as_json(capsys, "retinanet_tiny_pconv", *SMALL, "--set", f"necks.1.depth={depth}")[0]
        for depth in (4, 6)
    )
    assert six["macs"]["head"] == four["macs"]["head"]
    assert six["macs"]["tower"] > four["macs"]["tower"]


def test_what_was_set_is_said(capsys):
    sets = ("--set", "norm=gn", "--set", "depth=3")
    changed = as_json(capsys, "retinanet_tiny_pconv", *SMALL, *sets)[0]
    assert changed["set"] == {"norm": "gn", "depth": "3"}
    assert "set" not in as_json(capsys, "retinanet_tiny_pconv", *SMALL)[0]
    for view in ("part", "module", "op"):
        call = ("retinanet_tiny_pconv", *SMALL, *sets, "--by", view, "--format", "md")
        assert "| retinanet_tiny_pconv (norm=gn, depth=3) |" in flops(capsys, *call)[1]


def test_what_was_set_is_not_said_of_a_module_without_fields(capsys):
    call = ("retinanet_tiny_fpn", "torch.nn:Identity", *SMALL, "--set", "depth=1")
    found = as_json(capsys, *call)
    assert [row.get("set") for row in found] == [{"depth": "1"}, None]
    _, out, _ = flops(capsys, *call, "--format", "csv")
    assert out.splitlines()[2].startswith("torch.nn:Identity,")


def test_suite_rows_at_the_suites_shape(capsys, tmp_path):
    path = tmp_path / "two.toml"
    path.write_text(SUITE)
    found = as_json(capsys, "--suite", str(path))
    assert [row["row"] for row in found] == ["plain", "plain_again"]
    assert {row["variant"] for row in found} == {"retinanet_tiny_fpn"}
    assert {tuple(row["shape"]) for row in found} == {(64, 96)}
    other = as_json(capsys, "--suite", str(path), *SMALL, "--set", "head.channels=16")
    assert {tuple(row["shape"]) for row in other} == {(128, 128)}
    assert other[0]["params"] < found[0]["params"]


def test_a_variant_twice_gets_a_number(capsys):
    found = as_json(capsys, TINY[0], TINY[0], *SMALL)
    assert [row["variant"] for row in found] == [TINY[0], f"{TINY[0]}#2"]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ([], "no variant given"),
        (["retinanet_r50_spec"], "did you mean 'retinanet_r50_sepc'"),
        ([TINY[0], "--shape", "800,1344"], "shape '800,1344' is not HEIGHTxWIDTH"),
        ([TINY[0], "--shape", "0x0"], "shape '0x0' is not HEIGHTxWIDTH"),
        ([TINY[0], "--by", "layer"], "unknown view 'layer'"),
        ([TINY[0], "--convention", "mmdet2"], "did you mean 'mmdet'"),
        ([TINY[0], "--format", "jsn"], "did you mean 'json'"),
        ([TINY[0], "--set", "dept=6"], "did you mean 'depth'"),
        ([TINY[0], "--set", "depth"], "--set 'depth' is not FIELD=VALUE"),
        (["--suite", "quik"], "did you mean 'quick'"),
        (["--suite", "no/such.toml"], "no such file"),
        (["retinanet_tiny_sepc", "--shape", "64x64", "--set", "extra_padding=0"],
         "variant 'retinanet_tiny_sepc': extra_padding=0 needs every level at least 3x3"),
        ([TINY[0], "--shapes", "64x64"], "--shapes"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line(capsys, arguments, line):
    code, out, err = flops(capsys, *arguments)
    assert (code, out) == (2, "")
    assert line in err
    assert len(err.strip().splitlines()) == 1
    assert "Traceback" not in err


ODD = ("1x1", "7x5", "33x65")
SMALL_ONES = [name for name in VARIANTS if "_tiny_" in name]


def a_shape_each():
    """Every third variant in one of the shapes, in turns; the others are slow."""
    return [
        pytest.param(name, shape, marks=() if i % 9 == 3 * j else pytest.mark.slow)
        for i, name in enumerate(SMALL_ONES)
        for j, shape in enumerate(ODD)
    ]


@pytest.mark.parametrize(("name", "shape"), a_shape_each())
def test_any_shape_counts(capsys, name, shape):
    assert as_json(capsys, name, "--shape", shape)[0]["macs"]["total"] > 0


@pytest.mark.slow
def test_six_variants_are_counted_in_seconds(threads):
    """Imports included, it takes less than four forward passes of one of them.

    The forward passes are timed at half the height and width, a quarter of the work, so that
    the comparison holds on a busy machine too.
    """
    start = time.perf_counter()
    command = [sys.executable, "-m", "sepcbench", "flops", *R50, "--format", "json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    seconds = time.perf_counter() - start
    assert [row["variant"] for row in json.loads(done.stdout)] == R50

    from sepcbench import detectors

    detector = detectors.build(VARIANTS["retinanet_r50_sepc"]).eval()
    images = torch.randn(1, 3, 400, 672)
    torch.set_num_threads(threads)
    with torch.inference_mode():
        detector(images)
        start = time.perf_counter()
        detector(images)
    forward = 4 * (time.perf_counter() - start)
    assert seconds < 4 * forward
