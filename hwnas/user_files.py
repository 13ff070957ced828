"""The folder of what users keep for all their runs: targets of their own, and tables of latencies."""

from __future__ import annotations

import os
from pathlib import Path


def user_folder() -> Path:
    """``$HWNAS_HOME``, or ``~/.hwnas``; it need not exist."""
    return Path(os.environ.get("HWNAS_HOME") or Path.home() / ".hwnas")
