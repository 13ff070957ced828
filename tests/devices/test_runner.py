"""What the runner asks of a runtime, and what it does with one that hangs: with a stand-in that notes it."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from hwnas.devices import Device, Timing, connection, open_device, runner_device, ssh
from hwnas.devices.runner import machine
from hwnas.devices.target import load_target
from hwnas.errors import HwnasError
from hwnas.progress import Silent, Task

from .conftest import Sshd

STAND_INS = Path(__file__).parent / "stand_ins"
WaitFor = Callable[..., None]


class Stage:
    """Where the stand-in plays.

    Attributes:
        temporary: folder of temporary files there.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._log = folder, folder / "log"
        self.temporary = folder / "tmp"
        self.temporary.mkdir()
        self._log.touch()

    def python(self, **does: object) -> str:
        """An interpreter in which ONNX Runtime is the stand-in, which does something in one of its inferences."""
        path = self._folder / "python"
        path.write_text(
            f"#!/bin/sh\nexport PYTHONPATH={STAND_INS} TMPDIR={self.temporary} STAND_IN_LOG={self._log}\n"
            f"export STAND_IN_DOES='{json.dumps(does)}'\nexec {sys.executable} \"$@\"\n"
        )
        path.chmod(0o755)
        return str(path)

    def device(self, target: str = "cpu", host: str | None = None, threads: int = 1, **does: object) -> Device:
        changes = {"python": self.python(**does), "threads": threads}
        return open_device(load_target(target).model_copy(update=changes), host)

    def events(self, kind: str) -> list[dict[str, Any]]:
        found = map(json.loads, self._log.read_text().splitlines())
        return [event for event in found if event["event"] == kind]

    def is_empty(self) -> bool:
        """Whether no file is left, and no process."""
        return not list(self.temporary.iterdir()) and not any(map(_runs, {e["pid"] for e in self.events("run")}))


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    folder = tmp_path / "stage"
    folder.mkdir()
    found = Stage(folder)
    yield found
    for pid in filter(_runs, {event["pid"] for event in found.events("run")}):
        os.kill(pid, signal.SIGKILL)


@pytest.fixture(params=["here", "by ssh"])
def host(request: pytest.FixtureRequest) -> str | None:
    """Where a device is: this machine, or a real server on it."""
    if request.param == "here":
        return None
    server: Sshd = request.getfixturevalue("sshd")
    return server.host


def _bear(silence: float, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (connection, ssh):
        monkeypatch.setattr(module, "SILENCE_SECONDS", silence)


@pytest.fixture
def networks(espcn: Path, tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"{i}.onnx" for i in range(4)]
    for path in paths:
        path.write_bytes(espcn.read_bytes())
    return paths


def test_a_session_has_the_threads_of_the_target_and_does_not_spin(stage: Stage, espcn: Path) -> None:
    stage.device(threads=3).measure([espcn], Timing((24, 32), rounds=1, seconds=0), Silent())
    (session,) = stage.events("session")
    assert session["threads"] == 3 and session["providers"] == ["CPUExecutionProvider"]
    assert session["entries"] == {"session.force_spinning_stop": "1", "session.x64quantprecision": "1"}
    (value,) = stage.events("value")
    assert (value["memory"], value["shape"], value["dtype"]) == ("cpu", [1, 3, 24, 32], "float32")


def test_on_a_gpu_nothing_falls_back_and_no_copy_is_timed(stage: Stage, espcn: Path) -> None:
    stage.device("cuda").measure([espcn], Timing((24, 32), rounds=1, seconds=0), Silent())
    (session,) = stage.events("session")
    assert session["entries"]["session.disable_cpu_ep_fallback"] == "1"
    assert session["providers"] == ["CUDAExecutionProvider"]
    assert {event["memory"] for event in stage.events("value") + stage.events("output")} == {"cuda"}


def test_all_are_warmed_up_and_take_turns_in_changing_order(stage: Stage, networks: list[Path]) -> None:
    stage.device().measure(networks, Timing((24, 32), rounds=6, seconds=0), Silent())
    runs = [event["file"] for event in stage.events("run")]
    assert runs[:12] == [name for name in ("0.onnx", "1.onnx", "2.onnx", "3.onnx") for _ in range(3)]
    # A turn is two inferences: the first one brings back what the others have driven from the caches.
    rounds = [runs[start : start + 8] for start in range(12, len(runs), 8)]
    assert len(rounds) == 6 and all(turns[::2] == turns[1::2] and len(set(turns)) == 4 for turns in rounds)
    assert len({tuple(turns) for turns in rounds}) > 2


def test_a_file_that_takes_several_turns_is_sent_and_loaded_once(stage: Stage, espcn: Path) -> None:
    found = stage.device().measure([espcn] * 3, Timing((24, 32), rounds=2, seconds=0), Silent())
    assert len(found) == 3 and len(stage.events("session")) == 1
    assert Counter(event["file"] for event in stage.events("run")) == {"0.onnx": 3 + 2 * 2 * 3}


def test_an_inference_that_does_not_end_is_an_error(
    stage: Stage, espcn: Path, monkeypatch: pytest.MonkeyPatch, wait_for: WaitFor
) -> None:
    monkeypatch.setattr(runner_device, "PATIENCE", 0.03)
    started = time.monotonic()
    with pytest.raises(HwnasError, match="this machine: it hangs"):
        stage.device(at=9, what="sleep", seconds=60).measure([espcn], Timing((24, 32), rounds=50), Silent())
    assert time.monotonic() - started < 30
    wait_for(stage.is_empty, "something is left")


def test_a_process_that_is_stopped_is_an_error(
    host: str | None,
    stage: Stage,
    espcn: Path,
    monkeypatch: pytest.MonkeyPatch,
    wait_for: WaitFor,
) -> None:
    _bear(4.0, monkeypatch)
    device = stage.device(host=host, at=5, what="stop", seconds=0)
    with device, pytest.raises(HwnasError, match="has said nothing for 4 s"):
        device.measure([espcn], Timing((24, 32), rounds=50), Silent())
    if host is None:  # over there it is stopped until somebody lets it go on, and then notices
        wait_for(lambda: not any(map(_runs, {e["pid"] for e in stage.events("run")})), "it is still there")
        return
    (pid,) = {event["pid"] for event in stage.events("run")}
    os.kill(pid, signal.SIGCONT)
    wait_for(stage.is_empty, "something is left")


@pytest.mark.slow
def test_an_inference_may_take_longer_than_silence_is_borne(
    host: str | None, stage: Stage, espcn: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _bear(6.0, monkeypatch)
    with stage.device(host=host, at=5, what="sleep", seconds=9) as device:
        (found,) = device.measure([espcn], Timing((24, 32), rounds=3, seconds=0), Silent())
    assert max(found.samples_ms) > 8900


def test_a_device_that_does_not_read_is_an_error(
    host: str | None, espcn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _bear(2.0, monkeypatch)
    deaf, large = tmp_path / "python", tmp_path / "large.onnx"
    deaf.write_text("#!/bin/sh\nexec sleep 20\n")
    deaf.chmod(0o755)
    model = onnx.load(espcn)
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.zeros(3_000_000, np.float32), "ballast"))
    onnx.save(model, large)
    started = time.monotonic()
    device = open_device(load_target("cpu").model_copy(update={"python": str(deaf)}), host)
    with device, pytest.raises(HwnasError, match="has said nothing for 2 s"):
        device.measure([large], Timing((24, 32), rounds=1), Silent())
    assert time.monotonic() - started < 15


def test_an_answer_of_one_long_line_comes_whole(sshd: Sshd, stage: Stage, espcn: Path) -> None:
    """Of 3 MB, where a connection keeps two for a line."""
    with stage.device(host=sshd.host) as device:
        channel_lines = ["x" * 3_000_000, "end"]
        code = "print('x' * 3_000_000); print('end')"
        with device._connection.start([sys.executable, "-c", code]) as channel:  # type: ignore[attr-defined]
            assert [line.decode().strip() for line in channel.lines()] == channel_lines


class Interrupted(Silent):
    """Somebody presses Ctrl-C when the first round is done."""

    def task(self, description: str, total: int, done: int = 0) -> Task:
        return self  # type: ignore[return-value]

    def advance(self, units: int = 1, /, **figures: str) -> None:
        raise KeyboardInterrupt


def test_ctrl_c_leaves_nothing(host: str | None, stage: Stage, espcn: Path, wait_for: WaitFor) -> None:
    device = stage.device(host=host)
    with pytest.raises(KeyboardInterrupt):
        device.measure([espcn], Timing((24, 32), rounds=10_000), Interrupted())
    wait_for(stage.is_empty, "something is left, though the connection is still open")
    device.close()


def test_what_a_killed_runner_left_is_removed_by_the_next(stage: Stage) -> None:
    old, fresh, other = (stage.temporary / f"hwnas-{name}" for name in ("runner-old", "runner-fresh", "else"))
    for folder in (old, fresh, other):
        folder.mkdir()
        (folder / "0.onnx").write_text("")
    for folder in (old, other):
        os.utime(folder, (time.time() - 3600,) * 2)
    os.utime(fresh, (time.time() - 300,) * 2)
    stage.device().probe()
    assert not old.exists() and fresh.exists() and other.exists()


def test_a_runner_that_is_busy_says_that_its_folder_is_its_own(stage: Stage, espcn: Path, wait_for: WaitFor) -> None:
    """Or the next one would take it for one that was left behind."""

    def is_young() -> bool:
        return time.time() - folder.stat().st_mtime < 60

    measuring = threading.Thread(
        target=stage.device(at=5, what="sleep", seconds=6).measure,
        args=([espcn], Timing((24, 32), rounds=3, seconds=0), Silent()),
    )
    measuring.start()
    wait_for(lambda: stage.events("run"), "it never began", 30)
    (folder,) = stage.temporary.iterdir()
    os.utime(folder, (time.time() - 3600,) * 2)
    wait_for(is_young, "it looks as if it had been left")
    measuring.join()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_runner_that_is_told_to_go_leaves_nothing(
    number: signal.Signals, stage: Stage, espcn: Path, wait_for: WaitFor
) -> None:
    """By a device that is shut down."""

    def end() -> None:
        wait_for(lambda: stage.events("run"), "it never began", 30)
        os.kill(stage.events("run")[0]["pid"], number)

    ending = threading.Thread(target=end)
    ending.start()
    with pytest.raises(HwnasError, match="this machine went away before it was done"):
        stage.device(at=5, what="sleep", seconds=5).measure([espcn], Timing((24, 32), rounds=50), Silent())
    ending.join()
    wait_for(stage.is_empty, "something is left")


def test_clocks_cores_and_modes_are_part_of_the_fingerprint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for i, (governor, most, now) in enumerate((("powersave", 1800000, 900000), ("performance", 2400000, 2300000))):
        folder = tmp_path / f"cpu{i}" / "cpufreq"
        folder.mkdir(parents=True)
        (folder / "scaling_governor").write_text(f"{governor}\n")
        (folder / "scaling_max_freq").write_text(f"{most}\n")
        (folder / "cpuinfo_max_freq").write_text("9999999\n")
        (folder / "scaling_cur_freq").write_text(f"{now}\n")
    (tmp_path / "cpuinfo").write_text(
        "processor\t: 0\ncpu family\t: 25\nmodel\t\t: 17\nmodel name\t: AMD EPYC\nstepping\t: 1\n"
        "flags\t\t: fpu avx2 fma avx512_vnni smep\n"
    )
    monkeypatch.setattr(machine, "CPUINFO", str(tmp_path / "cpuinfo"))
    (tmp_path / "power").write_text("pmode:0002 fmode:quiet\n")
    (tmp_path / "cpu.max").write_text("150000 100000\n")
    monkeypatch.setattr(machine, "CPUS", f"{tmp_path}/cpu*/cpufreq/")
    monkeypatch.setattr(machine, "POWER_MODE", str(tmp_path / "power"))
    monkeypatch.setattr(machine, "QUOTA", str(tmp_path / "cpu.max"))
    found = machine.fingerprint({"provider": "cpu", "runtime": "litert", "threads": 1}, "1")
    assert found["processor"] == "25/17/1" and found["instructions"] == "avx2 avx512_vnni fma"
    assert found["governor"] == "performance/powersave" and found["max_khz"] == 2400000
    assert found["power_mode"] == "pmode:0002 fmode:quiet" and machine.clock_khz() == 2300000
    assert found["cores"] == min(1.5, len(os.sched_getaffinity(0)))
    (tmp_path / "cpu.max").write_text("max 100000\n")
    everything = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(everything)})
    try:
        assert machine.fingerprint({"provider": "cpu", "runtime": "litert", "threads": 1}, "1")["cores"] == 1
    finally:
        os.sched_setaffinity(0, everything)
