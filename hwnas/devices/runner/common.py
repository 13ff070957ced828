"""What all parts of the runner share."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import threading
import time
from abc import ABC, abstractmethod
from typing import Any, Dict, List, Optional, Sequence

Job = Dict[str, Any]
Layer = Dict[str, Any]

LAYER_RUNS = 10
"""Inferences that the times of layers are medians of."""


class Refused(Exception):
    """The device cannot do what is asked for; its text is for people."""


class Model(ABC):
    """A network that a runtime has loaded."""

    @abstractmethod
    def samples(self) -> List[float]:
        """Milliseconds of one inference, or of several in a row."""

    def warm_up(self) -> None:
        """Before any turn is timed."""
        return None

    def layers(self) -> List[Layer]:
        """``{"name", "kind", "ms"}`` of each layer in the order of computation; empty where nobody tells."""
        return []


class Runtime(ABC):
    """What loads networks; made of the job, and of a folder for what it has to write.

    Raises:
        Refused: if it is not there.
    """

    version: str

    @abstractmethod
    def load(self, path: str) -> Model:
        """Make a file ready to be run."""


class _Child:
    starting = threading.RLock()  # a signal may come while this thread starts one
    process: Optional[subprocess.Popen[str]] = None


def run(command: Sequence[str]) -> str:
    """What a command prints.

    Raises:
        Refused: if it fails.
    """
    with _Child.starting:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        _Child.process = process
    said, _ = process.communicate()
    if process.returncode:
        lines = [line for line in said.splitlines() if "[E]" in line] or said.splitlines() or ["it says nothing"]
        raise Refused(f"{os.path.basename(command[0])} failed: {lines[-1].strip()}")
    return said


def kill_child() -> None:
    """End the command that `run` waits for; it starts no other."""
    _Child.starting.acquire()
    if _Child.process is not None:
        _Child.process.kill()


class _Patience:
    until = math.inf


def expect_within(seconds: float) -> None:
    """What is done next ends within so many seconds, or else the device hangs."""
    _Patience.until = time.monotonic() + seconds


def hangs() -> bool:
    """Whether it has not."""
    return time.monotonic() > _Patience.until


_talking = threading.Lock()


def tell(**found: Any) -> None:
    """A line to whoever waits."""
    with _talking:
        sys.stdout.write(json.dumps(found) + "\n")
        sys.stdout.flush()
