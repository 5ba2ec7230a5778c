"""Timing a suite: its own conditions and the further ones, kept batch by batch, resumed."""

from contextlib import contextmanager
from dataclasses import replace

import pytest

from sepcbench import suites
from sepcbench.engines import ENGINES
from sepcbench.measures import latency as measuring
from sepcbench.measures.environment import environment
from sepcbench.records import Failure, Latency
from sepcbench.runner import latency as latency_module
from sepcbench.runner.latency import run_latency
from sepcbench.runner.state import Run, RunOptions
from sepcbench.specs import Protocol
from sepcbench.store import Store, key_of
from sepcbench.suites import LatencySettings, MoreTimings, RowEntry, SuiteFile, compile_suite

MORE = MoreTimings(engines=("eager", "folded"), dtypes=("fp32",), batches=(1, 2))
QUICK = Protocol(
    rounds=2, samples_per_round=1, warmup_iterations=1, warmup_seconds=0.0, settle_spread=0.0
)


@pytest.fixture
def groups(monkeypatch):
    """The names of the cases of every group that was timed."""
    seen, measure_group = [], measuring.measure_group

    def watched(detectors, cases, *args, **kwargs):
        seen.append([case.name for case in cases])
        return measure_group(detectors, cases, *args, **kwargs)

    monkeypatch.setattr(measuring, "measure_group", watched)
    return seen


@contextmanager
def silent(title):
    yield lambda done, total, label: None


def new_run(folder, cpu=MORE, **options):
    latency = LatencySettings(shape="64x64", protocol=QUICK, cpu=cpu)
    rows = tuple(RowEntry(name, f"retinanet_tiny_{name}") for name in ("fpn", "pconv"))
    file = SuiteFile("Title", rows, latency=latency)
    suite = compile_suite("mine", file, "mine")
    store = Store(folder)
    return Run(suite, RunOptions(**options), store, environment(), suite.rows, silent)


def kinds(run):
    return sorted(f"{item.row}.{item.kind}" for item in run.store.records())


def test_own_and_further_conditions_are_stored_as_records_of_their_own(tmp_path, groups):
    run = new_run(tmp_path)
    run_latency(run)
    assert groups == [
        ["fpn", "pconv", "fpn@folded-fp32-1", "pconv@folded-fp32-1"],
        ["fpn@eager-fp32-2", "pconv@eager-fp32-2", "fpn@folded-fp32-2", "pconv@folded-fp32-2"],
    ]
    more = ["latency", "latency@eager-fp32-2", "latency@folded-fp32-1", "latency@folded-fp32-2"]
    assert kinds(run) == sorted(f"{row}.{kind}" for row in ("fpn", "pconv") for kind in more)
    records = {(item.row, item.kind): item.record for item in run.store.records()}
    assert records["pconv", "latency"].ratio.to == "fpn"
    folded = records["pconv", "latency@folded-fp32-2"]
    assert (folded.engine, folded.batch, folded.shape) == ("folded", 2, (64, 64))
    assert folded.ratio.to == "fpn@eager-fp32-2"
    assert folded.eager_ratio.to == "pconv@eager-fp32-2"
    assert folded.engine_error < 1e-4


def test_a_rerun_times_only_the_batches_that_are_missing(tmp_path, groups):
    run_latency(new_run(tmp_path))
    groups.clear()
    run_latency(new_run(tmp_path))
    assert groups == []
    (tmp_path / "records" / "pconv.latency@folded-fp32-2.json").unlink()
    run_latency(new_run(tmp_path))
    assert [names[0] for names in groups] == ["fpn@eager-fp32-2"]
    groups.clear()
    run_latency(new_run(tmp_path, fresh=True))
    assert len(groups) == 2


def test_further_conditions_do_not_make_the_suites_own_record_stale(tmp_path, groups):
    run_latency(new_run(tmp_path, cpu=MoreTimings()))
    run_latency(new_run(tmp_path, cpu=MoreTimings(batches=(2,))))
    assert groups == [["fpn", "pconv"], ["fpn@eager-fp32-2", "pconv@eager-fp32-2"]]


def test_a_batch_is_stored_before_the_next_one_is_timed(tmp_path, monkeypatch):
    measure_group, calls = measuring.measure_group, []

    def killed(*args, **kwargs):
        calls.append(1)
        if len(calls) == 2:
            raise SystemExit(9)
        return measure_group(*args, **kwargs)

    monkeypatch.setattr(measuring, "measure_group", killed)
    run = new_run(tmp_path)
    with pytest.raises(SystemExit):
        run_latency(run)
    assert len(kinds(run)) == 4
    run_latency(run)
    assert (len(kinds(run)), len(calls)) == (8, 3)


def test_complete_rounds_are_stored_on_the_way_and_timed_again(tmp_path, monkeypatch, groups):
    monkeypatch.setattr(measuring, "KEEP_EVERY_S", 0.0)

    def killed(self, ready):
        raise SystemExit(9)

    run = new_run(tmp_path, cpu=MoreTimings())
    with monkeypatch.context() as patch:
        patch.setattr("sepcbench.measures.closer.Closer.look", killed)
        with pytest.raises(SystemExit):
            run_latency(run)
    parts = [item.record for item in run.store.records()]
    assert [(part.stopped, part.rounds) for part in parts] == [("interrupted", 1)] * 2
    run_latency(run)
    assert {item.record.stopped for item in run.store.records()} == {"rounds"}
    assert len(groups) == 2


def test_ctrl_c_after_the_timing_stores_what_is_complete_and_stops(tmp_path, monkeypatch, groups):
    def interrupted(self, ready):
        raise KeyboardInterrupt

    run = new_run(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr("sepcbench.measures.closer.Closer.look", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run_latency(run)
    records = [item.record for item in run.store.records()]
    assert [(one.stopped, one.batch) for one in records] == [("rounds", 1)] * 4
    assert {one.notes for one in records} == {("not looked at: interrupted",)}
    run_latency(new_run(tmp_path))
    assert [names[0] for names in groups] == ["fpn", "fpn@eager-fp32-2"]


def test_an_engine_that_cannot_run_here_is_left_out_with_a_note(tmp_path):
    run = new_run(tmp_path, cpu=MoreTimings(engines=("eager", "graphed", "fused_graphed")))
    run_latency(run)
    assert kinds(run) == ["fpn.latency", "pconv.latency"]
    assert len(run.notes) == 2
    assert "left out: engine 'graphed' needs a CUDA device" in run.notes[0]
    assert run.failures == []


def test_a_wrong_engine_is_a_failure_of_its_conditions(tmp_path, monkeypatch):
    def other(module, inputs):
        return lambda: [output.cls + 1 for output in module(*inputs)]

    monkeypatch.setitem(ENGINES, "folded", replace(ENGINES["folded"], run=other))
    run = new_run(tmp_path, cpu=MoreTimings(engines=("folded",)))
    run_latency(run)
    records = {(item.row, item.kind): item.record for item in run.store.records()}
    assert isinstance(records["fpn", "latency"], Latency)
    wrong = records["fpn", "latency@folded-fp32-1"]
    assert isinstance(wrong, Failure)
    assert wrong.measure == "latency@folded-fp32-1"
    assert "other outputs than eager" in wrong.reason
    assert len(run.failures) == 2


def test_a_first_row_that_cannot_be_built_leaves_the_others_without_ratio(tmp_path, monkeypatch):
    from sepcbench import detectors

    build = detectors.build

    def broken(spec, **kwargs):
        if "fpn" in spec.name:
            raise RuntimeError("no")
        return build(spec, **kwargs)

    monkeypatch.setattr(detectors, "build", broken)
    run = new_run(tmp_path, cpu=MoreTimings())
    run_latency(run)
    fpn, pconv = (item.record for item in run.store.records())
    assert fpn == Failure("retinanet_tiny_fpn", "latency", "RuntimeError: no")
    assert (pconv.ratio, pconv.reference) == (None, "fpn")


# --- on a GPU ------------------------------------------------------------------------------

GPU = MoreTimings(("eager", "folded"), ("bf16", "fp16"), (1, 2))


@pytest.fixture
def apart(monkeypatch):
    """Dtypes in turns of their own, as on a GPU."""
    monkeypatch.setattr(latency_module, "dtypes_apart", lambda device: True)


@pytest.mark.parametrize(("device", "apart"), [("cpu", False), ("cuda", True), ("cuda:1", True)])
def test_on_a_gpu_dtypes_are_timed_one_after_the_other(device, apart):
    assert latency_module.dtypes_apart(device) == apart


def test_every_batch_and_dtype_is_timed_with_the_reference_of_its_batch(tmp_path, groups, apart):
    run = new_run(tmp_path, cpu=GPU)
    run_latency(run)
    assert groups == [
        ["fpn", "pconv"],
        ["fpn", *(f"{row}@{e}-bf16-1" for e in GPU.engines for row in ("fpn", "pconv"))],
        ["fpn", *(f"{row}@{e}-fp16-1" for e in GPU.engines for row in ("fpn", "pconv"))],
        [f"{row}@{e}-bf16-2" for e in GPU.engines for row in ("fpn", "pconv")],
        [
            "fpn@eager-bf16-2",
            *(f"{row}@{e}-fp16-2" for e in GPU.engines for row in ("fpn", "pconv")),
        ],
    ]
    records = {(item.row, item.kind): item.record for item in run.store.records()}
    assert len(records) == 18
    ratios = {kind: record.ratio.to for (row, kind), record in records.items() if row == "pconv"}
    assert {to for kind, to in ratios.items() if not kind.endswith("-2")} == {"fpn"}
    assert {to for kind, to in ratios.items() if kind.endswith("-2")} == {"fpn@eager-bf16-2"}
    folded = records["pconv", "latency@folded-fp16-2"]
    assert folded.eager_ratio.to == "pconv@eager-fp16-2"
    assert set(folded.interleaved_with) == set(groups[-1]) - {"pconv@folded-fp16-2"}


def test_a_rerun_times_only_the_dtypes_that_are_missing(tmp_path, groups, apart):
    run_latency(new_run(tmp_path, cpu=GPU))
    own = (tmp_path / "records" / "fpn.latency.json").read_bytes()
    groups.clear()
    run_latency(new_run(tmp_path, cpu=GPU))
    assert groups == []
    (tmp_path / "records" / "pconv.latency@folded-fp16-1.json").unlink()
    run_latency(new_run(tmp_path, cpu=GPU))
    assert [names[:2] for names in groups] == [["fpn", "fpn@eager-fp16-1"]]
    assert (tmp_path / "records" / "fpn.latency.json").read_bytes() == own


def test_parts_and_energy_have_a_budget_beyond_the_suites_own_conditions(tmp_path, monkeypatch):
    run = new_run(tmp_path)
    run = replace(run, options=replace(run.options, device="cuda"))
    settings = replace(run.suite.file.latency, cuda=GPU)
    run = replace(run, suite=replace(run.suite, file=replace(run.suite.file, latency=settings)))
    seen = []

    def measured(built, cases, setting, *args):
        seen.append((cases[0].batch, setting.split, setting.extra_s, setting.protocol.name))
        return {case.name: Failure("", case.kind, "no GPU") for case in cases}

    monkeypatch.setattr(measuring, "measure_group", measured)
    run_latency(run)
    some = latency_module.EXTRA_SECONDS_ON_GPU
    assert seen == [(1, True, some, "thorough")] * 3 + [(2, True, 0.0, "thorough")] * 2


@pytest.mark.parametrize(
    ("name", "engines", "dtypes"),
    [
        ("components", ("eager", "graphed", "fused_graphed"), ("tf32", "fp16")),
        ("figure1", ("eager", "graphed", "fused_graphed"), ("tf32", "fp16")),
        ("single_stage", ("eager", "fused_graphed"), ("fp16",)),
    ],
)
def test_the_suites_of_the_paper_time_deployed_networks_on_a_gpu(name, engines, dtypes):
    settings = suites.load(name).file.latency
    assert settings.cuda == MoreTimings(engines, dtypes, (1, 8))
    assert settings.cpu == MoreTimings()


def test_a_twin_has_engines_of_its_own_on_a_cpu():
    settings = suites.load("components").file.latency
    twin = suites.twin(suites.load("components")).file.latency
    assert twin.cpu == settings.twin == MoreTimings(("folded", "channels_last", "fused"))
    assert (twin.twin, twin.cuda) == (MoreTimings(), settings.cuda)


def test_what_a_twin_is_timed_under_is_not_in_the_keys_of_a_suite():
    settings = suites.load("components").file.latency
    other = replace(settings, twin=MoreTimings())
    plain = latency_module.plain_settings
    assert key_of(plain(settings, "cpu")) == key_of(plain(other, "cpu"))
