"""What decides how long an inference takes, as far as it can be read without asking for rights."""

from __future__ import annotations

import glob
import os
import platform
import shutil
from typing import Any, Dict, Optional, Set

from .common import Job, Refused, run

CPUINFO = "/proc/cpuinfo"
DECISIVE = {
    *("avx2", "fma", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16"),
    *("asimdhp", "asimddp", "i8mm", "bf16", "sve", "sve2", "sme"),
}
"""Instructions by which processors of one name differ several times in speed, as the kernel calls them."""

CPUS = "/sys/devices/system/cpu/cpu*/cpufreq/"
QUOTA = "/sys/fs/cgroup/cpu.max"
"""Microseconds of a container's processors, and of the time that they are of."""

POWER_MODE = "/var/lib/nvpmodel/status"
"""Of a Jetson, whose modes switch cores off and hold clocks down."""


def fingerprint(job: Job, version: str) -> Dict[str, Any]:
    """Of the hardware and its settings, and of the runtime; None for what cannot be read."""
    hardware = _content("/proc/device-tree/model") or _entry(CPUINFO, "model name")
    has = (_entry(CPUINFO, "flags") or _entry(CPUINFO, "Features") or "").split()
    kind = [_entry(CPUINFO, name) for name in ("cpu family", "model", "stepping", "CPU part")]
    uses_gpu = job["provider"] in ("cuda", "tensorrt") or job["runtime"] == "tensorrt"
    return {
        "hardware": hardware or platform.processor() or platform.machine(),
        "machine": platform.machine(),
        "processor": "/".join(filter(None, kind)) or None,
        "instructions": " ".join(sorted(DECISIVE.intersection(has))) or None,
        "cores": _cores(),
        "gpu": _gpu() if uses_gpu else None,
        "system": platform.system(),
        "runtime": job["runtime"],
        "runtime_version": version,
        "provider": job["provider"],
        "threads": job["threads"],
        "governor": "/".join(sorted(_of_all_cores("scaling_governor"))) or None,
        "max_khz": _highest("scaling_max_freq"),
        "power_mode": _content(POWER_MODE),
    }


def clock_khz() -> Optional[int]:
    """What the fastest core runs at now."""
    return _highest("scaling_cur_freq")


def resident_bytes(most: bool = False) -> Optional[int]:
    """Memory of this process, now or at most so far."""
    line = _entry("/proc/self/status", "VmHWM" if most else "VmRSS")
    return int(line.split()[0]) * 1024 if line else None


def _cores() -> Optional[float]:
    """Logical processors that this process may use, or as much time as so many have."""
    may_use = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    quota, _, period = (_content(QUOTA) or "").partition(" ")
    if may_use is None or not (quota.isdigit() and period.isdigit() and int(period)):
        return may_use
    return min(may_use, round(int(quota) / int(period), 2))


def _gpu() -> Optional[str]:
    if shutil.which("nvidia-smi") is None:
        return None
    try:
        asked = "--query-gpu=name,driver_version,clocks.max.graphics,power.limit"
        lines = run(["nvidia-smi", asked, "--format=csv,noheader"]).splitlines()
    except Refused:
        return None
    return lines[0] if lines else None


def _of_all_cores(name: str) -> Set[str]:
    return set(filter(None, (_content(path) for path in glob.glob(CPUS + name))))


def _highest(name: str) -> Optional[int]:
    return max((int(clock) for clock in _of_all_cores(name) if clock.isdigit()), default=None)


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
