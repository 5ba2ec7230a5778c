"""The pages of docs/ are true: their code runs, and what they show is what it prints.

A page's blocks run in order in one empty folder. ```console: commands behind "$ ", and lines that
their output must have, in this order. ```python: one namespace per page; a ```text block behind it
holds lines of what it printed. A comment before a block says more:

<!-- file: NAME -->       the block is written to a file
<!-- numbers vary -->     lines are compared without their numbers
<!-- not run: REASON -->  nothing is done
"""

from __future__ import annotations

import contextlib
import io
import re
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from sepcbench.cli.app import run
from sepcbench.necks import NECKS

DOCS = Path(__file__).parents[2] / "docs"
PAGES = sorted(path.name for path in DOCS.glob("*.md"))
SLOW = ("getting-started.md", "how-we-count.md", "reproducing-on-8-gpus.md")

_BLOCK = re.compile(
    r"(?:^<!-- (?P<note>[^\n]*?) -->\n+)?^```(?P<kind>\w+)\n(?P<body>.*?)^```$", re.M | re.S
)
_NUMBER = re.compile(r"\d[\d.,]*")


@dataclass(frozen=True)
class Block:
    """One fenced block and the comment before it."""

    kind: str
    body: str
    note: str


def blocks(page: str) -> list[Block]:
    text = (DOCS / page).read_text(encoding="utf-8")
    return [Block(m["kind"], m["body"], m["note"] or "") for m in _BLOCK.finditer(text)]


def plain(line: str, vary: bool) -> str:
    """A line without its spacing, the rules of tables, and maybe numbers and marks of doubt."""
    line = " ".join(line.replace("─", "").split())
    return _NUMBER.sub("#", line).replace("# ~", "#").replace("] ~", "]") if vary else line


def check_shown(shown: str, printed: str, vary: bool) -> None:
    """Every line that is shown was printed, in this order."""
    rest = iter([plain(line, vary) for line in printed.splitlines()])
    for line in shown.splitlines():
        wanted = plain(line, vary)
        assert wanted in ("", "...") or wanted in rest, f"not printed: {line}\nin:\n{printed}"


def commands(body: str) -> Iterator[tuple[str, str]]:
    """Each command of a console block with the output shown for it."""
    for part in re.split(r"^\$ ", body, flags=re.M)[1:]:
        command, _, shown = part.partition("\n")
        yield command, shown


def run_console(block: Block) -> None:
    for command, shown in commands(block.body):
        program, *arguments = shlex.split(command)
        assert program == "sepcbench", command
        out = io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
            code = run(arguments)
        assert code in ((0, 2) if "sepcbench: " in shown else (0,)), out.getvalue()
        check_shown(shown, out.getvalue(), block.note == "numbers vary")


def run_page(page: str) -> None:
    space: dict[str, Any] = {"__name__": "__main__"}
    printed = ""
    for block in blocks(page):
        if block.note.startswith("not run: "):
            continue
        if block.note.startswith("file: "):
            Path(block.note.removeprefix("file: ")).write_text(block.body)
        elif block.kind == "console":
            run_console(block)
        elif block.kind == "python":
            out = io.StringIO()
            with contextlib.redirect_stdout(out):
                exec(compile(block.body, page, "exec", dont_inherit=True), space)
            printed = out.getvalue()
        elif block.kind == "text":
            check_shown(block.body, printed, block.note == "numbers vary")
        else:
            raise AssertionError(f"{page}: a block of {block.kind} is neither run nor a file")


@pytest.mark.parametrize(
    "page",
    [pytest.param(page, marks=[pytest.mark.slow] * (page in SLOW)) for page in PAGES],
)
def test_what_a_page_shows_happens(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [str(tmp_path), *sys.path])
    monkeypatch.delitem(sys.modules, "my_neck", raising=False)
    before = dict(NECKS)
    try:
        run_page(page)
    finally:
        NECKS.clear()
        NECKS.update(before)


def test_every_block_is_closed_and_understood() -> None:
    for page in PAGES:
        text = (DOCS / page).read_text(encoding="utf-8")
        assert text.count("\n```") == 2 * len(blocks(page)), page


def test_links_between_pages_lead_somewhere() -> None:
    for page in PAGES:
        text = (DOCS / page).read_text(encoding="utf-8")
        for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
            assert (DOCS / link).exists(), f"{page}: {link}"


def test_a_false_line_is_found() -> None:
    check_shown("a 1\n...\nb  2\n", "a 1\nx\nb 2\n", vary=False)
    check_shown("a 1.5 ~\n", "a 27.3\n", vary=True)
    with pytest.raises(AssertionError, match="not printed: a 1"):
        check_shown("a 1\n", "a 2\n", vary=False)
    with pytest.raises(AssertionError, match="not printed"):
        check_shown("b\na\n", "a\nb\n", vary=False)
