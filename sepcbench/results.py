"""A suite and its stored records, joined row by row into what a report shows."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable
from typing import Any

from sepcbench import recipes
from sepcbench.codec import decode, encode
from sepcbench.differences import against_first
from sepcbench.formulas import parse_formula
from sepcbench.records import ClaimOutcome, Failure, Latency, Origin, Results, Row, Seeded
from sepcbench.specs import Recipe
from sepcbench.store import MORE, Store, Stored, plain_kind
from sepcbench.suites import (
    Claim,
    RowEntry,
    Suite,
    SuiteFile,
    SuiteRow,
    compile_suite,
    names,
)


def keep_suite(store: Store, suite: Suite) -> None:
    """Write the suite beside its records."""
    store.write_suite({"name": suite.name, "suite": encode(suite.file)})


def kept_suite(store: Store) -> Suite:
    """The suite that `keep_suite` wrote.

    Raises:
        UsageError: there is none, or it is damaged.
    """
    body, where = store.read_suite(), str(store.folder / "suite.json")
    file = decode(SuiteFile, body.get("suite"), where)
    return compile_suite(str(body.get("name")), file, where)


def assemble(suite: Suite, store: Store) -> Results:
    """Join the rows of a suite with what is stored for them. Nothing is measured."""
    stored = {(item.row, item.kind): item for item in store.records()}
    measured = {row.name: _row(row, stored) for row in suite.rows}
    references = {entry.name: _reference(entry) for entry in suite.references}
    rows = against_first([(measured | references)[entry.name] for entry in suite.file.row])
    newest = max(stored.values(), key=lambda item: item.created, default=None)
    return Results(
        suite=suite.name,
        title=suite.file.title,
        about=suite.file.about,
        machine=newest.environment.machine if newest else store.folder.name,
        generated_data=suite.file.shapes is not None,
        rows=rows,
        claims=tuple(_outcome(claim, rows) for claim in suite.file.claim),
        environment=newest.environment if newest else None,
        created=newest.created if newest else "",
        origins=tuple(_origin(item) for item in stored.values()),
        run_as=_run_as(suite),
        recipes=_recipes(suite, rows),
    )


def _recipes(suite: Suite, rows: tuple[Row, ...]) -> tuple[tuple[str, Recipe], ...]:
    """How the suite says that the rows are trained, of those that were."""
    own = {row.name: row.train for row in suite.rows}
    trained = [row.name for row in rows if row.training is not None]
    if not trained:
        return ()
    usual = suite.file.train
    if usual is None:
        usual = Recipe() if suite.file.shapes is not None else recipes.load(recipes.OF_COCO)
    return tuple((name, own.get(name) or usual) for name in trained)


def _origin(item: Stored) -> Origin:
    return Origin(item.row, item.kind, item.created, item.environment)


def _run_as(suite: Suite) -> str:
    """How `sepcbench run` is told to measure this suite; a file is taken to be in this folder."""
    name = suite.name.removesuffix("_twin") if suite.file.twin else suite.name
    found = name if name in names() else f"{name}.toml"
    return f"{found} --data shapes" if suite.file.twin else found


def _row(row: SuiteRow, stored: dict[tuple[str, str], Stored]) -> Row:
    found: dict[str, Any] = {}
    failures: list[Failure] = []
    timings: list[Latency] = []
    seeds: list[Seeded] = []
    for (name, kind), item in stored.items():
        if name != row.name:
            continue
        if isinstance(item.record, Failure):
            failures.append(item.record)
        elif isinstance(item.record, Latency) and MORE in kind:
            timings.append(item.record)
        elif MORE in kind:
            record: Any = item.record
            seeds.append(Seeded(plain_kind(kind), int(kind.split(MORE)[1]), record))
        else:
            found[kind] = item.record
    return Row(
        row.name,
        row.label,
        row.spec.name,
        row.published,
        row.not_published,
        row.group,
        failures=tuple(failures),
        timings=tuple(timings),
        seeds=tuple(seeds),
        **found,
    )


def _reference(entry: RowEntry) -> Row:
    """A row with published values only."""
    label = entry.label or entry.name
    return Row(entry.name, label, "", entry.published, entry.not_published, entry.group)


# Quantity of a claim's formula: how to read it off a row; None where it was not measured.
_QUANTITIES: dict[str, Callable[[Row], float | None]] = {
    "macs": lambda row: _macs(row, "total"),
    "backbone": lambda row: _macs(row, "backbone"),
    "neck": lambda row: _macs(row, "neck"),
    "head": lambda row: _macs(row, "head"),
    "tower": lambda row: _macs(row, "tower"),
    "sampling": lambda row: row.cost.sampling_macs if row.cost else None,
    "params": lambda row: row.cost.params if row.cost else None,
    "latency": lambda row: row.latency.median_s if row.latency else None,
    "latency_ratio": lambda row: (
        row.latency.ratio.median if row.latency and row.latency.ratio else None
    ),
    "ap": lambda row: row.accuracy.ap if row.accuracy else None,
    "ap50": lambda row: row.accuracy.ap50 if row.accuracy else None,
    "mask_ap": lambda row: row.masks.ap if row.masks else None,
    "ar1000": lambda row: row.recall.ar1000 if row.recall else None,
}


def _macs(row: Row, part: str) -> float | None:
    return dict(row.cost.macs).get(part) if row.cost else None


def _outcome(claim: Claim, rows: tuple[Row, ...]) -> ClaimOutcome:
    tree = parse_formula(claim.formula, claim.name)
    measured = _evaluate(tree, {row.name: row for row in rows})
    return ClaimOutcome(
        claim.name, claim.formula, claim.published, measured, claim.source, claim.unit, claim.digits
    )


_OPERATORS: dict[type, Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


def _evaluate(node: ast.expr, rows: dict[str, Row]) -> float | None:
    """Work out a formula; None as soon as a value in it was not measured."""
    if isinstance(node, ast.BinOp):
        left, right = _evaluate(node.left, rows), _evaluate(node.right, rows)
        if left is None or right is None or (isinstance(node.op, ast.Div) and right == 0):
            return None
        return _OPERATORS[type(node.op)](left, right)
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        return _QUANTITIES[node.attr](rows[node.value.id])
    return float(node.value) if isinstance(node, ast.Constant) else None  # type: ignore[arg-type]
