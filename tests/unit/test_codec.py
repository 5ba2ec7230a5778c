"""Specs and records through JSON and back; bad values get one line that names the place."""

import json
import math
from typing import get_args

import pytest

from sepcbench.codec import decode, encode, fields_of
from sepcbench.errors import UsageError
from sepcbench.records import Accuracy, ClaimOutcome, Environment, Published
from sepcbench.specs import Conventions, Protocol, Recipe, VariantSpec
from sepcbench.variants import VARIANTS


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_survives_json(name):
    spec = VARIANTS[name]
    text = json.dumps(encode(spec), allow_nan=False)
    again = decode(VariantSpec, json.loads(text))
    assert again == spec
    assert hash(again) == hash(spec)


@pytest.mark.parametrize("value", [Conventions(), Protocol(), Recipe()])
def test_other_specs_survive_json(value):
    assert decode(type(value), json.loads(json.dumps(encode(value)))) == value


def test_mapping_fields_are_json_objects():
    environment = Environment(
        machine="m",
        cpu="c",
        cores=2,
        threads=2,
        gpu=None,
        driver=None,
        platform="p",
        versions=(("torch", "2"), ("numpy", "1")),
        flags=(),
        git_commit=None,
    )
    body = encode(environment)
    assert body["versions"] == {"torch": "2", "numpy": "1"}
    assert decode(Environment, body) == environment


def test_nan_becomes_null():
    outcome = ClaimOutcome("n", "f", math.nan, math.inf, "s", "", 3)
    body = encode(outcome)
    assert body["published"] is None
    assert body["measured"] is None


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"value": 1.0}, "missing key 'source'"),
        ({"value": 1.0, "source": "s", "nota": "x"}, "did you mean 'note'"),
        ({"value": "one", "source": "s"}, "expected float, found 'one'"),
        ({"value": True, "source": "s"}, "expected float, found True"),
        ({"value": 1.0, "source": 3}, "expected str, found 3"),
        ([], "expected a table"),
    ],
)
def test_bad_data_is_one_line_with_the_place(data, words):
    with pytest.raises(UsageError, match=r".") as caught:
        decode(Published, data, "file.toml: row 'a'")
    line = str(caught.value)
    assert words in line
    assert "file.toml: row 'a'" in line
    assert "\n" not in line


def test_unknown_neck_type_names_the_nearest():
    body = encode(VARIANTS["retinanet_r50_pconv"])
    body["necks"][1]["type"] = "pconf"
    with pytest.raises(UsageError, match="did you mean 'pconv'"):
        decode(VariantSpec, body)


def test_a_type_is_checked_where_only_one_is_possible():
    body = encode(VARIANTS["mask_rcnn_r50_fpn"])
    body["head"]["mask"]["type"] = "banana"
    with pytest.raises(UsageError, match=r"head\.mask: unknown type 'banana'; known: mask$"):
        decode(VariantSpec, body)
    del body["head"]["mask"]["type"]  # written by hand
    assert decode(VariantSpec, body) == VARIANTS["mask_rcnn_r50_fpn"]


def test_what_has_no_type_takes_none():
    with pytest.raises(UsageError, match="unknown key 'type'"):
        decode(Recipe, encode(Recipe()) | {"type": "recipe"})


def test_optional_scores_may_be_null():
    hints = fields_of(Accuracy)
    values = {name: None for name, hint in hints.items() if type(None) in get_args(hint)}
    values |= {
        "variant": "v",
        "dataset": "d",
        "images": 1,
        "detections": 0,
        "per_class": {"a": None},
        "task": "bbox",
    }
    record = decode(Accuracy, values)
    assert record.ap is None
    assert record.per_class == (("a", None),)
