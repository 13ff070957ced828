"""Exporters: networks as files of a runtime."""

import hwnas.exporters.coreml
import hwnas.exporters.onnx
import hwnas.exporters.openvino
import hwnas.exporters.qnn
import hwnas.exporters.tensorrt
import hwnas.exporters.tflite  # noqa: F401  all register their formats
from hwnas.exporters.base import EXPORTERS, Exporter, ExportOptions, exporter_of

__all__ = ["EXPORTERS", "ExportOptions", "Exporter", "exporter_of"]
