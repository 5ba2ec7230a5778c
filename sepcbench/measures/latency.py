"""Latency: detectors timed against each other in one scope, with every engine, dtype and batch.

The statistics and the protocol know no detector: see `sampling` and `sepcbench.stats`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from math import inf
from typing import Any

import torch
from torch import nn

from sepcbench.engines import ENGINES, Engine, check_engines
from sepcbench.errors import UsageError, unknown
from sepcbench.measures.cases import DTYPES, Case, as_tuple, cases_of, groups
from sepcbench.measures.closer import Closer
from sepcbench.measures.environment import float32, measuring, on_device
from sepcbench.measures.monitor import Monitor, monitor_for
from sepcbench.measures.neighbours import Neighbours
from sepcbench.measures.preparation import Bench, Ready
from sepcbench.measures.sampling import Around, Progress, Sampled, reason, sample
from sepcbench.measures.scopes import SCOPES
from sepcbench.measures.summaries import Extras, Group, record
from sepcbench.measures.timers import FlushingTimer, Timer, l2_flush, timer_for
from sepcbench.records import NOT_LOOKED_AT, Failure, Latency, cut_short
from sepcbench.specs import Dtype, EngineName, Protocol, Scope

Records = dict[str, Latency | Failure]

KEEP_EVERY_S = 60.0  # what there is is given away so often while a group is timed


def measure(
    detectors: Mapping[str, nn.Module],
    *,
    scope: Scope,
    shape: tuple[int, int] | Sequence[tuple[int, int]],
    batch: int | Sequence[int] = 1,
    dtype: Dtype | Sequence[Dtype] = "fp32",
    device: str = "cpu",
    engine: EngineName | Sequence[EngineName] = "eager",
    protocol: Protocol,
    engines: Mapping[Any, Engine] = ENGINES,
    timer: Timer | None = None,
    monitor: Monitor | None = None,
    flush_l2: bool = False,
    split: bool = False,
    floor: bool | None = None,
    reference: str = "",
    progress: Progress | None = None,
    keep: Callable[[Records], object] | None = None,
) -> Records:
    """Time detectors against each other under every combination of conditions.

    What has one shape and batch is timed in turns. Ratios are to the first of those cases, or to
    that of row `reference`, and to eager code of the same row and dtype. The modules stay as they
    are: copies are moved, cast and rewritten.

    Args:
        detectors: row name to detector (`.features`, `.fuse`, `.head`, `.decode`, `.spec`).
        scope: what is timed; inputs of the scope are computed beforehand, on the device.
        shape: (H, W) of the images in pixels, or several; no padding.
        batch: images per call, or several.
        dtype: of weights and inputs, or several; "tf32" is float32 with TF32 in convs and matmuls.
        device: "cpu", "cuda" or "cuda:INDEX".
        engine: how the module runs, or several.
        protocol: rounds, warm-up, stopping and the seed of order and images.
        engines: from name to engine.
        timer: the clock; that of the device without one.
        monitor: what watches the device; that of the device without one.
        flush_l2: empty the GPU's L2 cache before every sample; for the scopes of necks.
        split: time the parts of every case too, in a pass of its own.
        floor: compare with the roofline of the device; by default on a GPU.
        reference: the row that ratios are taken to, by default the first.
        progress: told of (cases or rounds done, all of them, what is at work).
        keep: told of the records of each shape and batch as soon as they are there.

    Returns:
        Name of the case to record: the row's where there is one set of conditions, else
        "row@engine-dtype-batch". A case that cannot be built, whose outputs are wrong, or that
        crashes is a `Failure` with its reason, and the others go on.

    Raises:
        UsageError: an unknown name, an engine that cannot run here, or images that do not fit.
    """
    shapes: Any = (shape,) if isinstance(shape[0], int) else shape
    cases = cases_of(
        detectors, as_tuple(engine), as_tuple(dtype), as_tuple(batch), as_tuple(shapes)
    )
    for given in as_tuple(engine):
        if given not in engines:
            raise unknown("engine", given, engines)
    check_engines([engines[given] for given in as_tuple(engine)], device, as_tuple(dtype))
    setting = Setting(scope, device, protocol, engines, timer, monitor, flush_l2, split, floor)
    check(setting)
    found: Records = {}
    for group in groups(cases):
        records = measure_group(detectors, group, setting, reference, progress)
        if keep:
            keep(records)
        found |= records
        if cut_short(records.values()):
            break
    return found


@dataclass(frozen=True)
class Setting:
    """What all groups of one measurement share.

    `extra_s` are the seconds for parts and energy of cases of a group that are not under a suite's
    own conditions; those are always measured, and first. All else is as in `measure`.
    """

    scope: Scope
    device: str
    protocol: Protocol
    engines: Mapping[Any, Engine] = field(default_factory=lambda: ENGINES)
    timer: Timer | None = None
    monitor: Monitor | None = None
    flush_l2: bool = False
    split: bool = False
    floor: bool | None = None
    extra_s: float = inf

    @property
    def with_floor(self) -> bool:
        """Whether the roofline is measured: on a GPU, if nothing else is said."""
        return self.device.startswith("cuda") if self.floor is None else self.floor


def check(setting: Setting) -> None:
    """Check what would only fail later, case by case.

    Raises:
        UsageError: an unknown scope, or a cache that cannot be emptied.
    """
    if setting.scope not in SCOPES:
        raise unknown("scope", setting.scope, SCOPES)
    if setting.flush_l2 and not setting.scope.startswith("neck"):
        raise UsageError(f"the L2 cache is emptied for necks only; scope is '{setting.scope}'")
    if setting.flush_l2 and not setting.device.startswith("cuda"):
        raise UsageError(f"the L2 cache of a GPU is emptied; device is '{setting.device}'")


def measure_group(
    detectors: Mapping[str, nn.Module],
    cases: Sequence[Case],
    setting: Setting,
    reference: str = "",
    progress: Progress | None = None,
    keep_partly: Callable[[Records], object] | None = None,
) -> Records:
    """Time cases of one shape and batch in turns; see `measure`.

    Args:
        detectors: row name to detector.
        cases: what to time; the first one is the reference.
        setting: what all cases share.
        reference: a row whose first case is the reference instead.
        progress: told of (rounds done, rounds, label).
        keep_partly: about every minute told of the records of what there is up to then, as if it
            had been broken off.

    Raises:
        UsageError: images that do not fit.
    """
    timer, monitor = instruments(setting)
    around = flags_of(cases)
    with measuring(), on_device(setting.device):
        ready, failures = _prepare(detectors, cases, setting, progress)
        wanted = reference or cases[0].row
        first = next((case.name for case in cases if case.row == wanted), wanted)
        known = {
            name: Extras(engine_error=case.error, notes=case.notes) for name, case in ready.items()
        }
        report = Report(detectors, tuple(cases), setting, first, failures, known, timer.now())
        others = Neighbours()
        sampled = sample(
            {name: case.call for name, case in ready.items()},
            timer,
            setting.protocol,
            progress,
            around=around,
            monitor=monitor,
            after_round=lambda found: report.now_and_then(found, timer.now(), keep_partly),
        )
        busy = others.notes()
        closer = _closer(setting, timer, monitor, around)
        extras = look_closer(closer, ready, sampled, known, progress)
    del ready
    if setting.device.startswith("cuda"):
        torch.cuda.empty_cache()
    told = {name: replace(one, notes=(*one.notes, *busy)) for name, one in extras.items()}
    return report.records(sampled, told)


def instruments(setting: Setting) -> tuple[Timer, Monitor]:
    """The clock, and what watches the device."""
    device = setting.device
    timer, monitor = setting.timer or timer_for(device), setting.monitor or monitor_for(device)
    return FlushingTimer(timer, l2_flush(device)) if setting.flush_l2 else timer, monitor


def flags_of(cases: Sequence[Case]) -> Around:
    """What is entered while a case runs, by its name."""
    by_name = {case.name: case for case in cases}

    @contextmanager
    def around(name: str) -> Iterator[None]:
        with float32(by_name[name].tf32), torch.inference_mode():
            yield

    return around


def _closer(setting: Setting, timer: Timer, monitor: Monitor, around: Around) -> Closer:
    until = timer.now() + setting.extra_s
    scope, device, protocol = setting.scope, setting.device, setting.protocol
    return Closer(scope, device, protocol, timer, monitor, setting.split, around, until)


def look_closer(
    closer: Closer,
    ready: Mapping[str, Ready],
    sampled: Mapping[str, Sampled],
    known: Mapping[str, Extras],
    progress: Progress | None = None,
) -> dict[str, Extras]:
    """What is known of every case beside its samples; little after Ctrl-C, then or before.

    The suite's own conditions come first. Ctrl-C here leaves a note: the samples are complete.
    """
    extras = dict(known)
    done = [name for name, row in sampled.items() if row.failure is None]
    if any(sampled[name].stopped == "interrupted" for name in done):
        return extras
    left = sorted(done, key=lambda name: ready[name].case.kind != "latency")
    try:
        while left:
            if progress:
                progress(len(done) - len(left), len(done), f"a closer look at {left[0]}")
            extras[left[0]] = closer.look(ready[left[0]])
            del left[0]
    except KeyboardInterrupt:
        for name in left:
            extras[name] = replace(known[name], notes=(*known[name].notes, NOT_LOOKED_AT))
    return extras


@dataclass
class Report:
    """Makes the records of a group, at the end and on the way."""

    detectors: Mapping[str, nn.Module]
    cases: tuple[Case, ...]
    setting: Setting
    reference: str
    failures: Mapping[str, str]
    known: Mapping[str, Extras]
    kept_at: float

    def records(self, sampled: Mapping[str, Sampled], extras: Mapping[str, Extras]) -> Records:
        """Case to record."""
        failed = {name: row.failure for name, row in sampled.items() if row.failure}
        failures = {**self.failures, **failed}
        done = {name: row for name, row in sampled.items() if name not in failures}
        plan = self.setting
        group = Group(
            plan.scope, plan.device, plan.protocol, self.cases, done, self.reference, plan.flush_l2
        )
        variants = {row: variant_of(detector, row) for row, detector in self.detectors.items()}
        return {
            case.name: Failure(variants[case.row], case.kind, failures[case.name])
            if case.name in failures
            else record(case, variants[case.row], group, extras[case.name])
            for case in self.cases
        }

    def now_and_then(
        self,
        sampled: Mapping[str, Sampled],
        now: float,
        keep: Callable[[Records], object] | None,
    ) -> None:
        """Give what there is to `keep` if that was long ago."""
        if keep is None or now - self.kept_at < KEEP_EVERY_S:
            return
        self.kept_at = now
        so_far = {name: replace(row, stopped="interrupted") for name, row in sampled.items()}
        keep(self.records(so_far, self.known))


def _prepare(
    detectors: Mapping[str, nn.Module],
    cases: Sequence[Case],
    setting: Setting,
    progress: Progress | None = None,
) -> tuple[dict[str, Ready], dict[str, str]]:
    """Cases that can be called, and why the others cannot."""
    seed, floor = setting.protocol.seed, setting.with_floor
    bench = Bench(setting.scope, setting.device, seed, setting.engines, floor)
    ready: dict[str, Ready] = {}
    failures: dict[str, str] = {}
    for done, case in enumerate(cases):
        if progress:
            progress(done, len(cases), f"{setting.engines[case.engine].preparing} {case.name}")
        bench.noise(case, DTYPES[case.dtype])
        try:
            with float32(case.tf32):
                ready[case.name] = bench.ready(detectors[case.row], case)
        except Exception as error:
            clear = isinstance(error, UsageError)
            failures[case.name] = str(error) if clear else reason(error)
            if setting.device.startswith("cuda"):
                torch.cuda.empty_cache()
    return ready, failures


def variant_of(detector: Any, name: str) -> str:
    """The name of a row's variant; of a module without a spec, the row's."""
    spec = getattr(detector, "spec", None)
    return spec.name if spec is not None else name
