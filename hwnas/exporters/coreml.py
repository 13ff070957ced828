"""Core ML packages, for Apple's devices: written anywhere, run on macOS only.

The quantisers of training cannot be handed over: weights are rounded to 8 bits once more, and computed with in 16-bit
floats. Running a package has not been executed: see docs/verification.md.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from hwnas.errors import HwnasError, UsageError, last_line
from hwnas.exporters.artifact import Artifact
from hwnas.exporters.base import EXPORTERS, Exporter, ExportJob, ExportOptions
from hwnas.exporters.onnx import INPUT_NAME, OUTPUT_NAME
from hwnas.exporters.parity import REQUANTISED_TOLERANCE, Tolerance
from hwnas.exporters.profiles import Profile
from hwnas.exporters.silence import silenced
from hwnas.networks.npu import for_neural_processors


def _coremltools() -> Any:
    try:
        with silenced():
            import coremltools
    except ImportError as error:
        # No extra of ours: what it needs contradicts what the extra npu needs.
        raise HwnasError(
            "coremltools is not installed; pip install coremltools, in an environment without the extra npu"
        ) from error
    return coremltools


class CoreMlArtifact(Artifact):
    """A package in Core ML, on a Mac."""

    def __init__(self, path: Path) -> None:
        if not path.exists():
            raise UsageError(f"there is no file {path}; check the path")
        coremltools = _coremltools()
        self.path = path
        self.runtime = f"Core ML, coremltools {coremltools.__version__}"
        try:
            with silenced():
                self._model = coremltools.models.MLModel(str(path), skip_model_load=not _is_mac())
        # It raises bare exceptions, and those of protobuf.
        except Exception as error:
            raise HwnasError(f"{path} is not a package of Core ML's, or is damaged ({last_line(error)})") from error
        inputs = self._model.get_spec().description.input
        shape = list(inputs[0].type.multiArrayType.shape) if len(inputs) == 1 else []
        if len(shape) != 4 or shape[1] != 3:
            raise HwnasError(f"{path} does not upscale RGB images: it takes {shape}, expected [1, 3, height, width]")
        self.size = int(shape[2]), int(shape[3])
        self.takes_bytes = False
        self.properties: Mapping[str, str] = dict(self._model.user_defined_metadata)

    def run(self, x: NDArray) -> NDArray:
        if not _is_mac():
            raise HwnasError(f"{self.path} runs on macOS only")
        return np.asarray(self._model.predict({INPUT_NAME: x})[OUTPUT_NAME])


def _is_mac() -> bool:
    return sys.platform == "darwin"


class CoreMlExporter(Exporter):
    """Images of one size; weights of quantised networks in 8 bits, computed in 16-bit floats."""

    name = "coreml"
    suffix = ".mlpackage"
    requantises: ClassVar[bool] = True
    writes_folder: ClassVar[bool] = True

    def runs_here(self) -> bool:
        return _is_mac()

    def tolerance(self, quantised: bool, options: ExportOptions) -> Tolerance:
        return REQUANTISED_TOLERANCE if options.requantise else super().tolerance(quantised, options)

    def write(self, network: nn.Module, path: Path, job: ExportJob) -> None:
        options = job.options
        for asked, option in ((options.takes_bytes, "--uint8-io"), (options.pack_int4, "--pack-int4")):
            if asked:
                raise UsageError(f"{option} cannot be had in Core ML packages; images are floats, and weights int8")
        if options.size is None:
            raise UsageError("Core ML packages take images of one size; say which by --input-size 180x320")
        coremltools = _coremltools()
        precision = "FLOAT16" if options.half or options.requantise else "FLOAT32"
        try:
            with TemporaryDirectory() as folder, silenced(), torch.no_grad():
                # It knows no other order of weights than the usual one.
                ordered = for_neural_processors(network).to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
                program = torch.export.export(ordered, (job.samples[0].contiguous(),))
                model = coremltools.convert(
                    program.run_decompositions({}),
                    inputs=[coremltools.TensorType(name=INPUT_NAME, shape=job.samples[0].shape)],
                    outputs=[coremltools.TensorType(name=OUTPUT_NAME, dtype=np.float32)],
                    minimum_deployment_target=coremltools.target.iOS16,
                    compute_precision=getattr(coremltools.precision, precision),
                    skip_model_load=True,
                )
                if options.requantise:
                    model = _with_integer_weights(coremltools, model)
                model.user_defined_metadata.update(job.metadata)
                written = Path(folder) / "network.mlpackage"
                model.save(str(written))
                shutil.rmtree(path, ignore_errors=True)
                shutil.move(written, path)
        except HwnasError:
            raise
        # The converter raises whatever its passes do.
        except Exception as error:
            raise HwnasError(f"Core ML's converter cannot write this network: {last_line(error)}") from error

    def files(self, path: Path) -> tuple[Path, ...]:
        return tuple(sorted(file for file in path.rglob("*") if file.is_file()))

    def notes(self, path: Path, profile: Profile) -> tuple[str, ...]:
        unverified = ("NOT verified: Core ML runs on macOS only; export it there to have it run",)
        return ("integer weights are computed with in 16-bit floats", *(() if self.runs_here() else unverified))

    def open(self, path: Path) -> CoreMlArtifact:
        return CoreMlArtifact(path)


def _with_integer_weights(coremltools: Any, model: Any) -> Any:
    optimize = coremltools.optimize.coreml
    rounding = optimize.OpLinearQuantizerConfig(mode="linear_symmetric", dtype="int8", weight_threshold=0)
    return optimize.linear_quantize_weights(model, config=optimize.OptimizationConfig(global_config=rounding))


EXPORTERS.register(CoreMlExporter.name)(CoreMlExporter())
