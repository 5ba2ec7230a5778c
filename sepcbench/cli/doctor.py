"""`sepcbench doctor`: what is wrong with this machine, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sepcbench.cli import options
from sepcbench.codec import encode
from sepcbench.doctor.finding import Finding
from sepcbench.report.table import Table

if TYPE_CHECKING:
    from sepcbench.measures.trust import Trial, Trust

_AGAIN = "let nothing else run, then try again; the timings of this machine are doubtful until then"


def doctor(
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda or cuda:INDEX: what will be measured on.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Check this data set too.")
    ] = None,
    trust: Annotated[
        bool, typer.Option("--trust", help="Try the timers too, and keep the figures.")
    ] = False,
    results: Annotated[Path, typer.Option(help="Where records will go.")] = Path("results"),
    work: Annotated[Path, typer.Option(help="Where data and checkpoints will go.")] = Path("runs"),
    fmt: options.Format = "table",
) -> None:
    """Check the installation, this machine, its GPU and a data set; say what to fix.

    Exit code 1 if there is a problem; a warning only makes results doubtful. Without a GPU the
    CPU is enough, unless `--device cuda` is asked for.

    Example: sepcbench doctor --data coco/
    Example: sepcbench doctor --device cpu --format json
    """
    options.check_format(fmt)
    if device is not None and device.partition(":")[0] not in ("cpu", "cuda"):
        options.check_device(device)
    from sepcbench.doctor import examine, guarded

    with options.progress_bar("checks") as progress:
        found = examine(device, data, (results, work), progress)
    if trust:
        with options.progress_bar("trials", announce=True) as progress:
            found += guarded("timers", lambda: _trials(device, results, progress))
    options.emit(fmt, [_table(found)], [encode(finding) for finding in found])
    if any(finding.status == "problem" for finding in found):
        raise typer.Exit(1)


def _table(found: list[Finding]) -> Table:
    rows = tuple((item.status, item.topic, item.text, item.advice) for item in found)
    counts = [
        f"{n} {name}{'s' if n > 1 else ''}"
        for name in ("problem", "warning")
        if (n := sum(item.status == name for item in found))
    ]
    note = ", ".join(counts) or "nothing to fix"
    return Table("doctor", ("status", "what", "found", "what to do"), rows, (note,))


# --- trials of the timers --------------------------------------------------------------------


def _trials(device: str | None, results: Path, progress: options.Progress) -> Iterator[Finding]:
    import torch

    from sepcbench.measures.trust import trust

    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    found = trust(options.check_device(device), progress)
    file = _keep(found, results)
    for trial in found.trials:
        status, advice = ("ok", "") if trial.passed else ("problem", _AGAIN)
        yield Finding(f"timer, {trial.name}", status, _said(trial), advice)  # type: ignore[arg-type]
    yield Finding("timer", "info", f"the figures are in {file}")


def _said(trial: Trial) -> str:
    if trial.interval is None:
        apart = 100 * (trial.found / trial.expected - 1) if trial.expected else float("nan")
        figures = f"{1e3 * trial.found:.4g} for {1e3 * trial.expected:.4g} ms, {apart:+.2f} %"
    else:
        low, high = trial.interval
        figures = f"ratio {trial.found:.4f}, 95 % interval {low:.4f} to {high:.4f}"
    return f"{trial.about}: {figures} (limit {100 * trial.limit:g} %)"


def _keep(found: Trust, results: Path) -> Path:
    """Write the figures beside the records of the suites."""
    from sepcbench.measures.environment import environment
    from sepcbench.store import now, write_json

    machine = environment(found.device)
    path = results / "trust" / machine.machine / "trust.json"
    body: dict[str, Any] = {"created": now(), "passed": found.passed, "trust": encode(found)}
    write_json(path, {"schema": 1, **body, "environment": encode(machine)})
    return path
