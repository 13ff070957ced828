"""TFLite files, through litert-torch and the AI Edge quantiser: phones, and Arm's neural processors.

The quantiser works on the float network and chooses steps of its own from calibration images: those learned in training
cannot be handed to it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hwnas.errors import HwnasError, UsageError, first_line, not_installed
from hwnas.exporters.artifact import Artifact
from hwnas.exporters.base import EXPORTERS, Exporter, ExportJob, ExportOptions
from hwnas.exporters.parity import FLOAT_TOLERANCE, REQUANTISED_TOLERANCE, Tolerance, require_source
from hwnas.exporters.silence import silenced
from hwnas.files import atomic_path
from hwnas.networks.npu import for_neural_processors

_PROPERTIES = "hwnas"
"""Name of the metadata that holds what a file says of itself, as JSON."""


class TfliteArtifact(Artifact):
    """A TFLite file in LiteRT, on the CPU; floats in 0 to 1 go in and come out, whatever integers it has."""

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise UsageError(f"there is no file {path}; check the path")
        try:
            import ai_edge_litert
            from ai_edge_litert.interpreter import Interpreter
        except ImportError as error:
            raise not_installed("LiteRT", "npu") from error
        self.path = path
        self.runtime = f"LiteRT {ai_edge_litert.__version__}"
        try:
            with silenced():
                self._interpreter = Interpreter(model_path=str(path), num_threads=1)
                self._interpreter.allocate_tensors()
            (self._input,), (self._output,) = (
                self._interpreter.get_input_details(),
                self._interpreter.get_output_details(),
            )
        except (RuntimeError, ValueError) as error:
            raise HwnasError(f"{path} is not a TFLite file, or is damaged ({first_line(error)})") from error
        if any(not _has_steps(details) for details in (self._input, self._output)):
            raise HwnasError(f"{path} is damaged: the steps of its images are no numbers above zero")
        shape = self._input["shape"]
        if len(shape) != 4 or shape[0] != 1 or shape[3] != 3:
            raise HwnasError(
                f"{path} does not upscale RGB images: it takes {list(shape)}, expected [1, height, width, 3]"
            )
        self.size = int(shape[1]), int(shape[2])
        self.takes_bytes = False
        self.properties = _properties(path)

    def run(self, x: NDArray) -> NDArray:
        if x.shape[2:] != self.size:
            raise HwnasError(f"{self.path} takes {self.size[0]}x{self.size[1]} only, not {x.shape[2]}x{x.shape[3]}")
        self._interpreter.set_tensor(self._input["index"], _quantised(x.transpose(0, 2, 3, 1), self._input))
        self._interpreter.invoke()
        y = self._interpreter.get_tensor(self._output["index"])
        return _real(y, self._output).transpose(0, 3, 1, 2)

    def operations(self) -> list[str]:
        """Names of the operations, in their order."""
        # There is no public way to list them.
        return [op["op_name"] for op in self._interpreter._get_ops_details() if op["op_name"] != "DELEGATE"]


def _has_steps(details: Mapping[str, Any]) -> bool:
    """Whether images are floats, or integers of a step."""
    step, _ = details["quantization"]
    integers = np.issubdtype(details["dtype"], np.integer)
    return details["dtype"] is np.float32 or (integers and math.isfinite(step) and step > 0)


def _properties(path: Path) -> dict[str, str]:
    """What a file that the interpreter has opened says of itself."""
    from ai_edge_litert.schema_py_generated import Model

    try:
        model = Model.GetRootAs(path.read_bytes())
        entries = (model.Metadata(i) for i in range(model.MetadataLength()))
        stored = [model.Buffers(entry.Buffer()) for entry in entries if entry.Name() == _PROPERTIES.encode()]
        properties = json.loads(stored[0].DataAsNumpy().tobytes()) if stored else {}
        return {str(key): str(value) for key, value in properties.items()}
    # The reader trusts the file: one that was changed by hand may lead it anywhere.
    except Exception as error:
        raise HwnasError(f"{path} is damaged: what it says of itself cannot be read ({first_line(error)})") from error


def _with_properties(content: bytes, properties: Mapping[str, str]) -> bytes:
    from ai_edge_litert.schema_py_generated import BufferT, MetadataT
    from ai_edge_litert.tools.flatbuffer_utils import convert_object_to_bytearray, read_model_from_bytearray

    model = read_model_from_bytearray(bytearray(content))
    buffer = BufferT()
    buffer.data = np.frombuffer(json.dumps(dict(properties)).encode(), np.uint8)
    model.buffers.append(buffer)
    entry = MetadataT(name=_PROPERTIES, buffer=len(model.buffers) - 1)
    model.metadata = [*(model.metadata or []), entry]
    return bytes(convert_object_to_bytearray(model))


def _quantised(x: NDArray, details: Mapping[str, Any]) -> NDArray:
    kind: type = details["dtype"]
    if kind is not np.float32:
        (step, zero), limits = details["quantization"], np.iinfo(kind)
        x = np.clip(np.rint(x / step) + zero, limits.min, limits.max)
    return x.astype(kind)


def _real(y: NDArray, details: Mapping[str, Any]) -> NDArray:
    step, zero = details["quantization"] if details["dtype"] is not np.float32 else (1.0, 0)
    real: NDArray = (y.astype(np.float32) - zero) * np.float32(step)
    return real


class TfliteExporter(Exporter):
    """Images in channels-last order, of one size; all operations in int8, sums included, or all in float."""

    name = "tflite"
    suffix = ".tflite"
    requantises = True

    def tolerance(self, quantised: bool, options: ExportOptions) -> Tolerance:
        return REQUANTISED_TOLERANCE if options.requantise else super().tolerance(quantised, options)

    def write(self, network: nn.Module, path: Path, job: ExportJob) -> None:
        for asked, option in (
            (job.options.takes_bytes, "--uint8-io"),
            (job.options.pack_int4, "--pack-int4"),
            (job.options.half, "--fp16"),
        ):
            if asked:
                raise UsageError(f"{option} cannot be had in TFLite files; they are of int8, or of 32-bit floats")
        if job.options.size is None:
            raise UsageError("TFLite files take images of one size; say which by --input-size 180x320")
        try:
            with silenced():
                import litert_torch
                from ai_edge_quantizer import quantizer, recipe
        except ImportError as error:
            raise not_installed("litert-torch", "npu") from error
        images = [sample.permute(0, 2, 3, 1).contiguous() for sample in job.samples]
        with TemporaryDirectory() as folder, silenced(), torch.no_grad():
            floats, integers = (Path(folder) / f"{name}.tflite" for name in ("floats", "integers"))
            converted = litert_torch.to_channel_last_io(for_neural_processors(network), args=[0], outputs=[0])
            litert_torch.convert(converted, (images[0],)).export(str(floats))
            if job.options.requantise:
                # What is quantised is held to as much as a float file; what comes of it, to less.
                require_source(network, TfliteArtifact(floats), job.samples, FLOAT_TOLERANCE)
                quantise = quantizer.Quantizer(str(floats))
                quantise.load_quantization_recipe(recipe.static_wi8_ai8())
                inputs = [{"args_0": image.numpy()} for image in _with_both_ends(images)]
                quantise.quantize(quantise.calibrate({"serving_default": inputs})).export_model(str(integers))
            content = (integers if job.options.requantise else floats).read_bytes()
            content = _with_properties(content, job.metadata)
        with atomic_path(path) as temporary:
            temporary.write_bytes(content)

    def open(self, path: Path) -> TfliteArtifact:
        return TfliteArtifact(path)


def _with_both_ends(images: Sequence[Tensor]) -> list[Tensor]:
    """The images, the first with a black and a white pixel: steps of the input are then exactly those of bytes."""
    first = images[0].clone()
    first[0, 0, 0], first[0, -1, -1] = 0.0, 1.0
    return [first, *images[1:]]


EXPORTERS.register(TfliteExporter.name)(TfliteExporter())
