"""Devices that run Python: the runner is sent to them and times files in a runtime that is there."""

from __future__ import annotations

import io
import json
import sys
import time
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hwnas.devices.device import DEVICES, Device, Probe, Timing, connect
from hwnas.devices.measurement import Fingerprint, Measurement, printable, told_by
from hwnas.devices.target import Target
from hwnas.errors import HwnasError, UsageError
from hwnas.progress import Progress

# Reads the runner, as a zip file behind its size, into a folder that is its own, and lets it go on from there. Folders
# that are touched no more were left by one that was killed.
_START = """
import contextlib, glob, os, runpy, shutil, sys, tempfile, time
for left in glob.glob(os.path.join(tempfile.gettempdir(), "hwnas-runner-*")):
    with contextlib.suppress(OSError):  # of somebody else
        if time.time() - os.path.getmtime(left) > 600:
            shutil.rmtree(left, ignore_errors=True)
folder = tempfile.mkdtemp(prefix="hwnas-runner-")
path = os.path.join(folder, "runner.zip")
with open(path, "wb") as file:
    file.write(sys.stdin.buffer.read(int(sys.stdin.buffer.readline())))
sys.path.insert(0, path)
sys.argv[1:] = [folder]
runpy.run_module("runner", run_name="__main__", alter_sys=True)
"""

_PACKAGES = {"onnxruntime": "onnxruntime", "qnn": "onnxruntime", "openvino": "openvino", "litert": "ai_edge_litert"}
_EXTRAS = {"openvino": "openvino", "litert": "npu", "qnn": "qnn"}


MISSING_SECONDS = 20.0
"""After which a device that is not asked to measure anything is taken for one that cannot be used."""

PATIENCE = 1.0
"""Factor of the times after which the runner takes the device to hang."""


@cache
def _runner() -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for entry in (files("hwnas") / "devices" / "runner").iterdir():
            if entry.name.endswith(".py"):
                archive.writestr(f"runner/{entry.name}", entry.read_bytes())
    return content.getvalue()


class RunnerDevice(Device):
    """This machine, or one that is reached by ssh."""

    connections = ("local", "ssh")

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        self._connection = connect(target)

    def missing(self) -> str | None:
        package = _PACKAGES.get(self.target.runtime)
        if self.target.connection == "local" and package is not None and find_spec(package) is None:
            extra = _EXTRAS.get(self.target.runtime)
            return f"{package} is not installed" + (f"; pip install 'hwnas[{extra}]'" if extra else "")
        patient, self._connection.attempts = self._connection.attempts, 1
        until = time.monotonic() + MISSING_SECONDS
        try:
            for _ in self._run([], Timing((1, 1))):
                if time.monotonic() > until:
                    return f"{self._connection.where} has not said what it is in {MISSING_SECONDS:.0f} s"
        except HwnasError as error:
            return str(error)
        finally:
            self._connection.attempts = patient
        return None

    def probe(self) -> Probe:
        device = next((message for message in list(self._run([], Timing((1, 1)))) if message["kind"] == "device"), {})
        free, python = device.get("free_bytes"), device.get("python")
        return Probe(
            fingerprint=self._fingerprint(device),
            free_bytes=free if isinstance(free, int) and 0 <= free < 2**63 else None,
            notes=(f"Python {printable(python)}",),
        )

    def measure(self, paths: Sequence[Path], timing: Timing, progress: Progress) -> list[Measurement]:
        bar, measured = progress.task("measure", timing.rounds), 0
        fingerprint: Fingerprint | None = None
        found: list[Measurement] = []
        for message in self._run(paths, timing):
            if message["kind"] == "device":
                fingerprint = self._fingerprint(message)
            elif message["kind"] == "model" and fingerprint is not None:
                found.append(self._measurement(message, fingerprint))
            elif message["kind"] == "round" and measured < timing.rounds:
                bar.advance()
                measured += 1
        bar.advance(timing.rounds - measured)
        if len(found) != len(paths):
            raise HwnasError(f"{self._connection.where} has told times of {len(found)} files, not of {len(paths)}")
        if len(turns := sorted({len(one.rounds_ms) for one in found})) > 1:
            raise HwnasError(
                f"{self._connection.where} has told times of files that took {turns[0]} and {turns[-1]} turns"
            )
        return found

    def _run(self, paths: Sequence[Path], timing: Timing) -> Iterator[dict[str, Any]]:
        """What the runner tells, signs of life included, up to its end."""
        sent: dict[Path, _Sent] = {}
        for path in paths:
            if path not in sent:
                sent[path] = _Sent.read(path, str(len(sent)))
        parts = [part for each in sent.values() for part in each.parts]
        target = self.target
        job = {
            "runtime": target.runtime,
            "provider": target.provider,
            "threads": target.threads,
            "models": [sent[path].name for path in paths],
            "files": [(name, len(content)) for name, content in parts],
            "open_inputs": {each.name: each.open_input for each in sent.values()},
            "patience": PATIENCE,
            **asdict(timing),
        }
        local = target.connection == "local"
        python = target.python or (sys.executable if local else "python3")
        runner = _runner()
        with self._connection.start([python, "-c", _START]) as channel:
            channel.send(b"%d\n%b%b\n" % (len(runner), runner, json.dumps(job).encode()))
            for _, content in parts:
                channel.send(content)
            # A login shell may have lines of its own.
            for message in filter(None, map(_message, channel.lines())):
                if message["kind"] == "end":
                    return
                if message["kind"] == "error":
                    raise HwnasError(f"{self._connection.where}: {printable(message.get('message'))}")
                yield message
            complaint = printable(channel.complaint()) or "it says nothing"
            if python in complaint:
                complaint += "; check the target's python"
        raise HwnasError(f"{self._connection.where} went away before it was done: {complaint}")

    def _fingerprint(self, message: dict[str, Any]) -> Fingerprint:
        return told_by(self._connection.where, Fingerprint, message.get("fingerprint"))

    def _measurement(self, message: dict[str, Any], fingerprint: Fingerprint) -> Measurement:
        fields = {name: message.get(name) for name in ("rounds_ms", "layers", "peak_bytes", "clock_khz")}
        return told_by(
            self._connection.where, Measurement, {**fields, "method": self.method, "fingerprint": fingerprint}
        )

    def close(self) -> None:
        self._connection.close()


@dataclass(frozen=True, slots=True)
class _Sent:
    """A file as it is sent.

    Attributes:
        name: that it gets there.
        parts: names and contents of all files that belong to it.
        open_input: name of its input, if that takes images of any size and says so.
    """

    name: str
    parts: list[tuple[str, bytes]]
    open_input: str | None = None

    @classmethod
    def read(cls, path: Path, stem: str) -> _Sent:
        from hwnas.exporters.base import exporter_of

        own = exporter_of(path)
        name = f"{stem}{own.suffix}"
        if path.suffix == ".onnx":
            content, open_input = _read_onnx(path)
            return cls(name, [(name, content)], open_input)
        return cls(name, [(name if file == path else stem + file.suffix, _read(file)) for file in own.files(path)])


def _read_onnx(path: Path) -> tuple[bytes, str | None]:
    """An ONNX file, whole; and the name of its input, if that takes images of any size."""
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    content = _read(path)
    try:
        model = onnx.load_from_string(content)
        onnx.load_external_data_for_model(model, str(path.parent))
        if not model.graph.node:
            raise ValueError("nothing is computed in it")
    except (DecodeError, ValueError) as error:
        raise HwnasError(f"{path} is not an ONNX file, or is damaged; export the network again") from error
    except (OSError, onnx.checker.ValidationError) as error:
        raise HwnasError(f"{path} keeps its weights in another file, which cannot be read: {error}") from error
    inputs = model.graph.input
    sides = [dim.HasField("dim_value") for port in inputs[:1] for dim in port.type.tensor_type.shape.dim]
    return model.SerializeToString(), str(inputs[0].name) if not all(sides) else None


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except FileNotFoundError as error:
        raise UsageError(f"there is no file {file}; check the path") from error
    except OSError as error:
        raise HwnasError(f"cannot read {file}: {error.strerror}") from error


def _message(line: bytes) -> dict[str, Any] | None:
    try:
        message = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return message if isinstance(message, dict) and isinstance(message.get("kind"), str) else None


for _runtime in ("onnxruntime", "openvino", "litert", "tensorrt", "qnn"):
    DEVICES.register(_runtime)(RunnerDevice)
