"""Commands of hwnas, as the scripts run them."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hwnas.errors import HwnasError


def guarded(work: Callable[[], None]) -> None:
    """A script: its errors are one line, and when it is ended, so is the command that it waits for."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        work()
    except HwnasError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("interrupted; the same command goes on", file=sys.stderr)
        sys.exit(130)


def run_until(words: Sequence[str], end: float) -> bool:
    """Whether a command is done before the time is up; if not it is interrupted, and goes on another time.

    Args:
        words: of hwnas.
        end: by the monotonic clock.

    Raises:
        HwnasError: if it fails.
    """
    if end <= time.monotonic():
        return False
    command = [sys.executable, "-m", "hwnas", *words]
    # In a group of its own: a terminal's Ctrl-C is for this script, which passes it on once.
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, process_group=0)
    try:
        _, said = process.communicate(timeout=end - time.monotonic())
    except (subprocess.TimeoutExpired, KeyboardInterrupt) as stopped:
        process.send_signal(signal.SIGINT)
        process.communicate()
        if isinstance(stopped, KeyboardInterrupt):
            raise
        return False
    if process.returncode:
        raise HwnasError(f"hwnas {' '.join(words)} failed: {_last_line(said)}")
    return True


def _last_line(said: str) -> str:
    return (said.strip() or "it did not say why").splitlines()[-1].removeprefix("error: ")


def answer(*words: str | Path) -> dict[str, Any]:
    """What a command of hwnas answers with --json.

    Raises:
        HwnasError: if it fails.
    """
    command = [sys.executable, "-m", "hwnas", *map(str, words), "--json"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise HwnasError(f"hwnas {' '.join(command[3:])} failed: {_last_line(done.stderr)}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found
