"""Phones, through adb: LiteRT's own benchmark_model times files there."""

from __future__ import annotations

import posixpath
import secrets
import shlex
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hwnas.devices.benchmark_model import parse_layers, parse_mean, parse_memory
from hwnas.devices.device import DEVICES, Device, Probe, Timing
from hwnas.devices.measurement import Fingerprint, Measurement, printable, told_by
from hwnas.devices.runner.common import Model
from hwnas.devices.runner.timing import time_all
from hwnas.errors import HwnasError, UsageError, first_line, not_installed
from hwnas.progress import Progress

FOLDER = "/data/local/tmp"
"""Where adb may write on every Android, and run what it has written."""

INFERENCES = 5
"""Of each turn; benchmark_model tells their mean."""

CONNECT_SECONDS = 10.0
COMMAND_SECONDS = 300.0
"""After which a command on the phone is given up."""


class _PhoneModel(Model):
    """A file that was pushed."""

    def __init__(self, phone: AdbDevice, binary: str, there: str) -> None:
        self._phone, self._binary, self.there = phone, binary, there

    def samples(self) -> list[float]:
        return [parse_mean(self._phone.benchmark(self._binary, self.there))]

    def more(self) -> dict[str, Any]:
        """What is not told while it is timed, since that takes time too."""
        watched = ("--enable_op_profiling=true", "--report_peak_memory_footprint=true")
        said = self._phone.benchmark(self._binary, self.there, *watched)
        return {"layers": parse_layers(said), "peak_bytes": parse_memory(said)}


@DEVICES.register("benchmark_model")
class AdbDevice(Device):
    """A phone that adb knows. ``target.host`` is its serial number, or ``address:port``; None for the only one."""

    connections = ("adb",)

    def __init__(self, target: Any) -> None:
        super().__init__(target)
        self._phone: Any = None

    def missing(self) -> str | None:
        if find_spec("adbutils") is None:
            return str(not_installed("adbutils", "adb"))
        try:
            if not _server_answers():
                return f"adb's server is not running; `hwnas targets check {self.target.name}` starts it"
            self._connected()
        except HwnasError as error:
            return str(error)
        return None

    def probe(self) -> Probe:
        with self._folder() as folder:
            binary = self._binary(folder)
            free = (self._shell("df", "-k", FOLDER).splitlines() or [""])[-1].split()
            return Probe(
                fingerprint=self._fingerprint(binary),
                free_bytes=int(free[3]) * 1024 if len(free) > 3 and free[3].isdigit() else None,
                notes=(f"benchmark_model: {binary}",),
            )

    def measure(self, paths: Sequence[Path], timing: Timing, progress: Progress) -> list[Measurement]:
        for path in paths:
            if not path.is_file():
                raise UsageError(f"there is no file {path}; check the path")
        with self._folder() as folder:
            binary = self._binary(folder)
            fingerprint = self._fingerprint(binary)
            pushed: dict[Path, _PhoneModel] = {}
            for path in dict.fromkeys(paths):
                pushed[path] = _PhoneModel(self, binary, posixpath.join(folder, f"{len(pushed)}.tflite"))
                self._push(path, pushed[path].there)
            models = [pushed[path] for path in paths]
            bar = progress.task("measure", timing.rounds)
            rounds = time_all(models, asdict(timing), lambda done, _: bar.advance(int(done < timing.rounds)))
            bar.advance()
            clock = self._highest("scaling_cur_freq")
            more = [model.more() if timing.layers else {} for model in models]
        fixed = {"method": self.method, "fingerprint": fingerprint, "clock_khz": clock, "mean_of": INFERENCES}
        return [
            told_by("the phone", Measurement, {**fixed, "rounds_ms": rounds[i], **more[i]}) for i in range(len(paths))
        ]

    def benchmark(self, binary: str, model: str, *more: str) -> str:
        """What benchmark_model says of a file that is on the phone."""
        options = [f"--graph={model}", f"--num_threads={self.target.threads}", f"--num_runs={INFERENCES}"]
        # It repeats for a second unless told not to, and the first runs decide on memory.
        return self._shell(binary, *options, "--min_secs=0", "--warmup_runs=1", "--warmup_min_secs=0", *more)

    def _binary(self, folder: str) -> str:
        """The program on the phone: pushed, or there already."""
        if self.target.provider != "cpu":
            raise UsageError(f"benchmark_model is timed on provider cpu only, not on {self.target.provider}")
        ours = self.target.benchmark_binary
        if ours is None:
            there = posixpath.join(FOLDER, "benchmark_model")
            if self._ask("ls", there) is None:
                raise HwnasError(
                    f"{there} is not on the phone; push LiteRT's benchmark_model there, or name it for the target by "
                    "--set benchmark_binary=PATH"
                )
            return there
        if not Path(ours).is_file():
            raise UsageError(f"there is no file {ours}, the target's benchmark_binary; check the path")
        pushed = posixpath.join(folder, "benchmark_model")
        self._push(Path(ours), pushed)
        return pushed

    def _fingerprint(self, binary: str) -> Fingerprint:
        # The program does not say which version it is.
        digest = self._shell("sha256sum", binary)[:12]
        cores = self._ask("nproc")
        model = self._property("ro.product.model") or "phone"
        chip = self._property("ro.soc.model") or self._property("ro.board.platform")
        told = {
            "hardware": f"{model} ({chip})" if chip else model,
            "machine": self._property("ro.product.cpu.abi") or "unknown",
            "cores": _number(cores),
            "system": f"Android {self._property('ro.build.version.release')}",
            "runtime": self.target.runtime,
            "runtime_version": digest,
            "provider": self.target.provider,
            "threads": self.target.threads,
            "governor": "/".join(sorted(self._of_all_cores("scaling_governor"))) or None,
            "max_khz": self._highest("scaling_max_freq"),
        }
        return told_by("the phone", Fingerprint, told)

    def _of_all_cores(self, name: str) -> set[str]:
        return set((self._ask("sh", "-c", f"cat /sys/devices/system/cpu/cpu*/cpufreq/{name}") or "").split())

    def _highest(self, name: str) -> int | None:
        return max((int(clock) for clock in self._of_all_cores(name) if clock.isdigit()), default=None)

    def _property(self, name: str) -> str:
        return (self._ask("getprop", name) or "").strip()

    @contextmanager
    def _folder(self) -> Iterator[str]:
        """A folder on the phone for the length of the block; those that broken connections left go after a day."""
        folder = posixpath.join(FOLDER, f"hwnas-{secrets.token_hex(6)}")
        old = ("find", FOLDER, "-maxdepth", "1", "-name", "hwnas-*", "-mmin", "+1440", "-exec", "rm", "-rf", "{}", "+")
        self._ask(*old)
        self._shell("mkdir", folder)
        try:
            yield folder
        finally:
            # Whoever was interrupted has left a benchmark. Written so that it does not find itself.
            for command in (("pkill", "-f", folder.replace("hwnas-", "[h]wnas-")), ("rm", "-rf", folder)):
                with suppress(HwnasError):  # if it is gone, what made it go is being told
                    self._ask(*command)

    def _connected(self) -> Any:
        if self._phone is not None:
            return self._phone
        try:
            import adbutils
        except ImportError as error:
            raise not_installed("adbutils", "adb") from error
        host = self.target.host
        try:
            client = adbutils.AdbClient()
            if host is not None and ":" in host:
                client.connect(host, timeout=CONNECT_SECONDS)
            there = {phone.serial: phone for phone in client.device_list()}
        except (adbutils.AdbError, OSError) as error:
            raise HwnasError(f"adb cannot be asked for phones: {first_line(error)}") from error
        if host is None and len(there) > 1:
            raise UsageError(f"adb knows {len(there)} phones; say which by --host {' or --host '.join(sorted(there))}")
        if not there or (host is not None and host not in there):
            raise HwnasError(
                f"adb finds {'no phone' if host is None else 'no phone ' + host}; allow USB debugging on it, plug it "
                "in, and confirm what it asks"
            )
        self._phone = there[host] if host is not None else next(iter(there.values()))
        return self._phone

    def _push(self, path: Path, there: str) -> None:
        import adbutils

        try:
            self._connected().sync.push(path, there, mode=0o755, check=True)
        except (adbutils.AdbError, OSError) as error:
            raise self._gone(error) from error

    def _ask(self, *command: str) -> str | None:
        """What a command prints; None if it fails."""
        code, said = self._run(command)
        return None if code else said

    def _shell(self, *command: str) -> str:
        """What a command prints that has to succeed."""
        code, said = self._run(command)
        if code:
            lines = [line for line in said.splitlines() if line.strip()] or ["it says nothing"]
            raise HwnasError(f"{posixpath.basename(command[0])} failed on the phone: {printable(lines[-1].strip())}")
        return said

    def _run(self, command: Sequence[str]) -> tuple[int, str]:
        import adbutils

        phone = self._connected()
        limited = shlex.join(["timeout", "-k", "5", f"{COMMAND_SECONDS:.0f}", *command])
        try:
            # Standard error with it: the benchmark writes to both.
            answer = phone.shell2(f"{limited} 2>&1", timeout=COMMAND_SECONDS + 10)
        except (adbutils.AdbError, OSError, ValueError) as error:
            raise self._gone(error) from error
        if answer.returncode in (124, 137):
            raise HwnasError(f"{posixpath.basename(command[0])} did not end on the phone in {COMMAND_SECONDS:.0f} s")
        return answer.returncode, answer.output

    def _gone(self, error: BaseException) -> HwnasError:
        self._phone = None
        return HwnasError(f"the phone went away before it was done: {first_line(error)}; is it still plugged in?")

    def close(self) -> None:
        self._phone = None


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.strip().isdigit() else None


def _server_answers() -> bool:
    """Whether adb's server runs, without starting it."""
    import adbutils

    client = adbutils.AdbClient()
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((client.host, client.port)) == 0
