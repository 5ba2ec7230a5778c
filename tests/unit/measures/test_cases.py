"""Every combination of conditions, and which of them are timed in turns."""

import pytest

from sepcbench.errors import UsageError
from sepcbench.measures.cases import as_tuple, cases_of, groups


def test_one_condition_keeps_the_names_of_the_rows():
    cases = cases_of(["a", "b"], ["eager"], ["fp32"], [1], [(8, 8)])
    assert [case.name for case in cases] == ["a", "b"]
    assert {case.kind for case in cases} == {"latency"}


def test_several_conditions_name_their_cases_and_records():
    cases = cases_of(["a"], ["eager", "graphed"], ["tf32", "fp16"], [1, 8], [(8, 8)])
    assert len({case.name for case in cases}) == 8
    last = cases[-1]
    assert (last.name, last.kind) == ("a@graphed-fp16-8", "latency@graphed-fp16-8")


def test_groups_are_of_one_batch_and_shape():
    cases = cases_of(["a", "b"], ["eager", "folded"], ["fp32"], [1, 2], [(8, 8), (16, 8)])
    found = groups(cases)
    assert [len(group) for group in found] == [4] * 4
    assert [(group[0].shape, group[0].batch) for group in found] == [
        ((8, 8), 1), ((8, 8), 2), ((16, 8), 1), ((16, 8), 2),
    ]  # fmt: skip
    assert len({case.name for case in cases}) == 16


@pytest.mark.parametrize(
    ("dtype", "tf32"), [("fp32", False), ("tf32", True), ("fp16", True), ("bf16", True)]
)
def test_only_fp32_is_computed_without_tf32(dtype, tf32):
    (case,) = cases_of(["a"], ["eager"], [dtype], [1], [(8, 8)])
    assert case.tf32 == tf32


def test_one_value_or_several():
    assert as_tuple("eager") == ("eager",)
    assert as_tuple(8) == (8,)
    assert as_tuple([1, 8, 1]) == (1, 8)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"dtypes": ["fp61"]}, "did you mean 'fp16'"),
        ({"batches": [0]}, "at least 1 image"),
        ({"engines": []}, "no engine given"),
        ({"shapes": []}, "no shape given"),
    ],
)
def test_bad_conditions(changes, line):
    given = {"engines": ["eager"], "dtypes": ["fp32"], "batches": [1], "shapes": [(8, 8)]}
    with pytest.raises(UsageError, match=line):
        cases_of(["a"], **(given | changes))
