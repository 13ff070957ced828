"""The command line. Command modules import nothing heavy at import time, so that ``--help`` answers at once."""

from __future__ import annotations

import errno
import os
import sys
import traceback

import typer
from rich.text import Text

from hwnas import __version__
from hwnas.cli import check, compile, cost, evaluate, export, profile, run, search, table, targets, train, upscale
from hwnas.cli.console import stderr
from hwnas.cli.interrupts import noted_interrupts, was_interrupted
from hwnas.errors import HwnasError

INTERRUPTED = 130

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Add [bold]--debug[/bold] to any command for the traceback of an error.",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"hwnas {__version__}")
        raise typer.Exit


@app.callback()
def hwnas(
    version: bool = typer.Option(
        False, "--version", help="Print the version.", metavar="", callback=_print_version, is_eager=True
    ),
) -> None:
    """Find, train, quantise and export the best super-resolution network for a device and a budget."""


for module in (run, search, train, evaluate, export, check, compile, profile, cost, upscale):
    name = module.__name__.rsplit(".", 1)[1]
    app.command(name, no_args_is_help=name not in ("run", "search"))(getattr(module, name))


app.add_typer(table.table, name="table")
app.add_typer(targets.targets, name="targets")


def main(arguments: list[str] | None = None) -> int:
    """Run a command; returns the exit code: 0, 1 for a failure, 2 for wrong usage, 130 for Ctrl-C."""
    with noted_interrupts():
        return _run(arguments)


def _how_to_go_on(arguments: list[str]) -> str:
    if arguments[:1] in (["run"], ["search"], ["train"]):
        return "; if it had begun a run, the same command with --resume goes on with it"
    if arguments[:2] == ["table", "build"]:
        return "; what was measured is kept, up to nine networks at a time, and the same command goes on"
    return ""


def _run(arguments: list[str] | None) -> int:
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    # Threads that spin while they wait take the time of those they wait for wherever a core is shared: on a busy
    # two-core machine a training step took 1.1 s spinning and 0.1 s sleeping.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    caught: BaseException
    try:
        result = app(arguments, prog_name="hwnas", standalone_mode=False)
        if result == INTERRUPTED:  # what typer makes of Ctrl-C
            raise KeyboardInterrupt
        return result if isinstance(result, int) else 0
    except (KeyboardInterrupt, Exception) as error:
        if was_interrupted() or isinstance(error, KeyboardInterrupt | typer.Abort):
            caught, code, message = error, INTERRUPTED, f"interrupted{_how_to_go_on(arguments)}"
        elif isinstance(error, HwnasError):
            caught, code, message = error, error.exit_code, str(error)
        elif hasattr(error, "format_message") and hasattr(error, "exit_code"):  # wrong usage, found by typer itself
            caught, code, message = error, int(error.exit_code), error.format_message()
            if not message:  # no arguments at all: the help has been shown
                return code
            if context := getattr(error, "ctx", None):
                message = f"{message} ({context.command_path} --help shows what there is)"
        elif isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            caught, code, message = error, 1, f"cannot write the output: {error.strerror}; free some space"
        else:
            caught, code, message = error, 1, f"{type(error).__name__}: {error} (a bug; --debug shows where)"
    if debug:
        traceback.print_exception(caught)
    line = " ".join(message.split("\n"))
    stderr.print(Text.assemble(("error:", "red"), " ", line), soft_wrap=True)
    return code
