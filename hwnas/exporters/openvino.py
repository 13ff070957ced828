"""OpenVINO's IR: an .xml with the graph and a .bin of the same name with the weights."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from hwnas.errors import HwnasError, UsageError, last_line, not_installed
from hwnas.exporters.artifact import Artifact
from hwnas.exporters.base import EXPORTERS, Exporter, ExportJob, ExportOptions
from hwnas.exporters.onnx import write_source
from hwnas.exporters.parity import Tolerance
from hwnas.exporters.silence import silenced
from hwnas.files import atomic_path

_SECTION = "hwnas"


def _openvino() -> Any:
    try:
        import openvino
    except ImportError as error:
        raise not_installed("OpenVINO", "openvino") from error
    return openvino


class OpenVinoArtifact(Artifact):
    """An IR on the CPU, computed in the precision that it states."""

    def __init__(self, path: Path, threads: int | None = None) -> None:
        if not path.is_file():
            raise UsageError(f"there is no file {path}; check the path")
        openvino = _openvino()
        self.path = path
        self.runtime = f"OpenVINO {openvino.__version__.split('-')[0]}"
        # Left to itself it computes float layers in bfloat16 where the processor has it.
        settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32"}
        if threads is not None:
            settings["INFERENCE_NUM_THREADS"] = threads
        try:
            # Of a file that it does not know it says what every reader that it has thinks.
            with silenced():
                model = openvino.Core().read_model(path)
            self._compiled = openvino.Core().compile_model(model, "CPU", settings)
            (port,), (_,) = model.inputs, model.outputs
            sides = [side.get_length() if side.is_static else None for side in port.partial_shape]
        # It raises RuntimeError for whatever is wrong with a file, and ValueError for other numbers of inputs.
        except (RuntimeError, ValueError) as error:
            raise HwnasError(f"{path} is not a network of OpenVINO's, or is damaged ({last_line(error)})") from error
        kind = port.element_type.to_string()
        if len(sides) != 4 or sides[1] != 3 or kind not in ("f32", "u8"):
            raise HwnasError(f"{path} does not upscale RGB images: it takes {kind} {port.partial_shape}")
        self.size = sides[2], sides[3]
        self.takes_bytes = kind == "u8"
        self.properties = _properties(model)

    def run(self, x: NDArray) -> NDArray:
        try:
            return np.asarray(self._compiled(x)[0])
        except RuntimeError as error:
            raise HwnasError(f"{self.path} cannot upscale an input of {list(x.shape)}: {last_line(error)}") from error


def _properties(model: Any) -> dict[str, str]:
    keys = ("scale", "overlap", "architecture", "hwnas")
    return {key: str(model.get_rt_info([_SECTION, key]).value) for key in keys if model.has_rt_info([_SECTION, key])}


class OpenVinoExporter(Exporter):
    """Through ONNX, which OpenVINO reads with its quantisers."""

    name = "openvino"
    suffix = ".xml"

    def tolerance(self, quantised: bool, options: ExportOptions) -> Tolerance:
        # Of a convolution that it adds to it leaves out the rounding, which networks of 4 bits feel: 0.08 measured.
        if quantised and not options.half:
            return Tolerance(mean=0.5, maximum=64.0, share=0.1, detail=0.01)
        return super().tolerance(quantised, options)

    def write(self, network: nn.Module, path: Path, job: ExportJob) -> None:
        openvino = _openvino()
        if job.options.pack_int4:
            raise UsageError("--pack-int4 is for ONNX files; OpenVINO stores weights as it computes them")
        with TemporaryDirectory() as folder:
            source = Path(folder) / "network.onnx"
            write_source(network, source, job)
            model = openvino.convert_model(source)
            for key, value in job.metadata.items():
                model.set_rt_info(value, [_SECTION, key])
            written = Path(folder) / "network.xml"
            openvino.save_model(model, written, compress_to_fp16=job.options.half)
            # The weights first: an .xml without its .bin would look complete.
            for suffix in (".bin", ".xml"):
                with atomic_path(path.with_suffix(suffix)) as temporary:
                    temporary.write_bytes(written.with_suffix(suffix).read_bytes())

    def files(self, path: Path) -> tuple[Path, ...]:
        return path, path.with_suffix(".bin")

    def open(self, path: Path) -> OpenVinoArtifact:
        return OpenVinoArtifact(path)


EXPORTERS.register(OpenVinoExporter.name)(OpenVinoExporter())
