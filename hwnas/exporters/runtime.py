"""Run an exported network as its users will: ONNX Runtime on the CPU, images of bytes in and out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from hwnas.errors import HwnasError, UsageError

_PROBE_SIDE = 8

UNKNOWN_REACH = 64
"""Context for tiles of a file that does not say how far its network looks, in low-resolution pixels."""


def open_session(path: Path) -> onnxruntime.InferenceSession:
    """A CPU session of ONNX Runtime, which reports its problems as exceptions and not on the terminal.

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
    # x86 processors without VNNI add pairs of 8-bit products in 16 bits, which saturates: outputs move by
    # whole grey levels. On those, and only on those, this converts the weights to a type that does not.
    options.add_session_config_entry("session.x64quantprecision", "1")
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    # Its exceptions share no base but Exception itself.
    except Exception as error:
        raise HwnasError(f"{path} is not an ONNX file, or is damaged; export the network again ({error})") from error


def run_network(session: onnxruntime.InferenceSession, x: NDArray[np.float32], path: Path) -> NDArray[np.float32]:
    """The output of a session with one input and one output; ``path`` is for the message.

    Raises:
        HwnasError: if the network does not take ``x``, for one exported at a fixed size.
    """
    try:
        y: NDArray[np.float32] = session.run(None, {session.get_inputs()[0].name: x})[0]
    except Exception as error:
        raise HwnasError(f"{path} cannot upscale an input of {list(x.shape)}: {error}") from error
    return y


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
        self._check_input()
        self.scale = self._find_scale()
        self.overlap = self._find_overlap()

    def __call__(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        taken = self._session.get_inputs()[0].shape[2:]
        if any(isinstance(own, int) and own != side for own, side in zip(taken, image.shape, strict=False)):
            raise HwnasError(
                f"{self.path} takes inputs of {taken[1]}x{taken[0]} only, not of {image.shape[1]}x{image.shape[0]}; "
                "export the network again for any size"
            )
        x = image.astype(np.float32).transpose(2, 0, 1)[None] / np.float32(255)
        y = run_network(self._session, x, self.path)
        height, width = (side * self.scale for side in image.shape[:2])
        if y.shape != (1, 3, height, width):
            raise HwnasError(
                f"{self.path} makes {list(y.shape)} of {list(x.shape)}, which is not the scale {self.scale} that it "
                "states; export it again"
            )
        y = y[0].transpose(1, 2, 0)
        # Half up, as in the evaluation; numpy's rint would round halves to even.
        upscaled: NDArray[np.uint8] = np.floor(np.clip(y, 0, 1) * 255 + 0.5).astype(np.uint8)
        return upscaled

    def _check_input(self) -> None:
        inputs = self._session.get_inputs()
        ok = len(inputs) == 1 and inputs[0].type == "tensor(float)" and len(inputs[0].shape) == 4
        # A dimension that is left open has a name, or none, in place of a number.
        if not ok or (isinstance(inputs[0].shape[1], int) and inputs[0].shape[1] != 3):
            found = "; ".join(f"{i.name}: {i.type} {i.shape}" for i in inputs) or "none"
            raise HwnasError(
                f"{self.path} does not upscale RGB images: its inputs are {found}, expected one float "
                "[1, 3, height, width]"
            )

    def _find_overlap(self) -> int | None:
        """Context that tiles need; None if the network looks at the whole image, so that there can be no tiles."""
        stored = self._session.get_modelmeta().custom_metadata_map.get("overlap", str(UNKNOWN_REACH))
        return int(stored) if _is_count(stored) else None

    def _find_scale(self) -> int:
        """The scale in the file's properties; in a file from elsewhere, that of a small image put through."""
        stored = self._session.get_modelmeta().custom_metadata_map.get("scale")
        if stored is not None:
            if not _is_count(stored) or int(stored) < 1:
                raise HwnasError(f"{self.path}: the property 'scale' is {stored!r}, expected a whole number")
            return int(stored)
        sides = [side if isinstance(side, int) else _PROBE_SIDE for side in self._session.get_inputs()[0].shape[2:]]
        shape = run_network(self._session, np.zeros((1, 3, *sides), np.float32), self.path).shape
        scale = shape[2] // sides[0] if len(shape) == 4 else 0
        if scale < 2 or shape != (1, 3, sides[0] * scale, sides[1] * scale):
            raise HwnasError(
                f"{self.path} does not upscale RGB images: it makes {list(shape)} of [1, 3, {sides[0]}, {sides[1]}]"
            )
        return scale


def _is_count(text: str) -> bool:
    # Not more digits than any overlap has: Python refuses to convert thousands of them.
    return text.isdecimal() and len(text) <= 6
