"""Contexts of Qualcomm's QNN: networks compiled for the HTP of a Snapdragon, in an ONNX file that holds nothing else.

ONNX Runtime's QNN provider compiles them without the device, and emulates what the HTP computes: its numbers, not its
time.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import onnx
import onnxruntime
from torch import nn

from hwnas.errors import HwnasError, UsageError, last_line, not_installed
from hwnas.exporters.artifact import Artifact
from hwnas.exporters.base import EXPORTERS, Exporter, ExportJob, ExportOptions
from hwnas.exporters.onnx import write_source
from hwnas.exporters.parity import HALF_TOLERANCE, Tolerance
from hwnas.exporters.profiles import Profile
from hwnas.exporters.runtime import OnnxArtifact
from hwnas.exporters.silence import silenced
from hwnas.files import atomic_path

PROVIDER = "QNNExecutionProvider"

_UNSUPPORTED = re.compile(r"\{ name: (.+?), type: \w+ \}")
"""A node in the list that the provider writes of what it leaves to the CPU."""


def _provider() -> tuple[Any, Any]:
    """The package of the provider, and its emulated device."""
    try:
        import onnxruntime_qnn
    except ImportError as error:
        raise not_installed("the QNN provider", "qnn") from error

    def devices() -> list[Any]:
        return [device for device in onnxruntime.get_ep_devices() if device.ep_name == PROVIDER]

    # It may be registered once in the life of a process.
    if not devices():
        onnxruntime.register_execution_provider_library(PROVIDER, onnxruntime_qnn.get_library_path())
    if not (found := devices()):
        raise HwnasError("the QNN provider finds no processor that it can emulate the HTP on; it needs 64-bit x86")
    return onnxruntime_qnn, found[0]


def _options(accelerator: str | None, settings: Mapping[str, str]) -> onnxruntime.SessionOptions:
    package, device = _provider()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors: that some of a network is unsupported is raised, what of it is only said
    # What the HTP cannot compute must not be computed elsewhere unnoticed.
    options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    for key, value in settings.items():
        options.add_session_config_entry(key, value)
    provider = {"backend_path": package.get_qnn_htp_path(), "htp_graph_finalization_optimization_mode": "3"}
    if accelerator is not None:
        provider["htp_arch"] = accelerator.removeprefix("htp-v")
    options.add_provider_for_devices([device], provider)
    return options


class QnnArtifact(OnnxArtifact):
    """A context in the HTP's emulator."""

    def __init__(self, path: Path) -> None:
        # What else is an ONNX file is told apart, and refused, as one.
        if path.is_file() and not _is_context(path):
            raise HwnasError(f"{path} holds no context of QNN's, or is damaged; export the network again")
        super().__init__(path)
        self.runtime = f"QNN's emulator of the HTP, onnxruntime-qnn {_provider()[0].__version__}"

    def _open(self, path: Path, optimised: bool) -> onnxruntime.InferenceSession:
        if not path.is_file():
            raise UsageError(f"there is no file {path}; check the path")
        try:
            with silenced():
                return onnxruntime.InferenceSession(path, _options(None, {}))
        except HwnasError:
            raise
        # Its exceptions share no base but Exception itself.
        except Exception as error:
            raise HwnasError(f"{path} holds no context of QNN's, or is damaged ({last_line(error)})") from error


def _is_context(path: Path) -> bool:
    try:
        return any(node.op_type == "EPContext" for node in onnx.load(path).graph.node)
    except Exception:
        return False


class QnnExporter(Exporter):
    """Through ONNX, which the provider compiles."""

    name = "qnn"
    suffix = ".qnn.onnx"

    def tolerance(self, quantised: bool, options: ExportOptions) -> Tolerance:
        # It rounds what it requantises its own way, which of a 4-bit map moves a value by a fifteenth of the range;
        # of floats it has sixteen bits.
        return Tolerance(mean=1.0, maximum=64.0, share=0.2, detail=0.03) if quantised else HALF_TOLERANCE

    def write(self, network: nn.Module, path: Path, job: ExportJob) -> None:
        if job.options.size is None:
            raise UsageError("contexts of QNN's take images of one size; say which by --input-size 180x320")
        if job.options.pack_int4:
            raise UsageError("--pack-int4 is for ONNX files; a context stores weights as the HTP computes them")
        with TemporaryDirectory() as folder:
            source, context = Path(folder) / "network.onnx", Path(folder) / "context.onnx"
            write_source(network, source, job)
            settings = {
                "ep.context_enable": "1",
                "ep.context_embed_mode": "1",
                "ep.context_file_path": str(context),
            }
            try:
                with silenced() as said:
                    onnxruntime.InferenceSession(source, _options(job.options.accelerator, settings))
                model = onnx.load(context)
            except HwnasError:
                raise
            except Exception as error:
                names = ", ".join(dict.fromkeys(_UNSUPPORTED.findall(said.text))) or last_line(error)
                raise HwnasError(f"the HTP cannot compute all of this network: {names}") from error
            onnx.helper.set_model_props(model, dict(job.metadata))
            with atomic_path(path) as temporary:
                onnx.save(model, temporary)

    def notes(self, path: Path, profile: Profile) -> tuple[str, ...]:
        return ("compiled for the HTP, and verified in its emulator: the numbers are the HTP's, its time is not",)

    def open(self, path: Path) -> Artifact:
        return QnnArtifact(path)


EXPORTERS.register(QnnExporter.name)(QnnExporter())
