"""Devices that run Python: the runner is sent to them and times files in a runtime that is there."""

from __future__ import annotations

import io
import json
import sys
import zipfile
from collections.abc import Iterator, Sequence
from functools import cache
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from pydantic import ValidationError

from hwnas.architecture import first_problem
from hwnas.devices.device import DEVICES, Device, Probe, Timing, connect
from hwnas.devices.measurement import Fingerprint, LayerTime, Measurement
from hwnas.devices.target import Target
from hwnas.errors import HwnasError, UsageError, first_line
from hwnas.exporters.base import exporter_of
from hwnas.progress import Progress

# Reads the runner, as a zip file behind its size, into a folder that is its own, and lets it go on from there.
_START = """
import os, runpy, sys, tempfile
folder = tempfile.mkdtemp(prefix="hwnas-")
path = os.path.join(folder, "runner.zip")
with open(path, "wb") as file:
    file.write(sys.stdin.buffer.read(int(sys.stdin.buffer.readline())))
sys.path.insert(0, path)
sys.argv[1:] = [folder]
runpy.run_module("runner", run_name="__main__", alter_sys=True)
"""

_PACKAGES = {"onnxruntime": "onnxruntime", "qnn": "onnxruntime", "openvino": "openvino", "litert": "ai_edge_litert"}
_EXTRAS = {"openvino": "openvino", "litert": "npu", "qnn": "qnn"}


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
        if self.target.connection != "local":
            return None
        package = _PACKAGES.get(self.target.runtime)
        if package is not None and find_spec(package) is None:
            extra = _EXTRAS.get(self.target.runtime)
            return f"{package} is not installed" + (f"; pip install 'hwnas[{extra}]'" if extra else "")
        try:
            self.probe()
        except HwnasError as error:
            return str(error)
        return None

    def probe(self) -> Probe:
        device = next((message for message in list(self._run([], Timing((1, 1)))) if message["kind"] == "device"), {})
        free, python = device.get("free_bytes"), device.get("python")
        return Probe(
            fingerprint=self._fingerprint(device),
            free_bytes=free if isinstance(free, int) else None,
            notes=(f"Python {_printable(python)}",),
        )

    def measure(self, paths: Sequence[Path], timing: Timing, progress: Progress) -> list[Measurement]:
        bar, measured = progress.task("measure", timing.rounds), 0
        fingerprint: Fingerprint | None = None
        found: dict[int, Measurement] = {}
        for message in self._run(paths, timing):
            if message["kind"] == "device":
                fingerprint = self._fingerprint(message)
            elif message["kind"] == "model" and fingerprint is not None:
                found[message.get("index", -1)] = self._measurement(message, fingerprint)
            elif message["kind"] == "round" and measured < timing.rounds:
                bar.advance()
                measured += 1
        bar.advance(timing.rounds - measured)
        if sorted(found) != list(range(len(paths))):
            raise HwnasError(f"{self._connection.where} has told no times of {len(paths) - len(found)} files")
        return [found[i] for i in range(len(paths))]

    def _run(self, paths: Sequence[Path], timing: Timing) -> Iterator[dict[str, Any]]:
        """What the runner tells, signs of life included, up to its end."""
        parts = [part for i, path in enumerate(paths) for part in _parts(i, path)]
        target = self.target
        job = {
            "runtime": target.runtime,
            "provider": target.provider,
            "threads": target.threads,
            "models": [f"{i}{_suffix(path)}" for i, path in enumerate(paths)],
            "files": [(name, len(content)) for name, content in parts],
            "open_inputs": {f"{i}.onnx": name for i, path in enumerate(paths) if (name := _open_input(path))},
            "size": timing.size,
            "rounds": timing.rounds,
            "precision": timing.precision,
            "seconds": timing.seconds,
            "layers": timing.layers,
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
                    raise HwnasError(f"{self._connection.where}: {_printable(message.get('message'))}")
                yield message
            complaint = _printable(channel.complaint()) or "it says nothing"
        raise HwnasError(f"{self._connection.where} went away before it was done: {complaint}")

    def _fingerprint(self, message: dict[str, Any]) -> Fingerprint:
        try:
            return Fingerprint.model_validate(message.get("fingerprint"))
        except ValidationError as error:
            raise HwnasError(f"{self._connection.where} tells nonsense of itself: {first_problem(error)}") from error

    def _measurement(self, message: dict[str, Any], fingerprint: Fingerprint) -> Measurement:
        try:
            return Measurement(
                method=self.method,
                rounds_ms=message["rounds_ms"],
                layers=tuple(LayerTime.model_validate(layer) for layer in message["layers"]),
                peak_bytes=message.get("peak_bytes"),
                fingerprint=fingerprint,
            )
        except (KeyError, TypeError, ValidationError) as error:
            raise HwnasError(f"{self._connection.where} tells nonsense: {first_line(error)}") from error

    def close(self) -> None:
        self._connection.close()


def _suffix(path: Path) -> str:
    return exporter_of(path).suffix


def _parts(index: int, path: Path) -> list[tuple[str, bytes]]:
    """The files that belong to one, under names that are nobody else's."""
    found = []
    for file in exporter_of(path).files(path):
        try:
            found.append((f"{index}{_suffix(path) if file == path else file.suffix}", file.read_bytes()))
        except FileNotFoundError as error:
            raise UsageError(f"there is no file {file}; check the path") from error
        except OSError as error:
            raise HwnasError(f"cannot read {file}: {error.strerror}") from error
    return found


def _open_input(path: Path) -> str | None:
    """Name of the input of an ONNX file that takes images of any size."""
    if path.suffix != ".onnx":
        return None
    try:
        inputs = onnx.load(path, load_external_data=False).graph.input
    except (DecodeError, ValueError) as error:
        raise HwnasError(f"{path} is not an ONNX file, or is damaged; export the network again") from error
    sides = [dim.HasField("dim_value") for port in inputs[:1] for dim in port.type.tensor_type.shape.dim]
    return str(inputs[0].name) if not all(sides) else None


def _printable(said: object) -> str:
    """What a device says, with nothing in it that a terminal would obey."""
    return "".join(c if c.isprintable() else " " for c in str(said))


def _message(line: bytes) -> dict[str, Any] | None:
    try:
        message = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return message if isinstance(message, dict) and isinstance(message.get("kind"), str) else None


for _runtime in ("onnxruntime", "openvino", "litert", "tensorrt", "qnn"):
    DEVICES.register(_runtime)(RunnerDevice)
