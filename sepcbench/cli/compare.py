"""`sepcbench compare`: two sets of results against each other, without torch."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from sepcbench.cli import options
from sepcbench.cli.report import find_results
from sepcbench.codec import encode
from sepcbench.errors import UsageError
from sepcbench.records import Results
from sepcbench.report.compare import Compared, Unlike, compare, unlike
from sepcbench.report.compare_table import (
    Broken,
    Limit,
    broken,
    compare_table,
    environment_changes,
    read_limit,
    timing_table,
)
from sepcbench.report.table import Table

BROKEN = 3
Found = list[tuple[Results, Path]]


def compare_results(
    first: Annotated[str, typer.Argument(metavar="FIRST", help="A suite, or a results folder.")],
    second: Annotated[str, typer.Argument(metavar="SECOND", help="What is compared to it.")],
    results: Annotated[Path, typer.Option(help="Where records of suites are.")] = Path("results"),
    fail_if: Annotated[
        list[str] | None,
        typer.Option(
            "--fail-if",
            metavar="LIMIT",
            help="Exit with 3 where a row is beyond this limit with its whole interval, such as "
            "'latency>1.03', 'latency_ratio>1.03', 'macs>1', 'params>1', or in points 'ap<-0.5'.",
        ),
    ] = None,
    anyway: Annotated[
        bool, typer.Option("--anyway", help="Compare what was measured under unlike conditions.")
    ] = False,
    fmt: options.Format = "table",
) -> None:
    """Compare two results: of two machines, commits or engines, or two suites with equal rows.

    Per row the ratio of latency, MACs and parameters, second over first, and how much higher AP
    is; with 95 % intervals, and "~" where no change is shown. Another shape, batch, dtype, scope,
    way of counting or data set is refused; another machine, device or engine is said, and refused
    with a limit on latency. Of two machines compare latency_ratio, how many times slower a row is
    than the first of its own set. Further engines, dtypes and batches have a table of their own.

    Example: sepcbench compare results/quick/intel-xeon-2-cores results/quick/nvidia-h200
    Example: sepcbench compare before/ results/ --fail-if 'latency>1.03' --fail-if 'ap<-0.5'
    """
    options.check_format(fmt)
    limits = [read_limit(text) for text in fail_if or ()]
    pairs = _pairs(find_results(first, results), find_results(second, results), first, second)
    tables, values, beyond = [], [], []
    for (one, one_at), (other, other_at) in pairs:
        differing = unlike(one, other)
        if not anyway:
            _check(differing, any(limit.quantity == "latency" for limit in limits))
        compared = compare(one, other)
        if not compared.rows:
            raise UsageError(f"'{one_at}' and '{other_at}' have no row in common that was measured")
        changed = environment_changes(one.environment, other.environment)
        tables += [compare_table(compared, differing, changed), *_more(compared)]
        found = _judge(compared, limits)
        beyond += found
        values.append(_value(compared, (one_at, other_at), differing, found))
    options.emit(fmt, tables, values)
    _say(beyond)
    if any(item.resolved for item in beyond):
        raise typer.Exit(BROKEN)


def _more(compared: Compared) -> list[Table]:
    timings = timing_table(compared)
    return [timings] if timings else []


def _pairs(
    ours: Found, theirs: Found, first: str, second: str
) -> list[tuple[tuple[Results, Path], tuple[Results, Path]]]:
    """What belongs together: the two if there is one each, else the same suite and machine.

    Raises:
        UsageError: nothing does.
    """
    if len(ours) == len(theirs) == 1:
        return [(ours[0], theirs[0])]
    for key in (lambda r: (r.suite, r.machine), lambda r: r.suite):
        by_key = [{key(r): (r, at) for r, at in found} for found in (ours, theirs)]
        unique = len(by_key[0]) == len(ours) and len(by_key[1]) == len(theirs)
        both = [(by_key[0][k], by_key[1][k]) for k in by_key[0] if k in by_key[1]]
        if unique and both:
            return both
    raise UsageError(
        f"'{first}' holds {len(ours)} results and '{second}' {len(theirs)}, and it is open which "
        "belong together; name one folder of each, such as results/quick/MACHINE"
    )


def _check(differing: Sequence[Unlike], gate: bool) -> None:
    """Refuse what does not compare; with a limit on latency also what ran elsewhere."""
    grave = [one for one in differing if one.work or (gate and one.what.startswith("latency"))]
    if grave:
        one, more = grave[0], len(grave) - 1
        raise UsageError(
            f"unlike conditions: {one.what} of row '{one.row}' is {one.second}, not {one.first}"
            f"{f', and {more} more differ' if more else ''}; measure both alike, or add --anyway"
        )


def _judge(compared: Compared, limits: Sequence[Limit]) -> list[Broken]:
    return [item for limit in limits for item in broken(compared, limit)]


def _say(beyond: Sequence[Broken]) -> None:
    """One line on stderr for every row beyond a limit, also where it is not sure."""
    for item in beyond:
        sure = "broken" if item.resolved else "not resolved, passes"
        print(f"sepcbench: {item.limit}: row '{item.row}' {item.change}: {sure}", file=sys.stderr)


def _value(
    compared: Compared,
    folders: tuple[Path, Path],
    differing: Sequence[Unlike],
    found: Sequence[Broken],
) -> dict[str, object]:
    return {
        "folders": [str(folder) for folder in folders],
        **encode(compared),
        "unlike": [encode(item) for item in differing],
        "broken": [encode(item) for item in found],
    }
