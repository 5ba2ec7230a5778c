"""`sepcbench latency`."""

import json
from dataclasses import replace

import pytest
import torch
from unit.make import latency as made_latency

from sepcbench.cli.app import run
from sepcbench.cli.latency import Plan, _paper_changed
from sepcbench.cli.latency_table import latency_table, parts_tables, ratio_cell
from sepcbench.codec import decode
from sepcbench.engines import ENGINES
from sepcbench.errors import EngineError
from sepcbench.measures.timers import FakeTimer, Sample
from sepcbench.records import Environment, Failure, Floor, Latency, PartTime, Split
from sepcbench.specs import PROTOCOLS

TINY = ["retinanet_tiny_fpn", "retinanet_tiny_sepc"]
QUICK = ["--shape", "64x64", "--rounds", "3", "--samples", "2"]


@pytest.fixture(autouse=True)
def one_thread():
    """Small maps: several threads would only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Metronome(FakeTimer):
    """Every call takes 10 ms; it is really made only the first time."""

    def __init__(self):
        super().__init__()
        self.made = []

    def time(self, call):
        self.advance(0.01)
        if call not in self.made:
            self.made.append(call)
            call()
        return Sample(0.01)


@pytest.fixture
def no_timing(monkeypatch):
    monkeypatch.setattr("sepcbench.measures.latency.timer_for", lambda device: Metronome())


def latency(capsys, *arguments):
    code = run(["latency", *arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def as_json(capsys, *arguments):
    code, out, _ = latency(capsys, *arguments, "--format", "json")
    return code, json.loads(out)


def test_json_has_conditions_samples_and_environment(capsys):
    code, found = as_json(capsys, *TINY, *QUICK, "--max-seconds", "4", "--seed", "3")
    assert code == 0
    assert [row["variant"] for row in found] == TINY
    for row in found:
        environment = decode(Environment, row.pop("environment"))
        assert environment.cores >= 1
        record = decode(Latency, row)
        assert (record.shape, record.batch, record.dtype) == ((64, 64), 1, "fp32")
        assert (record.device, record.engine, record.scope) == ("cpu", "eager", "forward")
        assert record.seed == 3
        assert len(record.samples_s) == record.rounds <= 3
        assert 0 < record.p10_s <= record.median_s <= record.p90_s <= record.p99_s
        assert record.mad_s >= 0
    assert found[0]["ratio"] is None
    assert found[1]["ratio"]["to"] == TINY[0]


@pytest.mark.parametrize("scope", ["neck", "neck+head", "forward", "end-to-end", "pipeline"])
@pytest.mark.usefixtures("no_timing")
def test_scopes(capsys, scope):
    code, found = as_json(capsys, TINY[0], *QUICK, "--scope", scope, "--batch", "2")
    assert code == 0
    assert (found[0]["scope"], found[0]["batch"]) == (scope, 2)
    assert (found[0]["detections"] is not None) == (scope in ("end-to-end", "pipeline"))


@pytest.mark.usefixtures("no_timing")
def test_table(capsys):
    code, out, _ = latency(capsys, *TINY, TINY[0], *QUICK, "--format", "md")
    assert code == 0
    assert "median, ms (lower is better)" in out
    assert f"| {TINY[0]} | 10.000 | 10.000-10.000 | 10.000-10.000 |  | 3 |" in out
    assert f"| {TINY[0]}#2 | 10.000 |" in out
    assert "1.000 [1.000, 1.000] ~" in out
    assert "Absolute times are of this machine only" in out


@pytest.mark.usefixtures("no_timing")
def test_csv_is_one_table(capsys):
    _, out, _ = latency(capsys, *TINY, *QUICK, "--format", "csv")
    lines = out.strip().splitlines()
    assert [line.split(",")[0] for line in lines[1:]] == TINY


@pytest.mark.usefixtures("no_timing")
def test_a_failing_row_is_told_and_the_exit_code_is_1(capsys, monkeypatch):
    from sepcbench.detectors import Detector

    forward = Detector.forward

    def broken(self, images, scene=None):
        if "sepc" in self.spec.name:
            raise RuntimeError("no kernel for this\nmore")
        return forward(self, images, scene)

    monkeypatch.setattr(Detector, "forward", broken)
    code, found = as_json(capsys, *TINY, *QUICK)
    assert code == 1
    assert found[1]["reason"] == "RuntimeError: no kernel for this"
    assert found[0]["rounds"] == 3
    code, out, _ = latency(capsys, *TINY, *QUICK)
    assert code == 1
    assert "failed" in out
    assert "no kernel for this" in out


MANY = ["--engine", "eager,folded", "--dtype", "fp32,bf16", "--batch", "1,2"]


@pytest.mark.usefixtures("no_timing")
def test_engines_dtypes_and_batches_are_one_table(capsys):
    code, out, _ = latency(capsys, *TINY, *QUICK, *MANY, "--format", "md")
    assert code == 0
    assert "### Latency per call of forward, 64x64\n" in out
    assert "| variant | engine | dtype | batch | median, ms" in out
    assert "| times eager | error to eager | rounds |" in out
    assert out.count(f"| {TINY[1]} | folded | bf16 | 2 | 10.000 |") == 1
    assert out.count(f"\n| {TINY[0]} |") == out.count(f"\n| {TINY[1]} |") == 8
    assert "The first is that of the same batch and shape." in out


@pytest.mark.usefixtures("no_timing")
def test_json_of_several_conditions_names_the_cases(capsys):
    code, found = as_json(capsys, TINY[0], *QUICK, *MANY)
    assert code == 0
    assert len(found) == 8
    last = found[-1]
    assert last.pop("case") == f"{TINY[0]}@folded-bf16-2"
    last.pop("environment")
    record = decode(Latency, last)
    assert (record.engine, record.dtype, record.batch) == ("folded", "bf16", 2)
    assert record.ratio.to == f"{TINY[0]}@eager-fp32-2"
    assert record.eager_ratio.to == f"{TINY[0]}@eager-bf16-2"
    assert record.engine_error < 2e-2


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
@pytest.mark.parametrize("engines", ["tensorrt", "eager,graphed"])
@pytest.mark.parametrize("rows", [TINY[:1], ["--suite", "quick"]])
def test_an_engine_that_cannot_work_here_is_one_line_before_anything_is_built(
    capsys, monkeypatch, rows, engines
):
    monkeypatch.setattr(
        "sepcbench.cli.latency.build_row", lambda *args, **kwargs: pytest.fail("built")
    )
    code, out, err = latency(capsys, *rows, *QUICK, "--engine", engines)
    assert (code, out) == (2, "")
    name = engines.rpartition(",")[2]
    assert f"engine '{name}' needs a CUDA device, not 'cpu'; use --device cuda or --engine" in err
    assert err.count("\n") == 1


@pytest.mark.usefixtures("no_timing")
def test_an_engine_that_has_not_all_dtypes_is_a_row_with_its_line(capsys, monkeypatch):
    def no_halves(device, dtype):
        if dtype != "fp32":
            raise EngineError(f"it computes fp32, not {dtype}")

    monkeypatch.setitem(ENGINES, "folded", replace(ENGINES["folded"], check=no_halves))
    arguments = ["--engine", "eager,folded", "--dtype", "fp32,bf16", "--format", "md"]
    code, out, _ = latency(capsys, TINY[0], *QUICK, *arguments)
    assert code == 1
    assert f"{TINY[0]} (folded, bf16, batch 1) failed: it computes fp32, not bf16" in out
    assert f"| {TINY[0]} | folded | fp32 | 10.000 |" in out


@pytest.mark.usefixtures("no_timing")
def test_the_papers_protocol(capsys):
    arguments = [TINY[0], "--shape", "64x64", "--protocol", "paper", "--rounds", "1"]
    code, found = as_json(capsys, *arguments, "--samples", "1", "--batch", "2")
    assert code == 0
    assert (found[0]["scope"], found[0]["batch"], found[0]["protocol"]) == ("pipeline", 2, "paper")
    assert (found[0]["warmup_calls"], found[0]["mean_s"]) == (100, 0.01)
    assert found[0]["candidates"] > 0


def test_a_changed_protocol_of_the_paper_is_said():
    paper = PROTOCOLS["paper"]
    plan = Plan("pipeline", ((64, 64),), (8,), ("fp32",), ("eager",), paper)
    assert _paper_changed(plan) == []
    assert _paper_changed(replace(plan, protocol=PROTOCOLS["standard"], scope="neck")) == []
    changed = replace(plan, protocol=paper.changed(rounds=1), batches=(2,))
    assert _paper_changed(changed) == [
        "The paper's protocol was changed: rounds 1, not 20; batch 2, not 8."
    ]


def test_the_rates_behind_a_roofline_are_below_the_table():
    record = replace(made_latency("v"), floor=Floor(10**9, 10**6, 1e11, 2e9, 0.05))
    table = latency_table({"a": record}, ["more"])
    assert "more" in table.notes
    notes = " ".join(table.notes)
    assert "fp32 1e+11 MAC/s and 2e+09 bytes/s; floor, row by row, ms: 50.000." in notes


@pytest.mark.usefixtures("no_timing")
def test_several_shapes_and_the_parts(capsys):
    shapes = ["--shape", "64x64,64x128", "--rounds", "2", "--samples", "1"]
    code, out, _ = latency(capsys, TINY[1], *shapes, "--split", "--format", "md")
    assert code == 0
    assert f"| {TINY[1]} | 64x128 | 10.000 |" in out
    assert "### Latency per call of forward, batch 1, fp32\n" in out
    assert f"| {TINY[1]} | 64x64 | 10.000 | 10.000 | 10.000 | 10.000 | 4.00 |" in out
    assert out.count("| 10.000 | 10.000 | 10.000 | 10.000 | 4.00 |") == 2


@pytest.mark.usefixtures("no_timing")
def test_ctrl_c_in_the_second_batch_keeps_the_first(capsys, monkeypatch):
    from sepcbench.measures import latency as module

    measure_group, calls = module.measure_group, []

    def broken_off(*args, **kwargs):
        calls.append(args)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return measure_group(*args, **kwargs)

    monkeypatch.setattr(module, "measure_group", broken_off)
    code, out, _ = latency(capsys, TINY[0], *QUICK, "--batch", "1,2", "--format", "json")
    assert code == 130
    assert [row["batch"] for row in json.loads(out)] == [1]


def test_parts_that_do_not_add_up_are_named_as_in_reports():
    parts = (PartTime("fpn", 0.03, (0.02, 0.04)), PartTime("head", 0.02, (0.01, 0.03)))
    whole = replace(made_latency("v"), split=Split(parts, 0.05, 0.05))
    odd = replace(whole, engine="folded", split=Split(parts, 0.2, 0.05))
    (table,) = parts_tables({"a": whole})
    assert len(table.notes) == 1
    (table,) = parts_tables({"a": whole, "b": odd})
    assert table.notes[1] == (
        "More than 15 % off the whole, so not to be trusted: v (folded, fp32, batch 1); "
        "time them again on a quiet machine."
    )


def test_cases_that_failed_are_named_in_words():
    names = ["a@folded-fp16-8", "a@folded-fp16-8-64x128", "a"]
    table = latency_table({name: Failure("v", "latency", "it broke") for name in names})
    assert table.notes == (
        "a (folded, fp16, batch 8) failed: it broke",
        "a (folded, fp16, batch 8, 64x128) failed: it broke",
        "a failed: it broke",
    )


def test_table_of_failures_only():
    table = latency_table({"a": Failure("v", "latency", "it broke")})
    assert table.rows[0][:2] == ("a", "failed")
    assert table.notes == ("a failed: it broke",)


@pytest.mark.usefixtures("no_timing")
def test_ratio_cell_of_a_reference_is_empty(capsys):
    _, found = as_json(capsys, *TINY, *QUICK)
    for row in found:
        row.pop("environment")
    assert ratio_cell(decode(Latency, found[0]).ratio) == ""
    assert ratio_cell(decode(Latency, found[1]).ratio) == "1.000 [1.000, 1.000] ~"


def test_ctrl_c_is_130(capsys, monkeypatch):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("sepcbench.measures.latency.sample", interrupted)
    code, out, err = latency(capsys, TINY[0], *QUICK)
    assert (code, out) == (130, "")
    assert len(err.strip().splitlines()) == 1


NO_GPU = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ([], "no variant given"),
        (["retinanet_tiny_spec"], "did you mean 'retinanet_tiny_sepc'"),
        ([TINY[0], "--dtype", "fp61"], "did you mean 'fp16'"),
        ([TINY[0], "--scope", "heads"], "unknown scope 'heads'"),
        ([TINY[0], "--engine", "eagle"], "unknown engine 'eagle'"),
        ([TINY[0], "--shape", "64"], "is not HEIGHTxWIDTH"),
        ([TINY[0], "--device", "gpu"], "unknown device 'gpu'"),
        pytest.param([TINY[0], "--device", "cuda"], "no CUDA device", marks=NO_GPU),
        ([TINY[0], "--rounds", "0"], "--rounds"),
        ([TINY[0], "--batch", "none"], "--batch"),
        ([TINY[0], "--batch", "1,0"], "--batch '0' is no number of images"),
        ([TINY[0], "--engine", "eager,fold"], "did you mean 'folded'"),
        ([TINY[0], "--protocol", "papers"], "did you mean 'paper'"),
        ([TINY[0], "--flush-l2"], "L2 cache is emptied for necks only"),
        ([TINY[0], "--flush-l2", "--scope", "neck"], "device is 'cpu'"),
        ([TINY[0], "--max-seconds", "0"], "max_seconds is above 0"),
        ([TINY[0], "--batch", "1000000000000"], "do not fit on 'cpu'"),
        (["--suite", "no/such.toml"], "no such file"),
    ],
)
def test_bad_input_is_one_line(capsys, arguments, line):
    code, out, err = latency(capsys, *arguments)
    assert (code, out) == (2, "")
    assert line in err
    assert len(err.strip().splitlines()) == 1
    assert "Traceback" not in err


@pytest.mark.usefixtures("no_timing")
def test_the_floor_is_a_column_where_it_is_asked_for(capsys):
    arguments = [TINY[0], *QUICK, "--roofline", "--format", "md"]
    code, out, _ = latency(capsys, *arguments)
    assert code == 0
    assert "| times its roofline |" in out
    code, found = as_json(capsys, TINY[0], *QUICK)
    assert (code, found[0]["floor"]) == (0, None)


@pytest.mark.usefixtures("no_timing")
def test_parts_are_a_table_of_their_own(capsys):
    arguments = [*TINY, *QUICK, "--engine", "eager,folded", "--split", "--format", "md"]
    code, out, _ = latency(capsys, *arguments)
    assert code == 0
    assert "| variant | engine | backbone, ms | fpn, ms | sepc, ms | head, ms | sum over" in out
    assert f"| {TINY[0]} | folded | 10.000 | 10.000 |  | 10.000 | 3.00 |" in out
    assert f"| {TINY[1]} | eager | 10.000 | 10.000 | 10.000 | 10.000 | 4.00 |" in out


@pytest.mark.usefixtures("no_timing")
def test_engines_can_be_compared_on_a_terminal_of_100_columns(capsys, monkeypatch):
    """Rows of one variant below each other, not one block per row."""
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr("os.getloadavg", lambda: (0.0, 0.0, 0.0))  # a busy machine adds a note
    engines = "eager,folded,channels_last,fused"
    code, out, _ = latency(capsys, *TINY, *QUICK, "--engine", engines)
    assert code == 0
    assert max(map(len, out.split("Device:")[0].splitlines())) <= 100
    assert len(out.splitlines()) < 45


@pytest.mark.usefixtures("no_timing")
def test_what_did_not_work_is_told_below_the_table(capsys, monkeypatch):
    def broken(*args):
        raise RuntimeError("profiler is off")

    monkeypatch.setattr("sepcbench.measures.closer.launches", broken)
    code, out, _ = latency(capsys, *TINY, *QUICK)
    assert code == 0
    told = (
        f"No launches: RuntimeError: profiler is off: {TINY[0]} (eager, fp32, batch 1), {TINY[1]}"
    )
    assert out.count(told) == 1


def test_doubts_on_a_gpu_are_launches_and_too_few_rounds():
    """What the profiler says decides; a long wall time alone is no sign of gaps."""
    idle = replace(made_latency("v", "cuda"), busy_share=0.5, rounds=10)
    busy = replace(made_latency("w", "cuda"), busy_share=0.9, rounds=50, wall_median_s=9.0)
    notes = " ".join(latency_table({"a": idle, "b": busy}).notes)
    assert "Limited by launches (GPU busy less than 80% of the time): v (eager" in notes
    assert "Fewer than 50 rounds: v (eager" in notes
    assert "w (eager" not in notes
