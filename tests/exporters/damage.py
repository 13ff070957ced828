"""Changes to exported graphs, each of which breaks one rule; they return the name of the node that does."""

from __future__ import annotations

from collections.abc import Callable

import ml_dtypes
import numpy as np
import onnx
from onnx import helper, numpy_helper


def initialiser(model: onnx.ModelProto, name: str) -> onnx.TensorProto:
    return next(tensor for tensor in model.graph.initializer if tensor.name == name)


def change(
    model: onnx.ModelProto, node: onnx.NodeProto, operand: int, change: Callable[[np.ndarray], np.ndarray]
) -> None:
    """Give a node another constant of its own in the place of one."""
    old = initialiser(model, node.input[operand])
    new = numpy_helper.from_array(change(numpy_helper.to_array(old)), f"{node.name}-{operand}-changed")
    model.graph.initializer.append(new)
    node.input[operand] = new.name


def first(model: onnx.ModelProto, operation: str, after: int = 0) -> onnx.NodeProto:
    return [node for node in model.graph.node if node.op_type == operation][after]


def _computed_scale(model: onnx.ModelProto) -> str:
    node = first(model, "QuantizeLinear")
    model.graph.node.insert(0, helper.make_node("Abs", [node.input[1]], ["computed"]))
    node.input[1] = "computed"
    return node.name


def _negative_scale(model: onnx.ModelProto) -> str:
    node = first(model, "QuantizeLinear", 1)
    change(model, node, 1, lambda step: -step)
    return node.name


def _shifted(model: onnx.ModelProto) -> str:
    node = first(model, "QuantizeLinear", 1)
    change(model, node, 2, lambda zero: zero + zero.dtype.type(3))
    return node.name


def _clipped(model: onnx.ModelProto) -> str:
    node = first(model, "QuantizeLinear", 1)
    reader = next(n for n in model.graph.node if n.op_type == "DequantizeLinear" and n.input[0] == node.output[0])
    at = list(model.graph.node).index(reader)
    model.graph.node.insert(at, helper.make_node("Clip", [node.output[0]], ["clipped"]))
    reader.input[0] = "clipped"
    return node.name


def weights(model: onnx.ModelProto) -> onnx.NodeProto:
    convolution = first(model, "Conv")
    return next(node for node in model.graph.node if node.output[0] == convolution.input[1])


def _other_axis(model: onnx.ModelProto) -> str:
    node = weights(model)
    next(a for a in node.attribute if a.name == "axis").i = 2
    return node.name


def _quantised_bias(model: onnx.ModelProto) -> str:
    convolution = first(model, "Conv")
    bias = numpy_helper.to_array(initialiser(model, convolution.input[2]))
    constants = {"b": np.zeros(len(bias), np.int32), "s": np.float32(1.0)}
    model.graph.initializer.extend(numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items())
    model.graph.node.insert(0, helper.make_node("DequantizeLinear", ["b", "s"], ["quantised"]))
    convolution.input[2] = "quantised"
    return "quantised"


def _quantised_bias_added_later(model: onnx.ModelProto) -> str:
    name = _quantised_bias(model)
    convolution = first(model, "Conv")
    made, bias = convolution.output[0], convolution.input.pop()
    convolution.output[0] = "unbiased"
    at = list(model.graph.node).index(convolution)
    model.graph.node.insert(at + 1, helper.make_node("Identity", [bias], ["passed"]))
    model.graph.node.insert(at + 2, helper.make_node("Add", ["unbiased", "passed"], [made]))
    return name


def _behind_an_identity(model: onnx.ModelProto) -> str:
    name = _other_axis(model)
    convolution = first(model, "Conv")
    model.graph.node.insert(
        list(model.graph.node).index(convolution), helper.make_node("Identity", [convolution.input[1]], ["passed"])
    )
    convolution.input[1] = "passed"
    return name


def _in_a_function(model: onnx.ModelProto) -> str:
    """Writes a QuantizeLinear with a zero point as a function of the file's own."""
    name = _shifted(model)
    node = next(node for node in model.graph.node if node.name == name)
    inner = onnx.NodeProto()
    inner.CopyFrom(node)
    inner.input[:], inner.output[:] = ["x", "s", "z"], ["y"]
    opset = [helper.make_opsetid("", model.opset_import[0].version)]
    model.functions.append(helper.make_function("own", "Quantise", ["x", "s", "z"], ["y"], [inner], opset))
    node.op_type, node.domain = "Quantise", "own"
    model.opset_import.append(helper.make_opsetid("own", 1))
    return name


def _scale_given_with_the_image(model: onnx.ModelProto) -> str:
    node = first(model, "QuantizeLinear", 1)
    model.graph.input.append(helper.make_tensor_value_info(node.input[1], onnx.TensorProto.FLOAT, []))
    return node.name


def _no_scale(model: onnx.ModelProto) -> str:
    node = weights(model)
    change(model, node, 1, lambda step: step[:0])
    return node.name


def _shifted_in_one_channel(model: onnx.ModelProto) -> str:
    node = weights(model)
    change(model, node, 2, lambda zero: np.arange(zero.size).astype(zero.dtype) // zero.dtype.type(zero.size - 1))
    return node.name


def _unsigned_weights(model: onnx.ModelProto) -> str:
    node = weights(model)
    change(model, node, 0, lambda weight: (weight.astype(np.int16) + 128).astype(np.uint8))
    change(model, node, 2, lambda zero: np.full(zero.size, 128, np.uint8))
    return node.name


def _integer_convolution(model: onnx.ModelProto) -> str:
    node = next(n for n in model.graph.node if n.input[0] == "lr")
    at = list(model.graph.node).index(node)
    constant = numpy_helper.from_array(np.ones((3, 3, 1, 1), np.uint8), "ones")
    model.graph.initializer.append(constant)
    for made in (
        helper.make_node("DynamicQuantizeLinear", ["lr"], ["lr_q", "lr_s", "lr_z"], name="dynamic"),
        helper.make_node("ConvInteger", ["lr_q", "ones"], ["lr_i"], name="integers"),
        helper.make_node("Cast", ["lr_i"], ["lr_r"], name="cast", to=onnx.TensorProto.FLOAT),
    ):
        model.graph.node.insert(at, made)
        at += 1
    node.input[0] = "lr_r"
    return "integers"


def _of_onnx_runtime(model: onnx.ModelProto) -> str:
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    model.graph.node.append(helper.make_node("Gelu", ["sr"], ["gelu"], name="gelu", domain="com.microsoft"))
    return "gelu"


def _in_double(model: onnx.ModelProto) -> str:
    model.graph.node.append(helper.make_node("Cast", ["sr"], ["double"], name="double", to=onnx.TensorProto.DOUBLE))
    return "double"


def _clip_from_zero(model: onnx.ModelProto) -> str:
    node = first(model, "QuantizeLinear", 1)
    step = numpy_helper.to_array(initialiser(model, node.input[1]))
    for name, value in (("none", 0.0), ("fifteen", 15 * step)):
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(value, np.float32), name))
    at = list(model.graph.node).index(node)
    model.graph.node.insert(at, helper.make_node("Clip", [node.input[0], "none", "fifteen"], ["few"], name="few"))
    node.input[0] = "few"
    return "few"


def _several_steps(model: onnx.ModelProto) -> str:
    node = first(model, "QuantizeLinear", 1)
    change(model, node, 1, lambda step: np.full(64, step))
    return node.name


def _another_step(model: onnx.ModelProto) -> str:
    node = first(model, "QuantizeLinear", 1)
    reader = next(n for n in model.graph.node if n.op_type == "DequantizeLinear" and n.input[0] == node.output[0])
    change(model, reader, 1, lambda step: step * np.float32(1.5))
    return node.name


def _sixteen_bits(model: onnx.ModelProto) -> str:
    node = first(model, "QuantizeLinear", 1)
    change(model, node, 2, lambda zero: np.zeros_like(zero, np.int16))
    return node.name


def _four_bits(model: onnx.ModelProto) -> str:
    node = weights(model)
    for operand in (0, 2):
        change(model, node, operand, lambda values: np.clip(values, -8, 7).astype(ml_dtypes.int4))
    return node.name


def float_map(model: onnx.ModelProto) -> str:
    convolution = first(model, "Conv", 1)
    made_real = next(node for node in model.graph.node if node.output[0] == convolution.input[0])
    quantised = next(node for node in model.graph.node if node.output[0] == made_real.input[0])
    convolution.input[0] = quantised.input[0]
    return convolution.name


def _no_lower_bound(model: onnx.ModelProto) -> str:
    name = _clip_from_zero(model)
    next(node for node in model.graph.node if node.name == name).input[1] = ""
    return name


def _clip_from_next_to_zero(model: onnx.ModelProto) -> str:
    name = _clip_from_zero(model)
    initialiser(model, "none").CopyFrom(numpy_helper.from_array(np.float32(-1e-9), "none"))
    return name


def _another_zero_point(model: onnx.ModelProto) -> str:
    node = first(model, "QuantizeLinear", 1)
    reader = next(n for n in model.graph.node if n.op_type == "DequantizeLinear" and n.input[0] == node.output[0])
    change(model, reader, 2, lambda zero: zero + zero.dtype.type(20))
    return node.name


BROKEN = {
    "constant-scales": (("tensorrt", "cpu", "qnn"), _computed_scale),
    "constant-scales, negative": (("tensorrt", "cpu", "qnn"), _negative_scale),
    "symmetric": (("tensorrt",), _shifted),
    "adjacent": (("tensorrt",), _clipped),
    "float-clips": (("qnn",), _clipped),
    "weights-per-channel": (("tensorrt", "cpu", "qnn"), _other_axis),
    "float-biases": (("tensorrt",), _quantised_bias),
    "one-step-for-maps": (("tensorrt", "cpu", "qnn"), _several_steps),
    "same-step": (("tensorrt",), _another_step),
    "symmetric, other integers": (("tensorrt",), _sixteen_bits),
    "symmetric, four bits": (("tensorrt",), _four_bits),
    "symmetric, one channel": (("tensorrt",), _shifted_in_one_channel),
    "symmetric-weights": (("qnn",), _unsigned_weights),
    "symmetric-weights, one channel": (("qnn",), _shifted_in_one_channel),
    "symmetric, in a function": (("tensorrt",), _in_a_function),
    "float-biases, added later": (("tensorrt",), _quantised_bias_added_later),
    "weights-per-channel, passed on": (("tensorrt", "cpu", "qnn"), _behind_an_identity),
    "constant-scales, an input": (("tensorrt", "cpu", "qnn"), _scale_given_with_the_image),
    "constant-scales, none": (("tensorrt", "cpu", "qnn"), _no_scale),
    "quantised-by-pairs": (("tensorrt", "qnn"), _integer_convolution),
    "known-operators": (("tensorrt", "qnn"), _of_onnx_runtime),
    "no-doubles": (("tensorrt", "qnn"), _in_double),
    "clips-from-zero": (("qnn",), _clip_from_zero),
    "clips-from-zero, no lower bound": (("qnn",), _no_lower_bound),
    "clips-from-zero, next to it": (("qnn",), _clip_from_next_to_zero),
    "same-step, zero point": (("qnn",), _another_zero_point),
}
