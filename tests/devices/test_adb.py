"""Phones behind adb: adb's own server, which adbutils brings, against a daemon of the test's."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hwnas.devices import Device, Timing, adb_device, open_device
from hwnas.devices.benchmark_model import parse_layers, parse_mean, parse_memory
from hwnas.devices.target import load_target
from hwnas.errors import HwnasError, UsageError
from hwnas.progress import Silent

from .phone import Phone

adbutils = pytest.importorskip("adbutils", reason="the extra 'adb' is not installed")

SAID = """STARTING!
Log parameter values verbosely: [0]
Min num runs: [5]
Graph: [/data/local/tmp/model.tflite]
Loaded model /data/local/tmp/model.tflite
Initialized session in 1.23ms.
count=1 first=45678 curr=45678 min=45678 max=45678 avg=45678 std=0

count=5 first=40123 curr=40222 min=39876 max=42000 avg=40567.8 std=456

Inference timings in us: Init: 1230, First inference: 45678, Warmup (avg): 41234, Inference (avg): 40567.8
Memory footprint delta from the start of the tool (MB): init=5.2 overall=12.5
Overall peak memory footprint (MB) via periodic monitoring: 14
Profiling Info for Benchmark Initialization:
============================== Run Order ==============================
\t             [node type]\t  [first]\t [avg ms]\t     [%]\t  [cdf%]\t  [mem KB]\t[times called]\t[Name]
\t         AllocateTensors\t    0.152\t    0.152\t100.000%\t100.000%\t   512.000\t        1\tAllocateTensors/0

Operator-wise Profiling Info for Regular Benchmark Runs:
============================== Run Order ==============================
\t             [node type]\t  [first]\t [avg ms]\t     [%]\t  [cdf%]\t  [mem KB]\t[times called]\t[Name]
\t                 CONV_2D\t    4.269\t    4.107\t 10.000%\t 10.000%\t     0.000\t        1\t[head/Conv2D]:0
\t        DEPTH_TO_SPACE\t   36.269\t   36.107\t 90.000%\t100.000%\t     0.000\t        1\t[shuffle]:1

============================== Top by Computation Time ==============================
\t             [node type]\t  [first]\t [avg ms]\t     [%]\t  [cdf%]\t  [mem KB]\t[times called]\t[Name]
\t        DEPTH_TO_SPACE\t   36.269\t   36.107\t 90.000%\t 90.000%\t     0.000\t        1\t[shuffle]:1
"""
"""The form that LiteRT's documentation shows; the program itself was not to be had."""

STORAGE = "sto rage"
"""Folder of the phone's files, in a name that a shell has to be told of."""

PROGRAM = f"""#!{sys.executable}
import os, sys, time
graph = next(a.partition("=")[2] for a in sys.argv if a.startswith("--graph="))
assert os.path.getsize(graph) > 0
open({{HERE!r}} + "/asked", "a").write(" ".join(a for a in sys.argv[1:]) + "\\n")
time.sleep(float(os.environ.get("TAKES", "0.01")))
print({SAID!r})
"""


def test_what_benchmark_model_says_is_read() -> None:
    assert parse_mean(SAID) == pytest.approx(40.5678)
    assert parse_memory(SAID) == 14 * 2**20
    assert parse_memory(SAID.replace("Overall peak", "")) == 12.5 * 2**20
    first, second = parse_layers(SAID)
    assert first == {"name": "head/Conv2D]:0", "kind": "CONV_2D", "ms": 4.107}
    assert (second["kind"], second["ms"]) == ("DEPTH_TO_SPACE", 36.107)
    assert parse_layers("nothing") == [] and parse_memory("nothing") is None
    with pytest.raises(HwnasError, match="no time of an inference"):
        parse_mean("Segmentation fault")


@contextmanager
def _server(home: Path) -> Iterator[None]:
    """A port of its own for adb's server, which the first who asks for a phone starts, in seconds."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(port))
        monkeypatch.setenv("HOME", str(home))  # where adb keeps its keys
        try:
            yield
        finally:
            adbutils.AdbClient().server_kill()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with _server(tmp_path_factory.mktemp("adb")):
        yield


@pytest.fixture
def phone(server: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Phone]:
    storage, programs = tmp_path / STORAGE, tmp_path / "programs"
    storage.mkdir()
    programs.mkdir()
    monkeypatch.setattr(adb_device, "FOLDER", str(storage))
    (programs / "getprop").write_text('#!/bin/sh\n[ "$1" = ro.product.model ] && echo "Pixel Test"\nexit 0\n')
    (programs / "getprop").chmod(0o755)
    found = Phone(programs)
    try:
        yield found
    finally:
        adbutils.AdbClient().disconnect(found.serial)  # or it is waited for to come back
        found.stop()


def _device(phone: Phone, tmp_path: Path, **changes: object) -> Device:
    program = tmp_path / "benchmark_model"
    program.write_text(PROGRAM.replace("{HERE!r}", repr(str(tmp_path))))
    target = load_target("android").model_copy(update={"benchmark_binary": str(program), **changes})
    return open_device(target, phone.serial)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "network.tflite"
    path.write_bytes(os.urandom(300_000))  # more than one message of adb's
    return path


def test_listing_starts_no_server(phone: Phone, tmp_path: Path) -> None:
    with _server(tmp_path), _device(phone, tmp_path) as device:
        assert "server is not running" in str(device.missing())
        device.probe()
        assert device.missing() is None


def test_a_file_is_pushed_run_and_removed(phone: Phone, tmp_path: Path, model: Path) -> None:
    with _device(phone, tmp_path) as device:
        probe = device.probe()
        assert device.missing() is None
        assert probe.fingerprint.hardware == "Pixel Test" and probe.free_bytes
        (found,) = device.measure([model], Timing((24, 32), rounds=4, seconds=0, layers=True), Silent())
    assert found.fingerprint == probe.fingerprint and found.method == "measured"
    assert found.samples_ms == pytest.approx([40.5678] * 4) and len(found.layers) == 2
    assert found.mean_of == 5 and found.tail(50) is None, "means have no tails"
    assert all("--num_threads=4 --num_runs=5" in line for line in (tmp_path / "asked").read_text().splitlines())
    assert list((tmp_path / STORAGE).iterdir()) == []


@pytest.mark.slow
def test_files_take_turns_in_changing_order_until_they_are_certain(phone: Phone, tmp_path: Path, model: Path) -> None:
    other = tmp_path / "other.tflite"
    other.write_bytes(model.read_bytes()[:1000])
    with _device(phone, tmp_path) as device:
        found = device.measure([model, other, model], Timing((24, 32), rounds=6, seconds=0), Silent())
        assert [len(one.rounds_ms) for one in found] == [6, 6, 6]
        lines = (tmp_path / "asked").read_text().splitlines()
        rounds = [tuple(lines[i : i + 3]) for i in range(0, len(lines), 3)]
        assert all(sorted(turns) == sorted(rounds[0]) for turns in rounds) and len(set(rounds)) > 1
        assert not any("profiling" in line or "memory" in line for line in lines), "watching takes time"
        (longer,) = device.measure([model], Timing((24, 32), rounds=6, enough=8, seconds=30), Silent())
    assert len(longer.rounds_ms) == 8


@pytest.mark.parametrize(
    ("true", "said"),
    [
        ("(avg): 40567.8", "(avg): 0"),
        pytest.param("(avg): 40567.8", "(avg): 1e999", marks=pytest.mark.slow),
        ("[head/Conv2D]", "[\x1b]0;owned\x07]"),
        pytest.param("4.107", "nan", marks=pytest.mark.slow),
        pytest.param("4.107", "-1", marks=pytest.mark.slow),
    ],
)
def test_a_phone_that_tells_nonsense_is_an_error(
    true: str, said: str, phone: Phone, tmp_path: Path, model: Path
) -> None:
    with _device(phone, tmp_path) as device:
        (tmp_path / "benchmark_model").write_text(
            PROGRAM.replace("{HERE!r}", repr(str(tmp_path))).replace(repr(SAID), repr(SAID.replace(true, said)))
        )
        with pytest.raises(HwnasError, match="the phone tells nonsense") as caught:
            device.measure([model], Timing((24, 32), rounds=1, seconds=0, layers=True), Silent())
    assert str(caught.value).isprintable()


def test_what_a_broken_connection_left_is_removed(phone: Phone, tmp_path: Path) -> None:
    old, fresh = (tmp_path / STORAGE / f"hwnas-{name}" for name in ("old", "fresh"))
    for folder in (old, fresh):
        folder.mkdir()
    os.utime(fresh, (time.time() - 7200,) * 2)  # of a session that goes on
    os.utime(old, (time.time() - 2 * 86400,) * 2)
    with _device(phone, tmp_path) as device:
        device.probe()
    assert not old.exists() and fresh.exists()


def test_only_the_processor_of_a_phone_is_timed(phone: Phone, tmp_path: Path, model: Path) -> None:
    with _device(phone, tmp_path, provider="gpu") as device, pytest.raises(UsageError, match="provider cpu only"):
        device.measure([model], Timing((24, 32), rounds=1), Silent())


def test_a_phone_that_is_unplugged_is_named(
    phone: Phone, tmp_path: Path, model: Path, wait_for: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def unplug() -> None:
        wait_for(lambda: any((tmp_path / STORAGE).glob("hwnas-*/0.tflite")), "nothing was pushed")
        time.sleep(0.3)
        phone.stop()

    unplugging = threading.Thread(target=unplug)
    unplugging.start()
    with _device(phone, tmp_path) as device, pytest.raises(HwnasError, match=r"phone"):
        device.measure([model], Timing((24, 32), rounds=10_000), Silent())
    unplugging.join()


def test_a_program_that_hangs_is_given_up_and_ended(
    phone: Phone, tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TAKES", "60")
    monkeypatch.setattr(adb_device, "COMMAND_SECONDS", 2.0)
    with (
        _device(phone, tmp_path) as device,
        pytest.raises(HwnasError, match="benchmark_model did not end"),
    ):
        device.measure([model], Timing((24, 32), rounds=1), Silent())
    assert list((tmp_path / STORAGE).iterdir()) == [] and str(tmp_path / STORAGE) not in _commands()


@pytest.mark.usefixtures("listens")
def test_a_benchmark_that_nobody_waits_for_is_ended(
    phone: Phone, tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch, wait_for: Callable[..., None]
) -> None:
    """Ctrl-C comes while it runs."""
    monkeypatch.setenv("TAKES", "60")

    def interrupt() -> None:
        wait_for(lambda: "--graph=" + str(tmp_path / STORAGE) in _commands(), "it never began")
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)  # type: ignore[arg-type]

    interrupting = threading.Thread(target=interrupt)
    interrupting.start()
    with _device(phone, tmp_path) as device, pytest.raises(KeyboardInterrupt):
        device.measure([model], Timing((24, 32), rounds=1), Silent())
    interrupting.join()
    wait_for(lambda: str(tmp_path / STORAGE) not in _commands(), "it goes on")


def _commands() -> str:
    return subprocess.run(["ps", "axww", "-o", "args"], capture_output=True, text=True, check=True).stdout


def test_a_program_that_fails_says_why(phone: Phone, tmp_path: Path, model: Path) -> None:
    model.write_bytes(b"")
    with _device(phone, tmp_path) as device, pytest.raises(HwnasError, match="benchmark_model failed.*AssertionError"):
        device.measure([model], Timing((24, 32), rounds=2), Silent())
    assert list((tmp_path / STORAGE).iterdir()) == []


def test_a_phone_without_the_program_says_what_to_do(phone: Phone, tmp_path: Path, model: Path) -> None:
    with _device(phone, tmp_path, benchmark_binary=None) as device, pytest.raises(HwnasError, match="push LiteRT's"):
        device.measure([model], Timing((24, 32), rounds=2), Silent())
    with _device(phone, tmp_path, benchmark_binary="/none") as device, pytest.raises(UsageError, match="no file /none"):
        device.measure([model], Timing((24, 32), rounds=2), Silent())


def test_a_phone_that_is_not_there_is_named(phone: Phone, tmp_path: Path) -> None:
    absent = load_target("android").model_copy(update={"host": "nobody"})
    with open_device(absent) as device:
        with pytest.raises(HwnasError, match="no phone nobody"):
            device.probe()
        assert "no phone nobody" in str(device.missing())
    with open_device(load_target("android")) as device, pytest.raises(HwnasError, match="allow USB debugging"):
        device.probe()
