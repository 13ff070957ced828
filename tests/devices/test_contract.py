"""All devices that can be had here keep the contract."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

from hwnas.devices import Device, Timing
from hwnas.devices.target import load_target
from hwnas.operators import FLOAT_BITS
from hwnas.progress import Silent
from hwnas.testing import DeviceContract


class TestOnnxRuntime(DeviceContract):
    target = load_target("cpu")


class TestOnnxRuntimeOfTwoThreads(DeviceContract):
    target = load_target("cpu").model_copy(update={"threads": 2})
    bits = FLOAT_BITS


@pytest.mark.skipif(find_spec("openvino") is None, reason="the extra 'openvino' is not installed")
class TestOpenVino(DeviceContract):
    target = load_target("openvino-cpu")


@pytest.mark.skipif(find_spec("ai_edge_litert") is None, reason="the extra 'npu' is not installed")
class TestLiteRt(DeviceContract):
    target = load_target("cpu").model_copy(
        update={"name": "litert", "runtime": "litert", "artifact": "tflite", "profile": "tflite"}
    )


@pytest.mark.skipif(find_spec("ethosu") is None, reason="the extra 'npu' is not installed")
class TestVela(DeviceContract):
    target = load_target("ethos-u85")

    def test_its_time_is_the_compilers(self, device: Device, network: Path) -> None:
        with device:
            (found,) = device.measure([network], Timing((24, 32), layers=True), Silent())
        assert found.method == "vendor-estimated" and len(found.samples_ms) == 1
        assert found.as_json()["p90_ms"] is None, "an estimate has no distribution"
        assert sum(layer.ms for layer in found.layers) == pytest.approx(found.p50)
