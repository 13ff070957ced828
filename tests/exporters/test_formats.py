"""Every format against the contract."""

import random
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hwnas.architecture import Architecture
from hwnas.errors import HwnasError, UsageError
from hwnas.exporters import EXPORTERS
from hwnas.exporters.base import Exporter, ExportOptions
from hwnas.exporters.parity import check_parity
from hwnas.exporters.profiles import PROFILES
from hwnas.networks.adadm import AdaDM, freeze_normalisation
from hwnas.quantization.brevitas_layers import build_quantised, calibrate
from hwnas.spaces import SPACES, SpaceOptions, named_architecture
from hwnas.testing import ExporterContract


class TestOnnx(ExporterContract):
    exporter: ClassVar[Exporter] = EXPORTERS["onnx"]


class TestOnnxForTensorRT(ExporterContract):
    exporter: ClassVar[Exporter] = EXPORTERS["onnx"]
    profile = "tensorrt"


class TestOpenVino(ExporterContract):
    exporter: ClassVar[Exporter] = EXPORTERS["openvino"]
    profile = "openvino"

    @pytest.fixture(autouse=True)
    def _installed(self) -> None:
        pytest.importorskip("openvino", reason="the extra 'openvino' is not installed")


class TestQnn(ExporterContract):
    exporter: ClassVar[Exporter] = EXPORTERS["qnn"]
    profile = "qnn"
    any_size = False

    @pytest.fixture(autouse=True)
    def _installed(self) -> None:
        pytest.importorskip("onnxruntime_qnn", reason="the extra 'qnn' is not installed")

    def test_any_size_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="--input-size"):
            self.write(self.network(32), tmp_path / "network.qnn.onnx", ExportOptions())

    def test_a_frozen_adadm_is_computed(self, tmp_path: Path) -> None:
        """The emulator takes the step of a QuantizeLinear for that of its DequantizeLinear."""
        torch.manual_seed(0)
        options = SpaceOptions(channels=12, cells=1, scale=2, residual="adadm", bicubic=False, bits=(8,))
        architecture = SPACES["quantnas"](options).sample(random.Random(0))
        network = build_quantised(architecture, placement=PROFILES["qnn"].placement)
        for module in network.modules():
            if isinstance(module, AdaDM):
                torch.nn.init.constant_(module.w, 3.0)
        freeze_normalisation(network)
        calibrate(network, self.images())
        path = self.write(network, tmp_path / "network.qnn.onnx", self.options())
        (image,) = self.images()
        with torch.no_grad():
            expected = network(image).numpy()
        assert np.corrcoef(self.exporter.open(path).run(image.numpy()).ravel(), expected.ravel())[0, 1] > 0.99

    @pytest.mark.parametrize("bits", [8, 4])
    def test_srresnet_is_compiled(self, tmp_path: Path, bits: int) -> None:
        """It rectifies what it has shuffled."""
        torch.manual_seed(0)
        architecture = named_architecture("srresnet", 2, bits, True)
        wiring = architecture.wiring.model_copy(update={"blocks": 1})
        operators = {slot.name: architecture.operators[slot.name] for slot in wiring.slots}
        network = build_quantised(Architecture(wiring=wiring, operators=operators), placement=PROFILES["qnn"].placement)
        calibrate(network, self.images())
        path = self.write(network, tmp_path / "network.qnn.onnx", self.options())
        assert check_parity(
            network, self.exporter.open(path), self.images(), self.exporter.tolerance(True, self.options())
        ).passed

    def test_what_the_htp_cannot_compute_is_named(self, tmp_path: Path) -> None:
        class CountsPixels(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                return nn.functional.interpolate(x, scale_factor=2.0) + torch.nonzero(x).float().sum()

        with pytest.raises(HwnasError, match="the HTP cannot compute all of this network: .*NonZero"):
            self.write(CountsPixels(), tmp_path / "network.qnn.onnx", self.options())


class TestTflite(ExporterContract):
    exporter: ClassVar[Exporter] = EXPORTERS["tflite"]
    profile = "tflite"
    any_size = False
    takes_bytes = False

    @pytest.fixture(autouse=True)
    def _installed(self) -> None:
        for module in ("litert_torch", "ai_edge_quantizer", "ai_edge_litert"):
            pytest.importorskip(module, reason="the extra 'npu' is not installed")

    def test_steps_of_the_input_are_those_of_bytes(self, tmp_path: Path) -> None:
        path = self.write(self.network(32), tmp_path / "network.tflite", self.options(requantise=True))
        artifact = self.exporter.open(path)
        step, zero = artifact._input["quantization"]  # type: ignore[attr-defined]
        assert (step, zero) == (pytest.approx(1 / 255, rel=1e-6), -128)

    def test_an_image_of_another_size_is_refused(self, tmp_path: Path) -> None:
        path = self.write(self.network(32), tmp_path / "network.tflite", self.options())
        with pytest.raises(HwnasError, match="takes 24x20 only, not 8x8"):
            self.exporter.open(path).run(np.zeros((1, 3, 8, 8), np.float32))

    def test_any_size_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="--input-size"):
            self.write(self.network(32), tmp_path / "network.tflite", ExportOptions())
