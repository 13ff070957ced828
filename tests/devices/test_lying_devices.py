"""Devices that say what cannot be, or never stop saying it."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import pytest

from hwnas.devices import Device, Timing, connection, open_device, runner_device
from hwnas.devices.target import load_target
from hwnas.errors import HwnasError
from hwnas.progress import Silent


def test_a_line_without_end_is_not_waited_for(espcn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "LONGEST_LINE", 1000)
    device = _liar([{"kind": "model", "rounds_ms": [[1.0] * 1000], "layers": []}], tmp_path)
    with pytest.raises(HwnasError, match="says more in one line than a measurement has"):
        device.measure([espcn], Timing((24, 32), rounds=1), Silent())


def test_a_device_that_never_says_what_it_is_cannot_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner_device, "MISSING_SECONDS", 0.0)
    device = _liar([{"kind": "device"}, {"kind": "alive"}, {"kind": "end"}], tmp_path)
    assert "has not said what it is" in str(device.missing())


NONSENSE: list[object] = [
    {"kind": "device", "fingerprint": None},
    {"kind": "device", "fingerprint": {"hardware": "\x1b[2J"}},
    {"kind": "model", "rounds_ms": [[math.nan]], "layers": []},
    {"kind": "model", "rounds_ms": [[-1.0]], "layers": []},
    {"kind": "model", "rounds_ms": [[]], "layers": []},
    {"kind": "model", "rounds_ms": "many", "layers": []},
    {"kind": "model", "rounds_ms": [], "layers": []},
    {"kind": "model", "rounds_ms": [[1e-320]], "layers": []},
    {"kind": "model", "rounds_ms": [[1.0]], "layers": [], "peak_bytes": 10**400},
    {"kind": "model", "rounds_ms": [[1.0]], "layers": [], "clock_khz": 10**400},
    {"kind": "model", "rounds_ms": [[1.0]], "layers": [{"name": "\x1b]0;owned\x07", "ms": 1.0}]},
    {"kind": "model", "rounds_ms": [[1.0]], "layers": [], "peak_bytes": "much"},
    {"kind": "model", "rounds_ms": [[1.0]], "layers": [], "clock_khz": -1},
    {"kind": "error", "message": "\x1b[31mred\nsecond line"},
    {"kind": "error", "message": {"not": "text"}},
    {"kind": ["model"]},
    "model",
]


def _liar(said: list[object], folder: Path) -> Device:
    """This machine with an interpreter that tells this, whatever it is asked; and before it what it is, if need be."""
    mark: dict[str, object] = dict.fromkeys(("hardware", "machine", "system", "runtime", "runtime_version"), "x")
    device = {"kind": "device", "fingerprint": mark | {"provider": "cpu", "threads": 1}}
    tells_itself = isinstance(said[0], dict) and said[0].get("kind") == "device"
    lines = "\n".join(json.dumps(line) for line in (said if tells_itself else [device, *said]))
    path = folder / "python"
    path.write_text(
        f"#!{sys.executable}\nimport sys, threading, time\n"
        "threading.Thread(target=sys.stdin.buffer.read, daemon=True).start()\n"
        f"print({lines!r}, flush=True)\ntime.sleep(1)\n"
    )
    path.chmod(0o755)
    return open_device(load_target("cpu").model_copy(update={"python": str(path)}))


@pytest.mark.parametrize("nonsense", NONSENSE)
def test_a_device_that_tells_nonsense_is_an_error_of_one_line(nonsense: object, espcn: Path, tmp_path: Path) -> None:
    device = _liar([nonsense, {"kind": "end"}], tmp_path)
    with pytest.raises(HwnasError, match=r"this machine( tells nonsense: | has told times of 0 files|: )") as caught:
        device.measure([espcn], Timing((24, 32), rounds=1), Silent())
    assert str(caught.value).isprintable()


def test_turns_that_do_not_pair_are_nonsense(espcn: Path, tmp_path: Path) -> None:
    models = [{"kind": "model", "rounds_ms": [[1.0]] * n, "layers": []} for n in (6, 7)]
    with pytest.raises(HwnasError, match="has told times of files that took 6 and 7 turns"):
        _liar([*models, {"kind": "end"}], tmp_path).measure([espcn] * 2, Timing((24, 32), rounds=1), Silent())
