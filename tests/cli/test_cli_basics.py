"""What the command line answers before any work is done: help, version, and at once."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import hwnas as package
from hwnas.devices.target import target_names
from hwnas.searches import SEARCHES

COMMANDS = ("run", "search", "train", "evaluate", "export", "cost", "upscale")
SCRIPT = Path(sys.executable).with_name("hwnas")


def test_help_answers_within_half_a_second() -> None:
    times = []
    for _ in range(5):
        begun = _children_seconds()
        subprocess.run([SCRIPT, "--help"], check=True, capture_output=True)
        times.append(_children_seconds() - begun)
    assert min(times) < 0.5


def _children_seconds() -> float:
    """Processor time of finished children: what a command takes where it need not wait for others."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def test_the_command_line_is_imported_without_torch_and_without_numpy() -> None:
    code = "import sys, hwnas.cli.main; print(sorted({'torch', 'numpy', 'pydantic', 'yaml', 'PIL'} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert found.stdout.strip() == "[]"


def test_the_module_runs_and_knows_its_version() -> None:
    command = [sys.executable, "-m", "hwnas", "--version"]
    found = subprocess.run(command, check=True, capture_output=True, text=True)
    assert found.stdout == f"hwnas {package.__version__}\n"
    assert found.stderr == ""


def test_the_help_names_every_command(hwnas: Any) -> None:
    answer = hwnas("--help")
    assert answer.code == 0
    assert all(f" {command} " in answer.out for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_every_command_shows_an_example(hwnas: Any, command: str) -> None:
    answer = hwnas(command, "--help")
    assert answer.code == 0
    assert "Examples:" in answer.out
    assert f"hwnas {command} " in answer.out.partition("Examples:")[2]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_shown_in_an_example_exists(hwnas: Any, command: str) -> None:
    text = hwnas(command, "--help").out
    examples, _, options = text.partition("Options")
    commands = " ".join(line for line in examples.splitlines() if line.strip().startswith("hwnas "))
    shown = {word for word in commands.split() if word.startswith("-")}
    known = {word.strip(",") for word in options.split() if word.startswith("-")}
    assert shown <= known


def test_the_help_says_which_targets_and_searches_there_are(hwnas: Any) -> None:
    text = " ".join(hwnas("search", "--help").out.replace("│", " ").split())
    assert f"Device the network is for: {', '.join(target_names())}, or yours." in text
    assert f"Search: {', '.join(sorted(SEARCHES))}." in text


def test_a_switch_is_not_shown_as_if_it_took_a_value(hwnas: Any) -> None:
    lines = [line for command in COMMANDS for line in hwnas(command, "--help").out.splitlines()]
    # The switch --help itself is typer's.
    assert not [line for line in lines if "<bool>" in line and "--help" not in line]


def test_without_a_command_the_help_is_shown(hwnas: Any) -> None:
    answer = hwnas()
    assert "Usage:" in answer.out + answer.err
    assert "Traceback" not in answer.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["serch"], "No such command 'serch'. Did you mean 'search'? (hwnas --help"),
        (["search", "--budgt", "5GBitOps"], "--budget"),
        (["search", "--scale", "x"], "Invalid value for '--scale'"),
        (["cost", "espcn", "srresnet"], "srresnet"),
    ],
)
def test_wrong_usage_is_one_line_that_says_where_help_is(hwnas: Any, arguments: list[str], message: str) -> None:
    answer = hwnas(*arguments)
    assert answer.code == 2 and answer.out == ""
    (line,) = answer.err.splitlines()
    assert line.startswith("error: ") and message in line and line.endswith("--help shows what there is)")
