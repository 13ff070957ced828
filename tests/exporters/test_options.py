"""Bytes, packed weights, halves and fixed sizes: the same numbers, told otherwise."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto
from torch import nn

from hwnas.errors import UsageError
from hwnas.exporters.base import ExportOptions
from hwnas.exporters.onnx import export_onnx, summarise
from hwnas.exporters.parity import FLOAT_TOLERANCE, check_parity
from hwnas.exporters.profiles import PROFILES
from hwnas.exporters.runtime import OnnxArtifact
from hwnas.operators.layers import FloatLayers
from hwnas.quantization.brevitas_layers import build_quantised, calibrate
from hwnas.spaces import named_architecture

torch.manual_seed(0)
BYTES = torch.randint(0, 256, (1, 3, 14, 18), dtype=torch.uint8).numpy()
IMAGE = BYTES / np.float32(255)


def _network(bits: int, bicubic: bool = True) -> nn.Module:
    torch.manual_seed(bits)
    architecture = named_architecture("espcn", 2, bits, bicubic)
    if bits == 32:
        return architecture.build(FloatLayers()).eval()
    network = build_quantised(architecture)
    calibrate(network, [torch.from_numpy(IMAGE)])
    return network


def _written(network: nn.Module, path: Path, profile: str = "onnxruntime-cpu", **options: object) -> OnnxArtifact:
    export_onnx(network, path, torch.from_numpy(IMAGE), {"scale": "2"}, PROFILES[profile], ExportOptions(**options))
    onnx.checker.check_model(onnx.load(path), full_check=True)
    return OnnxArtifact(path)


def _unoptimised(path: Path) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return session.run(None, {"lr": IMAGE})[0]


@pytest.mark.parametrize("bicubic", [False, True])
@pytest.mark.parametrize("bits", [4, 8, 32])
def test_bytes_are_the_rounded_floats(tmp_path: Path, bits: int, bicubic: bool) -> None:
    network = _network(bits, bicubic)
    floats = _written(network, tmp_path / "floats.onnx").run(IMAGE)
    found = _written(network, tmp_path / "bytes.onnx", takes_bytes=True).run(BYTES)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, np.rint(floats.clip(0, 1) * 255))


def test_bytes_reach_an_eight_bit_layer_as_they_are(tmp_path: Path) -> None:
    _written(_network(8, bicubic=False), tmp_path / "bytes.onnx", takes_bytes=True)
    graph = onnx.load(tmp_path / "bytes.onnx").graph
    readers = [node.op_type for node in graph.node if "lr" in node.input]
    assert readers == ["DequantizeLinear"]
    assert [node.op_type for node in graph.node if node.op_type == "QuantizeLinear"][0:1] == ["QuantizeLinear"]
    assert graph.input[0].type.tensor_type.elem_type == graph.output[0].type.tensor_type.elem_type == TensorProto.UINT8


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_packed_weights_are_the_same_weights(tmp_path: Path, bits: int) -> None:
    network = _network(bits)
    for name, pack in (("plain", False), ("packed", True)):
        _written(network, tmp_path / f"{name}.onnx", pack_int4=pack)
    # As the files say it, in float; what a runtime makes of that may round the other way.
    plain, packed = (_unoptimised(tmp_path / f"{name}.onnx") for name in ("plain", "packed"))
    np.testing.assert_array_equal(packed, plain)
    before, after = summarise(tmp_path / "plain.onnx"), summarise(tmp_path / "packed.onnx")
    weights = sum(p.numel() for name, p in network.named_parameters() if p.dim() == 4 and name.endswith("weight"))
    assert (before.opset, after.opset) == (17, 21)
    assert (before.packed, after.packed, after.packed_bytes) == (0, 3, weights // 2)
    assert before.size_bytes - after.size_bytes == pytest.approx(weights / 2, rel=0.05)


@pytest.mark.parametrize("bits", [8, 32])
def test_where_there_is_nothing_to_pack_it_is_said(tmp_path: Path, bits: int) -> None:
    with pytest.raises(UsageError, match="no layer has weights of 4 bits or fewer"):
        _written(_network(bits), tmp_path / "network.onnx", pack_int4=True)


def test_a_half_takes_half_the_space_and_a_thousandth_of_the_range(tmp_path: Path) -> None:
    network = _network(32)
    single = _written(network, tmp_path / "single.onnx").run(IMAGE)
    half = _written(network, tmp_path / "half.onnx", half=True).run(IMAGE)
    assert half.dtype == np.float32
    assert 0 < np.abs(half - single).max() < 1e-3
    sizes = [summarise(tmp_path / f"{name}.onnx").size_bytes for name in ("half", "single")]
    assert sizes[0] < 0.6 * sizes[1]


def test_bytes_and_halves_go_together(tmp_path: Path) -> None:
    network = _network(32)
    floats = _written(network, tmp_path / "floats.onnx").run(IMAGE)
    found = _written(network, tmp_path / "bytes.onnx", half=True, takes_bytes=True).run(BYTES)
    assert np.abs(found - floats.clip(0, 1) * 255).max() < 1.5


def test_bytes_of_a_float_network_pass_though_some_round_the_other_way(tmp_path: Path) -> None:
    torch.manual_seed(1)
    network = named_architecture("espcn", 2, 32, True).build(FloatLayers()).eval()
    artifact = _written(network, tmp_path / "bytes.onnx", takes_bytes=True)
    crops = [torch.randint(0, 256, (1, 3, side, side)) / 255 for side in (48, 64, 80)]
    report = check_parity(network, artifact, crops, FLOAT_TOLERANCE)
    assert report.maximum <= 1 and report.mean < 1e-4


@pytest.mark.parametrize("profile", ["onnxruntime-cpu", "tensorrt"])
def test_a_fixed_size_is_that_of_input_and_output(tmp_path: Path, profile: str) -> None:
    torch.manual_seed(0)
    network = build_quantised(named_architecture("espcn", 2, 4), placement=PROFILES[profile].placement)
    calibrate(network, [torch.from_numpy(IMAGE)])
    open_ = _written(network, tmp_path / "open.onnx", profile).run(IMAGE)
    artifact = _written(network, tmp_path / "fixed.onnx", profile, size=(14, 18))
    assert artifact.size == (14, 18)
    np.testing.assert_array_equal(artifact.run(IMAGE), open_)
    graph = onnx.load(tmp_path / "fixed.onnx").graph
    shapes = [[d.dim_value for d in value.type.tensor_type.shape.dim] for value in (graph.input[0], graph.output[0])]
    assert shapes == [[1, 3, 14, 18], [1, 3, 28, 36]]
