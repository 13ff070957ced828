"""ONNX files in ONNX Runtime, on the CPU."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

import onnxruntime
from numpy.typing import NDArray

from hwnas.errors import HwnasError, UsageError
from hwnas.exporters.artifact import Artifact

_TYPES = {"tensor(float)": False, "tensor(uint8)": True}
"""Types of images, and whether they are bytes."""


def open_session(path: Path, optimised: bool = True) -> onnxruntime.InferenceSession:
    """A CPU session of ONNX Runtime, which reports its problems as exceptions and not on the terminal.

    Args:
        path: the file.
        optimised: let it rewrite the graph; if not, every node is computed as it is written.

    Raises:
        UsageError: if there is no such file.
        HwnasError: if it cannot be read or is not ONNX.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise UsageError(f"there is no file {path}; check the path") from error
    except OSError as error:
        raise HwnasError(f"cannot read {path}: {error.strerror}") from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # fatal only: whatever else it has to say, it also raises
    # x86 processors without VNNI add pairs of 8-bit products in 16 bits, which saturates where weights use all
    # eight bits: outputs move by whole grey levels. On those, and only on those, this converts the weights to a
    # type that does not. Networks trained for a CPU do not need it.
    options.add_session_config_entry("session.x64quantprecision", "1")
    if not optimised:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        # Of some files it prints what it then raises.
        with contextlib.redirect_stdout(io.StringIO()):
            return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    # Its exceptions share no base but Exception itself.
    except Exception as error:
        raise HwnasError(f"{path} is not an ONNX file, or is damaged; export the network again ({error})") from error


class OnnxArtifact(Artifact):
    """An ONNX file with one input [1, 3, height, width], of floats in [0, 1] or of bytes, and one output of its kind.

    Args:
        path: the file.
        optimised: let ONNX Runtime rewrite the graph; if not, what it says is computed, in float.

    Raises:
        UsageError: if there is no such file.
        HwnasError: if it is not ONNX, or not such a network.
    """

    def __init__(self, path: Path, optimised: bool = True) -> None:
        self.path = path
        self.runtime = f"ONNX Runtime {onnxruntime.__version__}"
        self._session = self._open(path, optimised)
        inputs = self._session.get_inputs()
        ok = len(inputs) == 1 and inputs[0].type in _TYPES and len(inputs[0].shape) == 4
        # A dimension that is left open has a name, or none, in place of a number.
        if not ok or (isinstance(inputs[0].shape[1], int) and inputs[0].shape[1] != 3):
            found = "; ".join(f"{i.name}: {i.type} {i.shape}" for i in inputs) or "none"
            raise HwnasError(
                f"{path} does not upscale RGB images: its inputs are {found}, expected one [1, 3, height, width] of "
                "float or uint8"
            )
        outputs = self._session.get_outputs()
        if len(outputs) != 1 or outputs[0].type != inputs[0].type:
            found = "; ".join(f"{o.name}: {o.type}" for o in outputs)
            raise HwnasError(
                f"{path} does not upscale RGB images: of {inputs[0].type} it makes {found}, expected one of its kind"
            )
        self.takes_bytes = _TYPES[inputs[0].type]
        height, width = (side if isinstance(side, int) else None for side in inputs[0].shape[2:])
        self.size = height, width
        self.properties = self._session.get_modelmeta().custom_metadata_map

    def _open(self, path: Path, optimised: bool) -> onnxruntime.InferenceSession:
        return open_session(path, optimised)

    def run(self, x: NDArray) -> NDArray:
        try:
            y: NDArray = self._session.run(None, {self._session.get_inputs()[0].name: x})[0]
        except Exception as error:
            raise HwnasError(f"{self.path} cannot upscale an input of {list(x.shape)}: {error}") from error
        return y
