"""Damage to files: strategies that break JSON trees and bytes, and what must come of it."""

import copy
import json

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from sepcbench.errors import SepcbenchError

# The same examples on every run: a failure elsewhere is a failure here.
FUZZ = settings(
    max_examples=50,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
LONG = settings(FUZZ, max_examples=1000, derandomize=False, print_blob=True)

NASTY = (
    None, True, False, 0, 1, -1, 2**31, 2**63, 10**30, 10**400, 0.5, -0.0, 1e-320, 1e308, -1e308,
    float("nan"), float("inf"), "", " ", "nan", "1e999", "none", "a\nb", "\ud800", "\x00", "../x",
    "x" * 5000, "1" * 5000, "9" * 15, [], {}, [[]], [None], {"type": []}, {"": 0}, [1, 2, 3, 4],
    [[[[[[]]]]]], ["a", "b"], {"type": "sepc"},
)  # fmt: skip


def one_line(action, *arguments):
    """Do it: a result, or an error of ours in a line that says something. Returns the result."""
    refusal = None
    try:
        return action(*arguments)
    except SepcbenchError as error:
        refusal = error
    assert str(refusal).strip()
    assert refusal.exit_code in (1, 2)
    return None


@st.composite
def damaged(draw, tree):
    """A JSON tree with one to three things wrong with it."""
    tree = copy.deepcopy(tree)
    for _ in range(draw(st.integers(1, 3))):
        places = list(_places(tree))
        if not places:
            return tree
        parent, key = draw(st.sampled_from(places))
        _break(draw, parent, key)
    return tree


def _places(node):
    """Every (container, key or index) inside a tree."""
    items = node.items() if isinstance(node, dict) else enumerate(node)
    for key, value in list(items):
        yield node, key
        if isinstance(value, (dict, list)):
            yield from _places(value)


def _break(draw, parent, key):
    how = draw(st.sampled_from(["replace"] * 4 + ["drop", "rename", "repeat", "sign", "wrap"]))
    value = parent[key]
    if how == "drop":
        del parent[key]
    elif how == "rename" and isinstance(parent, dict):
        parent[draw(st.sampled_from([key + "x", key[:-1], key.upper(), ""]))] = parent.pop(key)
    elif how == "repeat" and isinstance(parent, list):
        parent.insert(key, copy.deepcopy(value))
    elif how == "sign" and isinstance(value, (int, float)):
        parent[key] = -value
    elif how == "wrap":
        parent[key] = [value]
    else:
        parent[key] = copy.deepcopy(draw(st.sampled_from(NASTY)))


@st.composite
def damaged_bytes(draw, content):
    """Bytes that were cut off, or in which some were changed, lost or doubled."""
    data = bytearray(content)
    how = draw(st.sampled_from(["cut", "flip", "flip", "flip", "drop", "double", "noise"]))
    # a header is small and early in its file: half of all damage goes there
    end = draw(st.sampled_from([min(2000, len(data)), len(data)]))
    at = draw(st.integers(0, max(end - 1, 0)))
    if how == "cut":
        del data[at:]
    elif how == "flip":
        for place in draw(st.lists(st.integers(0, max(end - 1, 0)), min_size=1, max_size=4)):
            data[place] = draw(st.integers(0, 255))
    elif how == "drop":
        del data[at : at + draw(st.integers(1, 50))]
    elif how == "double":
        data[at:at] = data[at : at + draw(st.integers(1, 50))]
    else:
        data[at:at] = draw(st.binary(min_size=1, max_size=20))
    return bytes(data)


def write(path, tree):
    """Write a damaged tree as JSON, lone surrogates and all."""
    path.write_text(json.dumps(tree), encoding="utf-8")


def toml(tree):
    """A tree as TOML, every table inline; what TOML cannot say becomes a text."""
    return "".join(f"{_key(key)} = {_value(value)}\n" for key, value in tree.items())


def _key(key):
    return json.dumps(key)


def _value(value):
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_key(k)} = {_value(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_value, value)) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (int, float)):
        return repr(value)
    return json.dumps("" if value is None else value)
