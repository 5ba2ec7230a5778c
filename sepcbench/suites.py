"""Suites: TOML files of variants in rows, with what was published beside each.

An unknown key is an error that names the nearest valid one. The classes below are the file's
grammar, field by field; `Suite` is the file with its variants resolved.
"""

from __future__ import annotations

import ast
import re
import tomllib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

from sepcbench import recipes
from sepcbench.codec import decode
from sepcbench.errors import UsageError, nearest, unknown
from sepcbench.formulas import parse_formula
from sepcbench.records import PUBLISHED, Published
from sepcbench.specs import (
    CostConvention,
    Dtype,
    EngineName,
    MeasureName,
    Protocol,
    Recipe,
    Scope,
    TinySpec,
    VariantSpec,
)
from sepcbench.specs.test_time import TestTime, parse_scales
from sepcbench.units import parse_shape
from sepcbench.variants import variant, variant_twin

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")


@dataclass(frozen=True)
class CostSettings:
    """How a suite counts."""

    shape: str = "800x1344"
    convention: CostConvention = "mac"


@dataclass(frozen=True)
class MoreTimings:
    """Further conditions that a suite times on one kind of device: all combinations."""

    engines: tuple[EngineName, ...] = ()
    dtypes: tuple[Dtype, ...] = ()
    batches: tuple[int, ...] = ()


@dataclass(frozen=True)
class LatencySettings:
    """How a suite times. `protocol` overrides fields of `specs.Protocol`.

    `cpu` and `cuda` say what else is timed there: the engine, dtype and batch of the suite always
    are, and with them all combinations of what is named. `twin` is what the suite's small twin has
    for `cpu`.
    """

    scope: Scope = "forward"
    shape: str = "800x1344"
    batch: int = 1
    dtype: Dtype = "fp32"
    engine: EngineName = "eager"
    protocol: Protocol = field(default_factory=Protocol)
    cpu: MoreTimings = field(default_factory=MoreTimings)
    cuda: MoreTimings = field(default_factory=MoreTimings)
    twin: MoreTimings = field(default_factory=MoreTimings)


@dataclass(frozen=True)
class ShapesSettings:
    """The generated COCO set of a suite that brings its own data."""

    images: int = 300
    val_images: int = 100
    size: str = "128x128"
    seed: int = 0


@dataclass(frozen=True)
class TestTimeSettings:
    """How a row is scored, as the options --scales, --max-side and --flip of `eval` say it."""

    __test__: ClassVar[bool] = False  # not a test, whatever pytest makes of the name

    scales: str = ""
    max_side: int | None = None
    flip: bool = False


@dataclass(frozen=True)
class RowEntry:
    """One row of a suite file: a named variant, overrides, and what was published for it.

    Rows of one `group` share a colour in plots. `shape` and `convention` are those of this row's
    cost, instead of the suite's, and so is `train` how it is trained: a recipe's name, or fields on
    top of the suite's. `test_time` scores it at several scales. A published value that is in other
    rows but not here is "not at hand", or listed in `not_published`. Without a `variant` a row has
    only published values: a system to compare with that is not built here.
    """

    name: str
    variant: str = ""
    label: str = ""
    group: str = ""
    shape: str = ""
    convention: CostConvention | None = None
    set: tuple[tuple[str, Any], ...] = ()
    published: tuple[tuple[str, Published], ...] = ()
    not_published: tuple[str, ...] = ()
    train: Recipe | None = None
    test_time: TestTimeSettings | None = None


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
    "mask_ap",
    "ar1000",
)


@dataclass(frozen=True)
class SuiteFile:
    """The grammar of a suite file.

    `proposals` is the RPN variant that a suite of Fast R-CNNs gets its fixed proposals from.
    `twin` makes every variant its small twin (`sepcbench.shrinking`), for the generated set.
    """

    title: str
    row: tuple[RowEntry, ...]
    about: str = ""
    measures: tuple[MeasureName, ...] = ("cost", "latency", "accuracy")
    cost: CostSettings = field(default_factory=CostSettings)
    latency: LatencySettings = field(default_factory=LatencySettings)
    shapes: ShapesSettings | None = None
    train: Recipe | None = None
    claim: tuple[Claim, ...] = ()
    proposals: str = ""
    twin: bool = False


@dataclass(frozen=True)
class SuiteRow:
    """A row, its variant resolved; `train` is None for the suite's, `test_time` for one pass."""

    name: str
    label: str
    spec: VariantSpec
    cost: CostSettings
    published: tuple[tuple[str, Published], ...] = ()
    not_published: tuple[str, ...] = ()
    group: str = ""
    train: Recipe | None = None
    test_time: TestTime | None = None


@dataclass(frozen=True)
class Suite:
    """A suite that has been read and checked.

    `references` are rows with published values only. `proposals` is the RPN that gives fixed
    proposals, where the suite names one.
    """

    name: str
    file: SuiteFile
    rows: tuple[SuiteRow, ...]
    references: tuple[RowEntry, ...] = ()
    proposals: VariantSpec | None = None

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
    except (ValueError, RecursionError) as error:  # not TOML, not text, or nested without end
        raise UsageError(f"{path}: not valid TOML: {error}") from None
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from None
    if not data.get("row"):
        near = [key for key in data if nearest(key, ["row"])]
        hint = f"; '{near[0]}' should be 'row'" if near and near[0] != "row" else ""
        raise UsageError(f"{path}: the suite has no rows; add a [[row]] table{hint}")
    recipes.resolve_suite(data, str(path))
    return compile_suite(path.stem, decode(SuiteFile, data, str(path)), str(path))


def compile_suite(name: str, file: SuiteFile, where: str) -> Suite:
    """Resolve the variants of a suite file and check names, shapes and formulas."""
    shapes = [file.cost.shape, file.latency.shape, *(row.shape for row in file.row if row.shape)]
    for text in [*shapes, *([file.shapes.size] if file.shapes else [])]:
        try:
            parse_shape(text)
        except UsageError as error:
            raise UsageError(f"{where}: {error}") from None
    rows: list[SuiteRow] = []
    references: list[RowEntry] = []
    for entry in file.row:
        place = f"{where}: row '{entry.name}'"
        if not _NAME.match(entry.name):
            raise UsageError(f"{place}: a name has letters, digits and _ only")
        if entry.name in [*(row.name for row in rows), *(other.name for other in references)]:
            raise UsageError(f"{place} is there twice; names must differ")
        _check_published(entry, place)
        if entry.variant:
            rows.append(_compile_row(entry, file, place))
        else:
            references.append(entry)
    if not rows:
        raise UsageError(f"{where}: no row has a variant: there is nothing to measure")
    for claim in file.claim:
        _check_claim(claim, [row.name for row in rows], f"{where}: claim '{claim.name}'")
    proposals = _resolve(file.proposals, (), file.twin, where) if file.proposals else None
    return Suite(name, file, tuple(rows), tuple(references), proposals)


def twin(suite: Suite) -> Suite:
    """The small twin of a suite, on the generated set: same rows, tiny variants, trained here.

    Published values are of other networks on other data and stay behind. The suite's own `shapes`
    and `train` are used if it has them. Of rows that differ in the backbone alone the first is
    kept. A suite of tiny variants is its own twin.
    """
    if suite.file.twin or all(isinstance(row.spec.backbone, TinySpec) for row in suite.rows):
        return suite
    shapes = suite.file.shapes or ShapesSettings()
    rows: dict[VariantSpec, RowEntry] = {}
    for entry in suite.file.row:
        if entry.variant:
            plain = RowEntry(entry.name, entry.variant, entry.label, entry.group, set=entry.set)
            small = _resolve(entry.variant, entry.set, True, suite.name)
            rows.setdefault(replace(small, name=""), plain)
    file = replace(
        suite.file,
        title=f"{suite.file.title}: small twin on the generated set",
        about=_ABOUT_TWIN,
        row=tuple(rows.values()),
        measures=("cost", "latency", "accuracy"),
        cost=replace(suite.file.cost, shape=shapes.size),
        latency=_twin_latency(suite.file.latency, shapes.size),
        shapes=shapes,
        train=(suite.file.train if suite.file.shapes else None) or _TWIN_RECIPE,
        claim=(),
        twin=True,
    )
    name = f"{suite.name}_twin"
    return compile_suite(name, file, name)


# The recipe of a twin, and how it is timed: enough to tell what is there, within minutes
_TWIN_RECIPE = Recipe(iterations=300)
_TWIN_PROTOCOL = Protocol(rounds=30, samples_per_round=3, max_seconds=240)
_ABOUT_TWIN = """
The same rows on the tiny backbone (32 channels, towers half as deep, 128-pixel images), trained
here on the generated set of coloured shapes. It shows that every row trains, is scored and timed;
its AP says nothing about COCO, and differences of a point or two are noise of one seed.
"""


def _twin_latency(settings: LatencySettings, shape: str) -> LatencySettings:
    return replace(
        settings,
        shape=shape,
        batch=1,
        protocol=_TWIN_PROTOCOL,
        cpu=settings.twin,
        twin=MoreTimings(),
    )


def _check_published(entry: RowEntry, where: str) -> None:
    for key in (*dict(entry.published), *entry.not_published):
        if key not in PUBLISHED:
            raise UsageError(f"{where}: {unknown('published value', key, PUBLISHED)}")
        if key in dict(entry.published) and key in entry.not_published:
            raise UsageError(f"{where}: '{key}' is published and in not_published")


def _compile_row(entry: RowEntry, file: SuiteFile, where: str) -> SuiteRow:
    spec = _resolve(entry.variant, entry.set, file.twin, where)
    return SuiteRow(
        entry.name,
        entry.label or entry.name,
        spec,
        CostSettings(entry.shape or file.cost.shape, entry.convention or file.cost.convention),
        entry.published,
        entry.not_published,
        entry.group,
        entry.train,
        _test_time(entry.test_time, spec, where),
    )


def _test_time(given: TestTimeSettings | None, spec: VariantSpec, where: str) -> TestTime | None:
    if given is None:
        return None
    try:
        scales = parse_scales(given.scales) if given.scales else ()
    except UsageError as error:
        raise UsageError(f"{where}: test_time: {error}") from None
    made = TestTime(scales, given.max_side, given.flip)
    if made.merges and not spec.head.one_stage:
        raise UsageError(f"{where}: test_time is for one-stage detectors, and {spec.name} is none")
    return made if str(made) else None


def _resolve(
    name: str, overrides: tuple[tuple[str, Any], ...], small: bool, where: str
) -> VariantSpec:
    try:
        return (variant_twin if small else variant)(name, dict(overrides))
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from None


def _check_claim(claim: Claim, rows: list[str], where: str) -> None:
    for node in ast.walk(parse_formula(claim.formula, where)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if node.value.id not in rows:
                raise UsageError(f"{where}: {unknown('row', node.value.id, rows)}")
            if node.attr not in CLAIM_QUANTITIES:
                raise UsageError(f"{where}: {unknown('quantity', node.attr, CLAIM_QUANTITIES)}")
