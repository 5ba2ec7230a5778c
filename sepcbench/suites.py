"""Suites: TOML files of variants in rows, with what was published beside each.

An unknown key is an error that names the nearest valid one. The classes below are the file's
grammar, field by field; `Suite` is the file with its variants resolved.
"""

from __future__ import annotations

import ast
import re
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sepcbench.codec import decode
from sepcbench.errors import UsageError, nearest, unknown
from sepcbench.records import PUBLISHED, Published
from sepcbench.specs import (
    CostConvention,
    Dtype,
    EngineName,
    MeasureName,
    Protocol,
    Recipe,
    Scope,
    VariantSpec,
)
from sepcbench.units import parse_shape
from sepcbench.variants import variant

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")


@dataclass(frozen=True)
class CostSettings:
    """How a suite counts."""

    shape: str = "800x1344"
    convention: CostConvention = "mac"


@dataclass(frozen=True)
class LatencySettings:
    """How a suite times. `protocol` overrides fields of `specs.Protocol`."""

    scope: Scope = "forward"
    shape: str = "800x1344"
    batch: int = 1
    dtype: Dtype = "fp32"
    engine: EngineName = "eager"
    protocol: Protocol = field(default_factory=Protocol)


@dataclass(frozen=True)
class ShapesSettings:
    """The generated COCO set of a suite that brings its own data."""

    images: int = 300
    val_images: int = 100
    size: str = "128x128"
    seed: int = 0


@dataclass(frozen=True)
class RowEntry:
    """One row of a suite file: a named variant, overrides, and what was published for it."""

    name: str
    variant: str
    label: str = ""
    set: tuple[tuple[str, Any], ...] = ()
    published: tuple[tuple[str, Published], ...] = ()


@dataclass(frozen=True)
class Claim:
    """A published statement about rows, as a formula over what is measured.

    The formula has +, -, *, /, numbers, parentheses and `row.quantity`; see `CLAIM_QUANTITIES`.
    """

    name: str
    formula: str
    published: float | None = None
    source: str = ""
    unit: str = ""
    digits: int = 4


# What a claim's formula may name after a row: macs in multiply-adds, latency in seconds,
# latency_ratio against the first row, AP as a fraction of 1.
CLAIM_QUANTITIES = (
    "macs",
    "backbone",
    "neck",
    "head",
    "tower",
    "sampling",
    "params",
    "latency",
    "latency_ratio",
    "ap",
    "ap50",
)


@dataclass(frozen=True)
class SuiteFile:
    """The grammar of a suite file."""

    title: str
    row: tuple[RowEntry, ...]
    about: str = ""
    measures: tuple[MeasureName, ...] = ("cost", "latency", "accuracy")
    cost: CostSettings = field(default_factory=CostSettings)
    latency: LatencySettings = field(default_factory=LatencySettings)
    shapes: ShapesSettings | None = None
    train: Recipe | None = None
    claim: tuple[Claim, ...] = ()


@dataclass(frozen=True)
class SuiteRow:
    """A row with its variant resolved."""

    name: str
    label: str
    spec: VariantSpec
    published: tuple[tuple[str, Published], ...] = ()


@dataclass(frozen=True)
class Suite:
    """A suite that has been read and checked."""

    name: str
    file: SuiteFile
    rows: tuple[SuiteRow, ...]

    @property
    def cost_shape(self) -> tuple[int, int]:
        """Input shape of the cost measure, (height, width) in pixels."""
        return parse_shape(self.file.cost.shape)

    @property
    def latency_shape(self) -> tuple[int, int]:
        """Input shape of the latency measure, (height, width) in pixels."""
        return parse_shape(self.file.latency.shape)


def folders() -> tuple[Path, ...]:
    """Where suites are found by name: here, beside the package, and inside an installed one."""
    package = Path(__file__).resolve().parent
    return (Path("suites"), package.parent / "suites", package / "_suites")


def names() -> list[str]:
    """The suites that can be run by name."""
    found = {path.stem for folder in folders() for path in folder.glob("*.toml")}
    return sorted(found)


def locate(name: str) -> Path:
    """Find a suite by path or by name.

    Raises:
        UsageError: there is no such file and no such name.
    """
    path = Path(name)
    if path.suffix == ".toml" or path.is_file():
        if path.is_file():
            return path
        raise UsageError(f"suite '{name}': there is no such file (see `sepcbench list suites`)")
    for folder in folders():
        candidate = folder / f"{name}.toml"
        if candidate.is_file():
            return candidate
    raise unknown("suite", name, names(), "see `sepcbench list suites`")


def load(name: str) -> Suite:
    """Read a suite by path or name, and check all of it.

    Raises:
        UsageError: the file is missing or malformed, a key or name is unknown, or it has no rows.
    """
    path = locate(name)
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: not valid TOML: {error}") from None
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from None
    if not data.get("row"):
        near = [key for key in data if nearest(key, ["row"])]
        hint = f"; '{near[0]}' should be 'row'" if near and near[0] != "row" else ""
        raise UsageError(f"{path}: the suite has no rows; add a [[row]] table{hint}")
    return compile_suite(path.stem, decode(SuiteFile, data, str(path)), str(path))


def compile_suite(name: str, file: SuiteFile, where: str) -> Suite:
    """Resolve the variants of a suite file and check names, shapes and formulas."""
    for text in (file.cost.shape, file.latency.shape, file.shapes.size if file.shapes else "1x1"):
        try:
            parse_shape(text)
        except UsageError as error:
            raise UsageError(f"{where}: {error}") from None
    rows: list[SuiteRow] = []
    for entry in file.row:
        if not _NAME.match(entry.name):
            raise UsageError(f"{where}: row '{entry.name}': a name has letters, digits and _ only")
        if any(entry.name == row.name for row in rows):
            raise UsageError(f"{where}: row '{entry.name}' is there twice; names must differ")
        rows.append(_compile_row(entry, f"{where}: row '{entry.name}'"))
    for claim in file.claim:
        _check_claim(claim, [row.name for row in rows], f"{where}: claim '{claim.name}'")
    return Suite(name, file, tuple(rows))


def _compile_row(entry: RowEntry, where: str) -> SuiteRow:
    for key, _ in entry.published:
        if key not in PUBLISHED:
            raise UsageError(f"{where}: {unknown('published value', key, PUBLISHED)}")
    try:
        spec = variant(entry.variant, dict(entry.set))
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from None
    return SuiteRow(entry.name, entry.label or entry.name, spec, entry.published)


_OPERATORS = (ast.Add, ast.Sub, ast.Mult, ast.Div)


def _check_claim(claim: Claim, rows: list[str], where: str) -> None:
    for node in ast.walk(parse_formula(claim.formula, where)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if node.value.id not in rows:
                raise UsageError(f"{where}: {unknown('row', node.value.id, rows)}")
            if node.attr not in CLAIM_QUANTITIES:
                raise UsageError(f"{where}: {unknown('quantity', node.attr, CLAIM_QUANTITIES)}")


def parse_formula(formula: str, where: str) -> ast.expr:
    """Parse a claim's formula; only arithmetic, numbers and `row.quantity` are let through.

    Raises:
        UsageError: anything else is in it.
    """
    try:
        tree = ast.parse(formula, mode="eval").body
    except SyntaxError:
        raise UsageError(f"{where}: '{formula}' is not a formula") from None
    inside = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    for node in ast.walk(tree):
        binary = isinstance(node, ast.BinOp) and isinstance(node.op, _OPERATORS)
        number = isinstance(node, ast.Constant) and isinstance(node.value, (int, float))
        named = isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
        word = isinstance(node, ast.Name) and id(node) in inside
        minor = isinstance(node, (*_OPERATORS, ast.Load))
        if not (binary or number or named or word or minor):
            raise UsageError(f"{where}: '{formula}' may hold only + - * / ( ) and row.quantity")
    return tree
