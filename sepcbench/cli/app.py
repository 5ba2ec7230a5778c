"""The application: every command registered, every error one line with its exit code."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from typing import Annotated, Any

import typer

from sepcbench import __version__
from sepcbench.errors import SepcbenchError

# command: (module under sepcbench.cli, its function)
COMMANDS: dict[str, tuple[str, str]] = {
    "list": ("list", "list_names"),
    "show": ("show", "show"),
    "flops": ("flops", "flops"),
    "latency": ("latency", "latency"),
    "invariance": ("invariance", "invariance"),
    "draw": ("draw", "draw"),
    "inspect": ("inspect", "inspect"),
    "eval": ("eval", "evaluate"),
    "score": ("score", "score"),
    "train": ("train", "train"),
    "run": ("run", "run"),
    "report": ("report", "report"),
    "compare": ("compare", "compare_results"),
    "doctor": ("doctor", "doctor"),
}
GROUPS: dict[str, tuple[str, str]] = {"data": ("data", "data_app")}

INTERRUPTED = 130

app = typer.Typer(
    name="sepcbench",
    help="What does this neck cost, and what does it buy? Benchmarks for detector necks.",
    invoke_without_command=True,
    pretty_exceptions_enable=False,
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"sepcbench {__version__}")
        raise typer.Exit()


@app.callback()
def _options(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        from sepcbench.cli.first_steps import first_steps

        typer.echo(first_steps())


def _register() -> None:
    for name, (module, function) in COMMANDS.items():
        app.command(name)(_load(module, function))
    for name, (module, attribute) in GROUPS.items():
        app.add_typer(_load(module, attribute), name=name)


def _load(module: str, attribute: str) -> Any:
    return getattr(importlib.import_module(f"sepcbench.cli.{module}"), attribute)


_register()


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit.

    0 all done, 1 some rows failed, 2 usage, 3 beyond a limit of `compare`, 130 Ctrl-C.
    """
    try:
        code = run(arguments)
    except Exception:
        if not _among_others():
            raise
        traceback.print_exc()
        code = 1
    if _among_others():
        # they may wait for this process for hours, and its end for them: it ends at once
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _among_others() -> bool:
    """Whether a command of several processes failed in this one; imports nothing."""
    processes = sys.modules.get("sepcbench.processes")
    return processes is not None and bool(processes.among_others())


def run(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    try:
        code = app(args=arguments, standalone_mode=False)
        if code == INTERRUPTED:  # some versions of Typer turn Ctrl-C into this code themselves
            raise KeyboardInterrupt
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except SepcbenchError as error:
        return _fail(str(error), error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        return _fail("interrupted", INTERRUPTED)
    except BrokenPipeError:
        sys.stderr.close()
        return 0
    except OSError as error:  # a disk, a folder or an output that does not take or give any more
        where = f"{error.filename}: " if error.filename else ""
        return _fail(f"{where}{error.strerror or error}", 2)
    except Exception as error:
        # Usage errors of the option parser (its class moved between Typer's versions).
        show = getattr(error, "format_message", None)
        if show is None:
            raise
        message = show()
        return _fail(message, 2) if message else 2


def _fail(message: str, code: int) -> int:
    print(f"sepcbench: {' '.join(message.split())}", file=sys.stderr)
    return code
