"""What decides how long an inference takes, as far as it can be read without asking for rights."""

from __future__ import annotations

import os
import platform
import shutil
from typing import Any, Dict, Optional

from .common import Job, Refused, run

_FREQUENCY = "/sys/devices/system/cpu/cpu0/cpufreq/"


def fingerprint(job: Job, version: str) -> Dict[str, Any]:
    """Of the hardware and its settings, and of the runtime; None for what cannot be read."""
    hardware = _content("/proc/device-tree/model") or _entry("/proc/cpuinfo", "model name")
    uses_gpu = job["provider"] in ("cuda", "tensorrt") or job["runtime"] == "tensorrt"
    return {
        "hardware": hardware or platform.processor() or platform.machine(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "gpu": _gpu() if uses_gpu else None,
        "system": platform.system(),
        "runtime": job["runtime"],
        "runtime_version": version,
        "provider": job["provider"],
        "threads": job["threads"],
        "governor": _content(_FREQUENCY + "scaling_governor"),
        "max_khz": _number(_content(_FREQUENCY + "cpuinfo_max_freq")),
    }


def clock_khz() -> Optional[int]:
    """What the first core runs at now."""
    return _number(_content(_FREQUENCY + "scaling_cur_freq"))


def resident_bytes(most: bool = False) -> Optional[int]:
    """Memory of this process, now or at most so far."""
    line = _entry("/proc/self/status", "VmHWM" if most else "VmRSS")
    return int(line.split()[0]) * 1024 if line else None


def _gpu() -> Optional[str]:
    if shutil.which("nvidia-smi") is None:
        return None
    try:
        lines = run(["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]).splitlines()
    except Refused:
        return None
    return lines[0] if lines else None


def _content(path: str) -> Optional[str]:
    try:
        with open(path) as file:
            return file.read().strip("\0\n ") or None
    except (OSError, UnicodeDecodeError):
        return None


def _entry(path: str, key: str) -> Optional[str]:
    """The value of the first ``key : value`` in a file of the kernel's."""
    for line in (_content(path) or "").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == key and value.strip():
            return value.strip()
    return None


def _number(text: Optional[str]) -> Optional[int]:
    return int(text) if text is not None and text.isdigit() else None
