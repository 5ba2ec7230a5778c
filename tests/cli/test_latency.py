"""`sepcbench latency`."""

import json

import pytest
import torch

from sepcbench.cli.app import run
from sepcbench.cli.latency import latency_table, ratio_cell
from sepcbench.codec import decode
from sepcbench.measures.timers import FakeTimer
from sepcbench.records import Environment, Failure, Latency

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
    """Every call takes 10 ms."""

    def time(self, call):
        self.advance(0.01)
        return super().time(call)._replace(seconds=0.01)


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


@pytest.mark.parametrize("scope", ["neck", "neck+head", "forward", "end-to-end"])
@pytest.mark.usefixtures("no_timing")
def test_scopes(capsys, scope):
    code, found = as_json(capsys, TINY[0], *QUICK, "--scope", scope, "--batch", "2")
    assert code == 0
    assert (found[0]["scope"], found[0]["batch"]) == (scope, 2)
    assert (found[0]["detections"] is not None) == (scope == "end-to-end")


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

    def broken(self, images):
        if "sepc" in self.spec.name:
            raise RuntimeError("no kernel for this\nmore")
        return forward(self, images)

    monkeypatch.setattr(Detector, "forward", broken)
    code, found = as_json(capsys, *TINY, *QUICK)
    assert code == 1
    assert found[1]["reason"] == "RuntimeError: no kernel for this"
    assert found[0]["rounds"] == 3
    code, out, _ = latency(capsys, *TINY, *QUICK)
    assert code == 1
    assert "failed" in out
    assert "no kernel for this" in out


def test_table_of_failures_only():
    table = latency_table({"a": Failure("v", "latency", "it broke")})
    assert table.rows[0][:2] == ("a", "failed")
    assert table.notes == ("a failed: it broke",)


@pytest.mark.usefixtures("no_timing")
def test_ratio_cell_of_a_reference_is_empty(capsys):
    _, found = as_json(capsys, *TINY, *QUICK)
    for row in found:
        row.pop("environment")
    assert ratio_cell(decode(Latency, found[0])) == ""
    assert ratio_cell(decode(Latency, found[1])) == "1.000 [1.000, 1.000] ~"


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
