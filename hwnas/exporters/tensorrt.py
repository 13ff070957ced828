"""TensorRT engines, through NVIDIA's own Python package; built on the GPU that runs them.

Nothing of this file has been executed against a TensorRT: see docs/verification.md. What can be checked without one,
the graph that it is given, `hwnas.exporters.lint` checks.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from hwnas.data.div2k import cache_folder
from hwnas.errors import HwnasError, UsageError
from hwnas.exporters.artifact import Artifact
from hwnas.exporters.base import EXPORTERS, Exporter, ExportJob, ExportOptions
from hwnas.exporters.onnx import INPUT_NAME, OUTPUT_NAME, write_source
from hwnas.exporters.parity import HALF_TOLERANCE, Tolerance
from hwnas.files import atomic_path

SMALLEST, USUAL, LARGEST = (16, 16), (180, 320), (1080, 1920)
"""Sizes of the images that an engine for any size takes, and the one it is fastest at."""


def _tensorrt() -> Any:
    try:
        import tensorrt
    except ImportError as error:
        raise HwnasError(
            "TensorRT is not installed here; write the graph by --format onnx --input-size 180x320, and build the "
            "engine on the device: trtexec --onnx=model.onnx --stronglyTyped --saveEngine=model.engine"
        ) from error
    # What the package index calls tensorrt may be a stub.
    if not hasattr(tensorrt, "Builder"):
        raise HwnasError("the tensorrt that is installed is a stub; install it from NVIDIA")
    return tensorrt


class TensorRTArtifact(Artifact):
    """An engine on the GPU."""

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise UsageError(f"there is no file {path}; check the path")
        trt = _tensorrt()
        if not torch.cuda.is_available():
            raise HwnasError("torch finds no GPU to run an engine on; install its build for CUDA, on the device")
        self.path = path
        self.runtime = f"TensorRT {trt.__version__}"
        self._engine = trt.Runtime(trt.Logger(trt.Logger.ERROR)).deserialize_cuda_engine(path.read_bytes())
        if self._engine is None:
            raise HwnasError(f"{path} is no engine of this TensorRT and GPU, or is damaged; export it again here")
        names = [self._engine.get_tensor_name(i) for i in range(self._engine.num_io_tensors)]
        if sorted(names) != [INPUT_NAME, OUTPUT_NAME]:
            raise HwnasError(f"{path} does not upscale RGB images: its inputs and outputs are {', '.join(names)}")
        self._context = self._engine.create_execution_context()
        if self._context is None:
            raise HwnasError(f"{path} needs more memory than this GPU has; export it for smaller images (--input-size)")
        self.takes_bytes = self._engine.get_tensor_dtype(INPUT_NAME) == trt.uint8
        height, width = (side if side > 0 else None for side in tuple(self._engine.get_tensor_shape(INPUT_NAME))[2:])
        self.size = height, width
        self.properties = _properties(self._engine.name)

    def run(self, x: NDArray) -> NDArray:
        inputs = torch.from_numpy(np.ascontiguousarray(x)).cuda()
        if not self._context.set_input_shape(INPUT_NAME, tuple(x.shape)):
            raise HwnasError(f"{self.path} cannot upscale an input of {list(x.shape)}; export it for that size")
        shape = tuple(self._context.get_tensor_shape(OUTPUT_NAME))
        outputs = torch.empty(shape, dtype=inputs.dtype, device=inputs.device)
        self._context.set_tensor_address(INPUT_NAME, inputs.data_ptr())
        self._context.set_tensor_address(OUTPUT_NAME, outputs.data_ptr())
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        if not self._context.execute_async_v3(stream.cuda_stream):
            raise HwnasError(f"{self.path} failed on an input of {list(x.shape)}")
        stream.synchronize()
        return outputs.cpu().numpy()


def _properties(name: str) -> Mapping[str, str]:
    """What an engine says of itself; nothing, of one from elsewhere."""
    try:
        stored = json.loads(name)
    except (ValueError, RecursionError):
        stored = None
    return {str(key): str(value) for key, value in stored.items()} if isinstance(stored, dict) else {}


class TensorRTExporter(Exporter):
    """Explicit quantisation, strongly typed: the precision of every layer is the one that the graph states."""

    name = "tensorrt"
    suffix = ".engine"

    def tolerance(self, quantised: bool, options: ExportOptions) -> Tolerance:
        # Its float convolutions take TensorFloat-32, of ten bits of mantissa.
        return super().tolerance(quantised, options) if quantised else HALF_TOLERANCE

    def write(self, network: nn.Module, path: Path, job: ExportJob) -> None:
        trt = _tensorrt()
        with TemporaryDirectory() as folder:
            source = Path(folder) / "network.onnx"
            write_source(network, source, job)
            engine = _build(trt, source, job)
        with atomic_path(path) as temporary:
            temporary.write_bytes(engine)

    def open(self, path: Path) -> TensorRTArtifact:
        return TensorRTArtifact(path)


def _build(trt: Any, source: Path, job: ExportJob) -> bytes:
    builder = trt.Builder(trt.Logger(trt.Logger.ERROR))
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, builder.logger)
    if not parser.parse_from_file(str(source)):
        raise HwnasError(f"TensorRT cannot read the network: {parser.get_error(0)}")
    # Engines have a name, and no other place for what a file says of itself.
    network.name = json.dumps(dict(job.metadata))
    config = builder.create_builder_config()
    if job.options.size is None:
        shapes = builder.create_optimization_profile()
        shapes.set_shape(INPUT_NAME, *((1, 3, *size) for size in (SMALLEST, USUAL, LARGEST)))
        config.add_optimization_profile(shapes)
    timings = cache_folder() / "tensorrt.timing"
    cache = config.create_timing_cache(timings.read_bytes() if timings.is_file() else b"")
    # Timings are of one GPU and release: those of others, and damaged ones, are refused.
    if cache is None or not config.set_timing_cache(cache, ignore_mismatch=False):
        config.set_timing_cache(config.create_timing_cache(b""), ignore_mismatch=False)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise HwnasError("TensorRT could not build the engine; look at what it says with trtexec --verbose")
    with atomic_path(timings) as temporary:
        temporary.write_bytes(bytes(config.get_timing_cache().serialize()))
    return bytes(engine)


EXPORTERS.register(TensorRTExporter.name)(TensorRTExporter())
