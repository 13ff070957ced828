"""Run an exported network as its users will: ONNX Runtime on the CPU, images of bytes in and out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from hwnas.errors import HwnasError

_PROBE_SIDE = 8


def open_session(path: Path) -> onnxruntime.InferenceSession:
    """A CPU session of ONNX Runtime for ``path``, which reports its problems as exceptions and not on the terminal.

    Raises:
        HwnasError: if the file cannot be read or is not ONNX.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise HwnasError(f"cannot read {path}: {error.strerror}") from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # fatal only: whatever else it has to say, it also raises
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    # Its exceptions share no base but Exception itself.
    except Exception as error:
        raise HwnasError(f"{path} is not an ONNX file, or is damaged; export the network again ({error})") from error


class OnnxUpscaler:
    """An exported network as a function of images.

    Calling it takes uint8 [h, w, 3] and returns uint8 [h * scale, w * scale, 3], RGB.

    Args:
        path: a file with one float input [1, 3, height, width] in [0, 1] and one output of the same kind.

    Raises:
        HwnasError: if the file is not ONNX, or not such a network.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._session = open_session(path)
        self._input = self._checked_input()
        self.scale = self._find_scale()

    def __call__(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        x = image.astype(np.float32).transpose(2, 0, 1)[None] / np.float32(255)
        y = self._run(x)[0].transpose(1, 2, 0)
        # Half up, as in the evaluation; numpy's rint would round halves to even.
        return np.floor(np.clip(y, 0, 1) * 255 + 0.5).astype(np.uint8)

    def _checked_input(self) -> str:
        inputs = self._session.get_inputs()
        ok = len(inputs) == 1 and inputs[0].type == "tensor(float)" and len(inputs[0].shape) == 4
        if not ok or inputs[0].shape[1] not in (3, None) and not isinstance(inputs[0].shape[1], str):
            found = "; ".join(f"{i.name}: {i.type} {i.shape}" for i in inputs) or "none"
            raise HwnasError(
                f"{self.path} does not upscale RGB images: its inputs are {found}, expected one float "
                "[1, 3, height, width]"
            )
        name: str = inputs[0].name
        return name

    def _find_scale(self) -> int:
        """The scale in the file's properties or, in a file from elsewhere, that of a small image put through it."""
        stored = self._session.get_modelmeta().custom_metadata_map.get("scale")
        if stored is not None:
            if not stored.isdecimal() or int(stored) < 1:
                raise HwnasError(f"{self.path}: the property 'scale' is {stored!r}, expected a whole number")
            return int(stored)
        sides = [side if isinstance(side, int) else _PROBE_SIDE for side in self._session.get_inputs()[0].shape[2:]]
        shape = self._run(np.zeros((1, 3, *sides), np.float32)).shape
        scale = shape[2] // sides[0] if len(shape) == 4 else 0
        if scale < 1 or shape != (1, 3, sides[0] * scale, sides[1] * scale):
            raise HwnasError(
                f"{self.path} does not upscale RGB images: it makes {list(shape)} of [1, 3, {sides[0]}, {sides[1]}]"
            )
        return scale

    def _run(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        try:
            y: NDArray[np.float32] = self._session.run(None, {self._input: x})[0]
        except Exception as error:
            raise HwnasError(f"{self.path} cannot upscale an input of {list(x.shape)}: {error}") from error
        return y
