"""Times the rows of a suite against each other, under its own conditions and the further ones."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING, Any

from sepcbench.errors import EngineError
from sepcbench.records import Failure, Latency, Record, cut_short, interrupted
from sepcbench.runner.state import Run, keep, reason, todo_rows
from sepcbench.specs import Dtype, EngineName
from sepcbench.specs.protocols import protocol_on
from sepcbench.store import MORE, Stored, key_of, now
from sepcbench.suites import LatencySettings, MoreTimings, SuiteRow

if TYPE_CHECKING:
    from sepcbench.measures.cases import Case

Conditions = tuple[EngineName, Dtype, int]

# For parts and energy of a set's cases beyond the suite's own conditions; at batch 1 only.
EXTRA_SECONDS_ON_GPU = 90.0


def run_latency(run: Run) -> None:
    """Time the chosen rows against each other and against the suite's first row.

    What has one batch (on a GPU: one batch and dtype) is timed in turns and stored at once; if one
    of its records is missing, all of them are timed again. After Ctrl-C the complete rounds are
    stored; if all rounds were there, they are not timed again.
    """
    settings, first = run.suite.file.latency, run.suite.rows[0]
    group = run.rows if first in run.rows else (first, *run.rows)
    plain = plain_settings(settings, run.options.device)
    own: Conditions = (settings.engine, settings.dtype, settings.batch)
    todo: list[Turns] = []
    for reference, conditions in turns(run, settings, own):
        keys = {one: _key(plain, own, one, run.options.device, group) for one in conditions}
        if any(
            todo_rows(run, kind_of(one, own), {row.name: key for row in run.rows})
            for one, key in keys.items()
        ):
            todo.append(Turns(reference, keys))
    if not todo:
        return
    built, failed = _build(group, plain.protocol.seed)
    for one in todo:
        _time(run, group, built, failed, plain, own, one)


@dataclass(frozen=True)
class Turns:
    """What is timed in turns: conditions to the keys of their records.

    `reference` are the first conditions of the same batch, under which the first row is timed too:
    ratios are to it.
    """

    reference: Conditions
    keys: dict[Conditions, str]


def plain_settings(settings: LatencySettings, device: str) -> LatencySettings:
    """The suite's own conditions without the further ones, and the protocol of the device."""
    none = MoreTimings()
    protocol = protocol_on(device, settings.protocol)
    return replace(settings, cpu=none, cuda=none, twin=none, protocol=protocol)


def turns(
    run: Run, settings: LatencySettings, own: Conditions
) -> list[tuple[Conditions, list[Conditions]]]:
    """The conditions to time on this device, those in turns together, the suite's own first.

    On a GPU those of one batch and dtype, so that not all networks of all dtypes lie on it at once;
    else those of one batch.

    Returns:
        The first conditions of the batch, and the conditions, per set of turns.
    """
    apart = dtypes_apart(run.options.device)
    found: dict[tuple[int, Dtype | None], list[Conditions]] = {}
    references: dict[int, Conditions] = {}
    for conditions in conditions_on(run, settings, own):
        _, dtype, batch = conditions
        references.setdefault(batch, conditions)
        found.setdefault((batch, dtype if apart else None), []).append(conditions)
    return [(references[batch], several) for (batch, _), several in found.items()]


def dtypes_apart(device: str) -> bool:
    """Whether dtypes are timed one after the other."""
    return device.startswith("cuda")


def conditions_on(run: Run, settings: LatencySettings, own: Conditions) -> list[Conditions]:
    """All conditions of this device, the suite's own first.

    An engine that cannot run here is left out, with a note.
    """
    from sepcbench.engines import ENGINES

    more = settings.cuda if run.options.device.startswith("cuda") else settings.cpu
    engines = more.engines or (settings.engine,)
    dtypes = more.dtypes or (settings.dtype,)
    counts = more.batches or (settings.batch,)
    found = [own]
    left_out: dict[str, str] = {}
    for batch, dtype, engine in product(counts, dtypes, engines):
        if (engine, dtype, batch) == own:
            continue
        try:
            ENGINES[engine].check(run.options.device, dtype)
        except EngineError as error:
            left_out.setdefault(engine, str(error))
            continue
        found.append((engine, dtype, batch))
    run.notes += [f"latency: left out: {line}" for line in left_out.values()]
    return found


def kind_of(conditions: Conditions, own: Conditions) -> str:
    """The kind of record: "latency", or with conditions that are not the suite's own."""
    words = "-".join(map(str, conditions))
    return "latency" if conditions == own else f"latency{MORE}{words}"


def _key(
    plain: LatencySettings,
    own: Conditions,
    conditions: Conditions,
    device: str,
    group: tuple[SuiteRow, ...],
) -> str:
    more = () if conditions == own else (list(conditions),)
    return key_of(plain, device, *more, *(row.spec for row in group))


def _time(
    run: Run,
    group: tuple[SuiteRow, ...],
    built: dict[str, Any],
    failed: dict[str, str],
    plain: LatencySettings,
    own: Conditions,
    turns: Turns,
) -> None:
    """Time in turns, and store all but a reference that is another set's."""
    from sepcbench.measures.latency import Setting, check, measure_group

    shape, keys = run.suite.latency_shape, turns.keys
    cases = [_case(row.name, conditions, own, shape) for conditions in keys for row in group]
    reference = _case(group[0].name, turns.reference, own, shape)
    timed = cases if turns.reference in keys else [reference, *cases]
    on_gpu = run.options.device.startswith("cuda")
    # every part takes seconds of its own: under the suite's own conditions always, else for so long
    extra_s = EXTRA_SECONDS_ON_GPU if on_gpu and reference.batch == 1 else 0.0
    setting = Setting(plain.scope, run.options.device, plain.protocol, split=True, extra_s=extra_s)
    check(setting)
    records: dict[str, Any] = {}
    chosen = [case for case in timed if case.row in built]
    if chosen:
        with run.bar(_title(run, keys)) as progress:
            found = measure_group(
                built,
                chosen,
                setting,
                group[0].name,
                progress,
                lambda part: _keep_part(run, cases, part),
            )
            records = dict(found)
    _store(run, records, cases, failed, own, keys)
    if cut_short(records.values()):
        raise KeyboardInterrupt


def _store(
    run: Run,
    records: Mapping[str, Any],
    cases: list[Case],
    failed: Mapping[str, str],
    own: Conditions,
    keys: Mapping[Conditions, str],
) -> None:
    """Store the records of a set of turns; those that were broken off are timed again."""
    broken_off = interrupted(records.values())
    by_case = {(case.row, case.kind): case.name for case in cases}
    for row in run.rows:
        for conditions, key in keys.items():
            kind = kind_of(conditions, own)
            record: Record = (
                Failure(row.spec.name, kind, failed[row.name])
                if row.name in failed
                else records[by_case[row.name, kind]]
            )
            keep(run, row, kind, "interrupted" if broken_off else key, record)


def _title(run: Run, several: Iterable[Conditions]) -> str:
    """Of the progress bar: what is timed in turns."""
    _, dtypes, (batch, *_) = zip(*several)
    return f"{run.suite.name}: latency, {', '.join(dict.fromkeys(dtypes))}, batch {batch}"


def _keep_part(run: Run, cases: list[Case], records: Mapping[str, Latency | Failure]) -> None:
    """Store the complete rounds: a rerun times them again, but a kill does not lose them."""
    rows = {row.name: row for row in run.rows}
    for case in cases:
        record = records.get(case.name)
        if case.row in rows and isinstance(record, Latency):
            spec = rows[case.row].spec
            run.store.write(
                Stored(case.row, case.kind, "interrupted", now(), record, spec, run.environment)
            )


def _case(row: str, conditions: Conditions, own: Conditions, shape: tuple[int, int]) -> Case:
    from sepcbench.measures.cases import Case

    kind = kind_of(conditions, own)
    name = row if conditions == own else f"{row}{MORE}{kind.partition(MORE)[2]}"
    return Case(name, row, *conditions, shape, kind)


def _build(rows: tuple[SuiteRow, ...], seed: int) -> tuple[dict[str, Any], dict[str, str]]:
    """Build the detectors of rows, and say why the others cannot be built."""
    from sepcbench import detectors

    built: dict[str, Any] = {}
    failed: dict[str, str] = {}
    for row in rows:
        try:
            built[row.name] = detectors.build(row.spec, seed=seed)
        except Exception as error:
            failed[row.name] = reason(error)
    return built, failed
