"""Stands in for ONNX Runtime on a device: notes what it is asked for, in the file that STAND_IN_LOG names.

It is what cannot be seen from outside otherwise: settings of sessions, where values are kept, the order of turns; and
it can hang. ``STAND_IN_DOES`` is a JSON object: ``at`` counts inferences, and ``what`` happens in that one.
"""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

__version__ = "0.0.1"
_count = 0


def _note(**what: object) -> None:
    with Path(os.environ["STAND_IN_LOG"]).open("a") as file:
        file.write(json.dumps(what) + "\n")


def get_available_providers() -> list[str]:
    return ["CUDAExecutionProvider", "CPUExecutionProvider"]


class SessionOptions:
    def __init__(self) -> None:
        self.entries: dict[str, str] = {}

    def add_session_config_entry(self, key: str, value: str) -> None:
        self.entries[key] = value


class OrtValue:
    @staticmethod
    def ortvalue_from_numpy(pixels: object, memory: str, number: int) -> object:
        _note(event="value", memory=memory, shape=list(pixels.shape), dtype=str(pixels.dtype))  # type: ignore[attr-defined]
        return pixels


class _Port:
    name, shape, type = "lr", [1, 3, "height", "width"], "tensor(float)"


class _Binding:
    def bind_ortvalue_input(self, name: str, value: object) -> None:
        pass

    def bind_output(self, name: str, memory: str) -> None:
        _note(event="output", memory=memory)


class InferenceSession:
    def __init__(self, path: str, options: SessionOptions, providers: list[str]) -> None:
        self._name, self._providers = Path(path).name, providers
        _note(
            event="session",
            file=self._name,
            threads=options.intra_op_num_threads,  # type: ignore[attr-defined]
            entries=options.entries,
            providers=providers,
        )

    def get_providers(self) -> list[str]:
        return self._providers

    def get_inputs(self) -> list[type[_Port]]:
        return [_Port]

    def get_outputs(self) -> list[type[_Port]]:
        return [_Port]

    def io_binding(self) -> _Binding:
        return _Binding()

    def run_with_iobinding(self, binding: _Binding) -> None:
        global _count
        _count += 1
        _note(event="run", file=self._name, pid=os.getpid())
        does = json.loads(os.environ["STAND_IN_DOES"])
        if _count == does.get("at"):
            if does["what"] == "stop":
                os.kill(os.getpid(), signal.SIGSTOP)
            time.sleep(does["seconds"])
        time.sleep(0.001)
