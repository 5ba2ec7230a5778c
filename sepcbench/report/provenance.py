"""Where a cell of a suite's table comes from: its record, its conditions, its published source."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

from sepcbench.records import Environment, Latency, Origin, Results, Row
from sepcbench.report.columns import (
    COLUMNS,
    Column,
    measured_cell,
    published_cells,
)
from sepcbench.report.further import MORE, further, split_kind, under
from sepcbench.report.table import Table
from sepcbench.units import format_shape
from sepcbench.variants import VARIANTS

Facts = tuple[tuple[str, str], ...]

# Fields that are shown elsewhere or too long to read: raw samples, counts of single modules.
_LONG = (
    "samples_s",
    "wall_samples_s",
    "by_op",
    "by_module",
    "other_ops",
    "losses",
    "per_class",
    "draws",
    "states",
    "bands",
    "levels",
)
# Where the command writes, so that what it measures again does not replace what it is compared to.
AGAIN, AGAIN_WORK = "--results again", "--work again/work"


@dataclass(frozen=True)
class Source:
    """One record of a row as facts to read; without a `file` it is yet to be measured.

    Attributes:
        file: relative to the suite's results folder.
        command: measures it, again where it is there.
        samples_ms: every raw sample of a latency, in milliseconds, round by round.
    """

    kind: str
    file: str
    command: str
    created: str
    commit: str
    conditions: Facts
    environment: Facts
    samples_ms: tuple[float, ...] = ()


@dataclass(frozen=True)
class Provenance:
    """All there is to say about one cell; `failure` is the reason where the measure failed.

    `further` are cells of the same column under other conditions or of other seeds.
    """

    row: str
    label: str
    column: str
    header: str
    measured: str
    published: Facts
    source: Source | None
    failure: str = ""
    further: tuple[str, ...] = ()


def provenance(results: Results, row: Row, name: str) -> Provenance:
    """Collect what is known about the cell of a row in column `name`, which `find_cell` gave."""
    plain, more = split_kind(name)
    column = COLUMNS[plain]
    told = under(row, column.measure, more) if more else row
    reasons = [item.reason for item in told.failures if item.measure == column.measure]
    return Provenance(
        row=row.name,
        label=row.label,
        column=name,
        header=column.header,
        measured=measured_cell(column, told),
        # what papers print is not of further conditions or seeds
        published=() if more else published_facts(results, column, row),
        source=source(results, told, f"{column.measure}{MORE}{more}" if more else column.measure),
        failure=reasons[0] if reasons else "",
        further=tuple(f"{plain}{MORE}{o}" for o in further(row, column.measure) if o != more),
    )


def published_facts(results: Results, column: Column, row: Row) -> Facts:
    """The published value with its source, tolerance and difference; or why there is none.

    Nothing at all for a quantity that is published for no row of the suite.
    """
    if not any(column.published in dict(one.published) for one in results.rows):
        return ()
    text, difference = published_cells(column, row)
    value = dict(row.published).get(column.published or "")
    if value is None:
        return (("value", text),)
    facts = [("value", text), ("source", value.source)]
    if value.note:
        facts.append(("note", value.note))
    if value.tolerance is not None:
        facts.append(("tolerance of the claim", f"{value.tolerance:g}"))
    if difference:
        facts.append(("measured minus published", difference))
    return tuple(facts)


def source(results: Results, row: Row, kind: str) -> Source | None:
    """The record of one kind of a row; None for a row that has published values only.

    Of a further record, such as "latency@folded-fp32-1", the row is `further.under` it.
    """
    if not row.variant:
        return None
    plain, _ = split_kind(kind)
    record = getattr(row, plain, None)
    origin = next((o for o in results.origins if (o.row, o.kind) == (row.name, kind)), None)
    if record is None and origin is None:
        return Source(kind, "", command(results, row, kind, None), "", "", (), ())
    environment = origin.environment if origin else results.environment
    samples = record.samples_s if isinstance(record, Latency) else ()
    return Source(
        kind=kind,
        file=f"records/{row.name}.{kind}.json",
        command=command(results, row, kind, origin),
        created=origin.created if origin else results.created,
        commit=(environment.git_commit or "") if environment else "",
        conditions=facts_of(record) + _training_facts(results, row, plain),
        environment=_environment_facts(environment) if environment else (),
        samples_ms=tuple(float(f"{1e3 * s:.4g}") for one_round in samples for s in one_round),
    )


def _training_facts(results: Results, row: Row, kind: str) -> Facts:
    """How the scored checkpoint was trained, where this suite trained it."""
    if kind in ("cost", "latency") or row.training is None:
        return ()
    facts = tuple((f"training: {name}", value) for name, value in facts_of(row.training))
    if not _recipe_words(results, row):
        return facts
    return (("note", "trained with other options than the suite's: see training"), *facts)


# --- the command that measures a record again -------------------------------------------------


def command(results: Results, row: Row, kind: str, origin: Origin | None) -> str:
    """The command that measures a record, beside the old one where there is one.

    A scored checkpoint, its data and its proposals are the user's own: they stand as FILE and DIR.
    """
    kind, more = split_kind(kind)
    again = origin is not None or getattr(row, kind) is not None
    measure = kind if kind in ("cost", "latency") else "accuracy"
    words = ["sepcbench run", results.run_as or results.suite]
    words += [f"--only {name}" for name in _rows_of(results, row, measure)]
    words.append(f"--measures {measure}")
    if measure == "latency" and row.latency:
        words += [f"--device {row.latency.device}"] if row.latency.device != "cpu" else []
    elif measure == "accuracy" and origin and origin.environment.gpu:
        words.append("--device cuda")
    if measure == "accuracy":
        words += [f"--seeds {int(more) + 1}"] if more.isdigit() else []
        words += _data_words(results, row, again)
    return " ".join([*words, AGAIN] if again else words)


def _data_words(results: Results, row: Row, again: bool) -> list[str]:
    """What a score is of: the user's own set and checkpoint, or a training there or here."""
    work = [AGAIN_WORK] if again else []
    if results.generated_data:
        return [*_recipe_words(results, row), *work]
    if row.training is not None:
        return ["--train --data DIR", *_recipe_words(results, row), *work]
    needs = VARIANTS[row.variant].head.needs if row.variant in VARIANTS else ()
    proposals = ["--proposals FILE"] if "proposals" in needs else []
    return [f"--data DIR --checkpoint {row.name}=FILE", *proposals]


def _recipe_words(results: Results, row: Row) -> list[str]:
    """What the row was trained with instead of what the suite says."""
    recipe, done = dict(results.recipes).get(row.name), row.training
    if recipe is None or done is None:
        return []
    there = replace(recipe, batch=done.batch)
    words = []
    if recipe.batch != done.batch:
        words.append(f"batch={done.batch}")
    if there.for_images(done.images).iterations != done.iterations:
        words.append(f"iterations={done.iterations}")
    words += [
        f"{name}={getattr(done, name)}"
        for name in ("optimizer", "amp")
        if getattr(done, name) != getattr(recipe, name)
    ]
    if not math.isclose(there.peak_rate, done.learning_rate):
        rate = done.learning_rate * there.learning_rate / there.peak_rate
        words.append(f"learning_rate={rate:g}")
    if recipe.pretrained != done.pretrained:
        named = done.pretrained in ("", "imagenet")  # a file is the user's own
        words.append(f"pretrained={done.pretrained if named else 'FILE'}")
    return [f"--recipe {word}" for word in words]


def _rows_of(results: Results, row: Row, measure: str) -> list[str]:
    """The rows that a command must name; none where all of the suite are meant."""
    if measure != "latency" or row.latency is None:
        return [row.name]
    others = (split_kind(name)[0] for name in row.latency.interleaved_with)
    together = {row.name, *others}
    here = [one.name for one in results.rows if one.variant]
    return [] if together >= set(here) else [name for name in here if name in together]


# --- a record as facts ------------------------------------------------------------------------


def facts_of(record: Any) -> Facts:
    """The fields of a record as (name, value) text, with units; long and empty ones left out."""
    if record is None:
        return ()
    found = []
    for field in fields(record):
        value = getattr(record, field.name)
        if field.name not in _LONG and value not in (None, (), ""):
            found.append(_fact(field.name, value))
    return tuple(found)


def _fact(name: str, value: Any) -> tuple[str, str]:
    if name.endswith("_s"):
        numbers = value if isinstance(value, tuple) else (value,)
        return f"{_words(name[:-2])}, ms", " to ".join(f"{1e3 * n:.4g}" for n in numbers)
    return _words(name), _value(name, value)


def _words(name: str) -> str:
    return name.replace("_", " ")


def _value(name: str, value: Any) -> str:
    if name == "shape":
        return format_shape(value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}" if name != "seed" else str(value)
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, tuple):
        interval = all(isinstance(item, float) for item in value)
        return (" to " if interval else "; ").join(_item(item) for item in value)
    if is_dataclass(value):
        return "; ".join(f"{key} {text}" for key, text in facts_of(value))
    return str(value)


def _item(item: Any) -> str:
    if isinstance(item, tuple) and len(item) == 2:
        return f"{item[0]} {_value('', item[1])}"
    return _value("", item)


def _environment_facts(environment: Environment) -> Facts:
    """The machine, then every version and flag on its own line."""
    plain = [pair for pair in facts_of(environment) if pair[0] not in ("versions", "flags")]
    return (*plain, *environment.versions, *environment.flags)


# --- for a terminal ---------------------------------------------------------------------------


def provenance_tables(found: Provenance, folder: str = "") -> list[Table]:
    """The provenance of a cell as tables of two columns.

    Args:
        found: what `provenance` gave.
        folder: the suite's results folder, put before the record's file.
    """
    head = [("measured", found.measured or "not measured here")]
    if found.failure:
        head.append(("failed", found.failure))
    if found.source and found.source.file:
        file = f"{folder.rstrip('/')}/{found.source.file}" if folder else found.source.file
        head += [("record", file), ("created", found.source.created)]
    if found.source:
        head.append(("measure again" if found.source.file else "measure", found.source.command))
    if found.further:
        head.append(("see also", ", ".join(f"{found.row}.{one}" for one in found.further)))
    title = f"{found.row}.{found.column}: {found.label}, {found.header}"
    sections: list[tuple[str, Facts]] = [(title, tuple(head)), ("published", found.published)]
    if found.source:
        sections += [("conditions", found.source.conditions)]
        sections += [("environment", found.source.environment)]
    return [Table(name, ("fact", "value"), facts) for name, facts in sections if facts]
