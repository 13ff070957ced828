"""All devices that can be had here keep the contract."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

from hwnas.devices.target import load_target
from hwnas.operators import FLOAT_BITS
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
