"""Every rule on graphs that keep it, as exported, and on one that breaks it, in the node that does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from torch import nn

from hwnas.errors import HwnasError, UsageError
from hwnas.exporters.base import ExportOptions
from hwnas.exporters.lint import RULES, check_model
from hwnas.exporters.onnx import export_onnx
from hwnas.exporters.profiles import PROFILES
from hwnas.quantization.brevitas_layers import build_quantised, calibrate
from hwnas.quantization.placement import Placement
from hwnas.spaces import named_architecture
from tests.exporters.damage import BROKEN, first, float_map, initialiser, weights

SIZE = (9, 9)


@pytest.fixture(scope="module")
def network() -> nn.Module:
    """Fits every runtime."""
    torch.manual_seed(0)
    network = build_quantised(named_architecture("espcn", 2, 8), placement=Placement(rectified_bits=7))
    calibrate(network, [torch.rand(1, 3, 12, 12)])
    return network


@pytest.fixture
def exported(network: nn.Module, tmp_path: Path) -> Callable[[str], Path]:
    def export(profile: str) -> Path:
        path = tmp_path / f"{profile}.onnx"
        options = ExportOptions(size=SIZE if profile == "qnn" else None)
        export_onnx(network, path, torch.rand(1, 3, *SIZE), {"scale": "2"}, PROFILES[profile], options)
        return path

    return export


PROFILE_OF = {"tensorrt": "tensorrt", "cpu": "onnxruntime-cpu", "qnn": "qnn"}


@pytest.mark.parametrize("profile", ["tensorrt", "onnxruntime-cpu", "openvino", "qnn"])
def test_what_is_exported_keeps_the_rules(exported: Callable[[str], Path], profile: str) -> None:
    findings = check_model(exported(profile), PROFILES[profile])
    assert [finding for finding in findings if finding.level == "error"] == []


def test_a_graph_of_open_sizes_breaks_one_rule_of_qnn(exported: Callable[[str], Path]) -> None:
    path = exported("qnn")
    model = onnx.load(path)
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "height"
    onnx.save(model, path)
    (finding,) = check_model(path, PROFILES["qnn"])
    assert (finding.level, finding.rule, finding.node) == ("error", "static-shapes", "lr")


@pytest.mark.parametrize("rule", BROKEN)
def test_a_broken_rule_is_found_in_its_node(exported: Callable[[str], Path], rule: str) -> None:
    runtimes, damage = BROKEN[rule]
    for runtime in runtimes:
        path = exported(PROFILE_OF[runtime])
        model = onnx.load(path)
        node = damage(model)
        onnx.save(model, path)
        errors = [f for f in check_model(path, PROFILES[PROFILE_OF[runtime]]) if f.level == "error"]
        # What was inlined is numbered.
        assert any(f.rule == rule.split(",")[0] and f.node.startswith(node) for f in errors)


def test_constants_may_be_nodes_and_axes_be_counted_from_the_end(exported: Callable[[str], Path]) -> None:
    path = exported("tensorrt")
    model = onnx.load(path)
    for node in model.graph.node:
        if node.op_type == "DequantizeLinear":
            for attribute in node.attribute:
                if attribute.name == "axis" and len(initialiser(model, node.input[0]).dims) == 4:
                    attribute.i -= 4
    tensors = list(model.graph.initializer)
    del model.graph.initializer[:]
    for tensor in tensors:
        model.graph.node.insert(0, helper.make_node("Constant", [], [tensor.name], value=tensor))
    onnx.save(model, path)
    assert [f for f in check_model(path, PROFILES["tensorrt"]) if f.level == "error"] == []


@pytest.mark.parametrize(("kind", "errors"), [(onnx.TensorProto.INT8, 0), (onnx.TensorProto.UINT8, 2)])
def test_the_type_of_a_map_may_be_stated_without_a_zero_point(
    exported: Callable[[str], Path], kind: int, errors: int
) -> None:
    path = exported("tensorrt")
    model = onnx.load(path)
    model.opset_import[0].version = 21
    node = first(model, "QuantizeLinear", 1)
    reader = next(n for n in model.graph.node if n.input[0] == node.output[0])
    for changed in (node, reader):
        del changed.input[2]
    node.attribute.append(helper.make_attribute("output_dtype", kind))
    onnx.save(model, path)
    found = [f.node for f in check_model(path, PROFILES["tensorrt"]) if f.level == "error"]
    assert found == [node.name, reader.name][:errors]


def test_weights_may_be_quantised_by_the_file_itself(exported: Callable[[str], Path]) -> None:
    """As NVIDIA's own tools write them: float weights, QuantizeLinear along axis 0, DequantizeLinear."""
    path = exported("tensorrt")
    model = onnx.load(path)
    node = weights(model)
    integers, step = (numpy_helper.to_array(initialiser(model, node.input[i])) for i in (0, 1))
    real = numpy_helper.from_array(integers.astype(np.float32) * step.reshape(-1, 1, 1, 1), "real")
    model.graph.initializer.append(real)
    model.graph.node.insert(0, helper.make_node("QuantizeLinear", ["real", *node.input[1:]], ["made"], axis=0))
    node.input[0] = "made"
    onnx.save(model, path)
    assert [f for f in check_model(path, PROFILES["tensorrt"]) if f.level == "error"] == []


def test_operations_of_others_are_left_alone(exported: Callable[[str], Path]) -> None:
    path = exported("tensorrt")
    model = onnx.load(path)
    model.opset_import.append(helper.make_opsetid("com.example", 1))
    model.graph.node.append(helper.make_node("DequantizeLinear", ["sr"], ["other"], domain="com.example"))
    onnx.save(model, path)
    assert [f for f in check_model(path, PROFILES["tensorrt"]) if f.level == "error"] == []


def test_a_float_map_before_integer_weights_costs_time_only(exported: Callable[[str], Path]) -> None:
    path = exported("onnxruntime-cpu")
    model = onnx.load(path)
    node = float_map(model)
    onnx.save(model, path)
    (finding,) = [f for f in check_model(path, PROFILES["onnxruntime-cpu"]) if f.rule == "both-operands-quantised"]
    assert (finding.level, finding.node) == ("advice", node)


def test_a_graph_for_a_cpu_is_not_for_tensorrt(exported: Callable[[str], Path]) -> None:
    findings = check_model(exported("onnxruntime-cpu"), PROFILES["tensorrt"])
    assert {finding.rule for finding in findings} >= {"symmetric", "float-biases"}


def test_a_graph_for_tensorrt_gets_advice_on_a_cpu(exported: Callable[[str], Path]) -> None:
    findings = check_model(exported("tensorrt"), PROFILES["onnxruntime-cpu"])
    assert {finding.rule for finding in findings} == {"unsigned-maps"}
    assert {finding.level for finding in findings} == {"advice"}


def test_widths_that_tensor_cores_pad_are_named(exported: Callable[[str], Path]) -> None:
    """ESPCN at x2 has 64, 32 and 12 channels."""
    findings = check_model(exported("tensorrt"), PROFILES["tensorrt"])
    assert [finding.rule for finding in findings] == ["tensor-core-widths"]
    assert findings[0].message.startswith("12 channels")


def test_eight_bit_weights_get_advice_on_a_cpu(tmp_path: Path) -> None:
    network = build_quantised(named_architecture("espcn", 2, 8), placement=Placement(weight_bits=8))
    calibrate(network, [torch.rand(1, 3, 12, 12)])
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "weight_quant" in name:
                parameter.mul_(0.1)
    export_onnx(network, tmp_path / "n.onnx", torch.rand(1, 3, 9, 9), {}, PROFILES["onnxruntime-cpu"])
    findings = check_model(tmp_path / "n.onnx", PROFILES["onnxruntime-cpu"])
    assert {finding.rule for finding in findings} == {"narrow-weights"}


def test_every_profile_has_rules() -> None:
    assert {PROFILES[name].rules for name in PROFILES} == RULES.keys()


@pytest.mark.parametrize("content", [b"", b"no onnx at all", b"\x08\x07\x12\x05hello"])
def test_another_file_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "other.onnx").write_bytes(content)
    with pytest.raises(HwnasError, match=r"other\.onnx is not an ONNX file, or is damaged"):
        check_model(tmp_path / "other.onnx", PROFILES["tensorrt"])


@pytest.mark.parametrize(
    ("inputs", "nodes"),
    [
        ([("a", [1, 3, 8, 8]), ("b", [1, 3, 8, 8])], [helper.make_node("Add", ["a", "b"], ["y"])]),
        ([("a", [1, 4, 8, 8])], [helper.make_node("Relu", ["a"], ["y"])]),
        ([("a", [3])], [helper.make_node("Relu", ["a"], ["y"])]),
    ],
)
def test_another_network_is_named(
    tmp_path: Path, inputs: list[tuple[str, list[int]]], nodes: list[onnx.NodeProto]
) -> None:
    values = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name, shape in inputs]
    output = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])
    onnx.save(helper.make_model(helper.make_graph(nodes, "g", values, [output])), tmp_path / "other.onnx")
    with pytest.raises(HwnasError, match=r"other\.onnx does not upscale RGB images: its inputs are a"):
        check_model(tmp_path / "other.onnx", PROFILES["tensorrt"])


@pytest.mark.parametrize("sides", [["h", "w"], [8, 8]])
def test_a_network_that_does_not_enlarge_is_named(tmp_path: Path, sides: list[int | str]) -> None:
    values = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 3, *sides]) for name in ("a", "y")]
    graph = helper.make_graph([helper.make_node("Relu", ["a"], ["y"])], "g", values[:1], values[1:])
    onnx.save(helper.make_model(graph), tmp_path / "same.onnx")
    with pytest.raises(HwnasError, match=r"same\.onnx does not upscale RGB images: of \[1, 3, \d+, \d+\] it makes"):
        check_model(tmp_path / "same.onnx", PROFILES["tensorrt"])


def test_weights_in_other_files_are_not_followed(exported: Callable[[str], Path]) -> None:
    path = exported("tensorrt")
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="weights", size_threshold=0)
    with pytest.raises(HwnasError, match="keeps its weights in another file"):
        check_model(path, PROFILES["tensorrt"])


@pytest.mark.parametrize(
    ("profile", "options", "rule"),
    [
        ("tensorrt", ExportOptions(pack_int4=True), "it is int4"),
    ],
)
def test_what_a_runtime_would_refuse_is_not_written(
    tmp_path: Path, profile: str, options: ExportOptions, rule: str
) -> None:
    placement = Placement(rectified_bits=7)
    network = build_quantised(named_architecture("espcn", 2, 4), placement=placement)
    calibrate(network, [torch.rand(1, 3, 12, 12)])
    with pytest.raises(HwnasError, match=rf"would refuse \S+: {rule}"):
        export_onnx(network, tmp_path / "n.onnx", torch.rand(1, 3, 9, 9), {}, PROFILES[profile], options)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no file"):
        check_model(tmp_path / "none.onnx", PROFILES["tensorrt"])
