"""What all parts of the runner share."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import threading
from typing import Any, Dict, List, Optional, Sequence, Tuple

Job = Dict[str, Any]
Layer = Dict[str, Any]

WARM_UP = 3
"""Inferences before any are timed."""

LAYER_RUNS = 10
"""Inferences that the times of layers are medians of."""


class Refused(Exception):
    """The device cannot do what is asked for; its text is for people."""


class Model:
    """A network that a runtime has loaded."""

    def samples(self) -> List[float]:
        """Milliseconds of one inference, or of several in a row."""
        raise NotImplementedError

    def layers(self) -> List[Layer]:
        """``{"name", "kind", "ms"}`` of each layer in the order of computation; empty where nobody tells."""
        return []


class Runtime:
    """What loads networks; made of the job, and of a folder for what it has to write.

    Raises:
        Refused: if it is not there.
    """

    version: str

    def load(self, path: str) -> Model:
        """Make a file ready to be run."""
        raise NotImplementedError


class _Child:
    process: Optional[subprocess.Popen[str]] = None


def run(command: Sequence[str]) -> str:
    """What a command prints.

    Raises:
        Refused: if it fails.
    """
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    _Child.process = process
    said, _ = process.communicate()
    _Child.process = None
    if process.returncode:
        lines = [line for line in said.splitlines() if "[E]" in line] or said.splitlines() or ["it says nothing"]
        raise Refused(f"{os.path.basename(command[0])} failed: {lines[-1].strip()}")
    return said


def kill_child() -> None:
    """End the command that `run` waits for."""
    if _Child.process is not None:
        _Child.process.kill()


_talking = threading.Lock()


def tell(**found: Any) -> None:
    """A line to whoever waits."""
    with _talking:
        sys.stdout.write(json.dumps(found) + "\n")
        sys.stdout.flush()


def quantile(values: Sequence[float], share: float) -> float:
    """Linear between the two nearest."""
    ordered = sorted(values)
    place = (len(ordered) - 1) * share
    low, high = ordered[math.floor(place)], ordered[math.ceil(place)]
    return low + (high - low) * (place - math.floor(place))


def median_interval(values: Sequence[float]) -> Optional[Tuple[float, float]]:
    """The 95 % confidence interval of the median, whatever the distribution; None of fewer than six values.

    The number of values below the median is binomial, so the interval is between two of the ordered values.
    """
    ordered = sorted(values)
    n = len(ordered)
    if n < 6:
        return None
    if n > 500:  # where the binomial is normal, and its smallest probabilities are too small for a float
        k = math.floor(n / 2 - 1.96 * math.sqrt(n) / 2)
        return ordered[k - 1], ordered[n - k]
    outside, below = 0.0, 0.5**n
    k = 0
    while outside + below <= 0.025:
        outside += below
        k += 1
        below *= (n - k + 1) / k
    return ordered[k - 1], ordered[n - k]


def medians(rows: Sequence[Tuple[str, str, float]]) -> List[Layer]:
    """Of (name, kind, milliseconds) one layer for each name, with the median of its last times."""
    times: Dict[str, List[float]] = {}
    kinds = {}
    for name, kind, ms in rows:
        times.setdefault(name, []).append(ms)
        kinds[name] = kind
    return [{"name": n, "kind": kinds[n], "ms": quantile(t[-LAYER_RUNS:], 0.5)} for n, t in times.items()]
