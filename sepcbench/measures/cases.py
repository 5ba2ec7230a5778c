"""What is timed against each other: every row with every engine, dtype, batch and shape."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch

from sepcbench.errors import UsageError, unknown
from sepcbench.specs import Dtype, EngineName
from sepcbench.units import format_shape

DTYPES: dict[Dtype, torch.dtype] = {
    "fp32": torch.float32,
    "tf32": torch.float32,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
}

Shape = tuple[int, int]


@dataclass(frozen=True)
class Case:
    """One row under one set of conditions.

    `name` is the row's where there is only one set of conditions, else "row@engine-dtype-batch".
    `kind` is that of its record: "latency", or "latency@engine-dtype-batch".
    """

    name: str
    row: str
    engine: EngineName
    dtype: Dtype
    batch: int
    shape: Shape
    kind: str = "latency"

    @property
    def tf32(self) -> bool:
        """Whether float32 arithmetic may use TF32: always, where the dtype is coarser anyway."""
        return self.dtype != "fp32"

    @property
    def conditions(self) -> str:
        """Engine, dtype and batch in one word, as in kinds of records."""
        return f"{self.engine}-{self.dtype}-{self.batch}"


def cases_of(
    rows: Iterable[str],
    engines: Sequence[EngineName],
    dtypes: Sequence[Dtype],
    batches: Sequence[int],
    shapes: Sequence[Shape],
) -> list[Case]:
    """All combinations, those of one shape and batch together, the rows of one condition together.

    Raises:
        UsageError: an unknown dtype, a batch below 1, or an empty list.
    """
    _check(engines, dtypes, batches, shapes)
    combinations = list(product(shapes, batches, dtypes, engines))
    rows = tuple(rows)
    cases = []
    for shape, batch, dtype, engine in combinations:
        for row in rows:
            case = Case(row, row, engine, dtype, batch, shape)
            if len(combinations) > 1:
                words = case.conditions + (f"-{format_shape(shape)}" if len(shapes) > 1 else "")
                kind = f"latency@{case.conditions}"
                case = Case(f"{row}@{words}", row, engine, dtype, batch, shape, kind)
            cases.append(case)
    return cases


def groups(cases: Iterable[Case]) -> list[list[Case]]:
    """The cases of one shape and batch, which are timed in turns."""
    found: dict[tuple[Shape, int], list[Case]] = {}
    for case in cases:
        found.setdefault((case.shape, case.batch), []).append(case)
    return list(found.values())


def as_tuple(value: Any) -> tuple[Any, ...]:
    """One value or several as a tuple without repetitions."""
    several = isinstance(value, Sequence) and not isinstance(value, str)
    return tuple(dict.fromkeys(value)) if several else (value,)


def _check(
    engines: Sequence[str], dtypes: Sequence[str], batches: Sequence[int], shapes: Sequence[Shape]
) -> None:
    for name, values in (("engine", engines), ("dtype", dtypes), ("batch", batches)):
        if not values:
            raise UsageError(f"no {name} given; name at least one")
    if not shapes:
        raise UsageError("no shape given; name at least one")
    for dtype in dtypes:
        if dtype not in DTYPES:
            raise unknown("dtype", dtype, DTYPES)
    for batch in batches:
        if batch < 1:
            raise UsageError(f"batch {batch}: at least 1 image is needed")
