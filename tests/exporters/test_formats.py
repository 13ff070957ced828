"""Every format against the contract."""

from typing import ClassVar

import pytest

from hwnas.exporters import EXPORTERS
from hwnas.exporters.base import Exporter
from hwnas.testing import ExporterContract


class TestOnnx(ExporterContract):
    exporter: ClassVar[Exporter] = EXPORTERS["onnx"]


class TestOnnxForTensorRT(ExporterContract):
    exporter: ClassVar[Exporter] = EXPORTERS["onnx"]
    profile = "tensorrt"


class TestOnnxOfOneSize(ExporterContract):
    exporter: ClassVar[Exporter] = EXPORTERS["onnx"]
    profile = "qnn"
    any_size = False


class TestOpenVino(ExporterContract):
    exporter: ClassVar[Exporter] = EXPORTERS["openvino"]
    profile = "openvino"

    @pytest.fixture(autouse=True)
    def _installed(self) -> None:
        pytest.importorskip("openvino", reason="the extra 'openvino' is not installed")
