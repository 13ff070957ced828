"""Passes that fold constants of a quantised graph into each other."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from hwnas.exporters.graph.values import add_constant, array, producer, stored, substitute

UNITS = np.arange(64, 128)
"""Integers that may stand for a batch norm's factor."""

LEAST_FACTOR = 1e-20
"""Stands for a factor of zero."""


def fold_weight_clips(graph: ir.Graph) -> None:
    """Drop the Clips of weights, which are integers in their range already."""
    for node in list(graph):
        if node.op_type == "Clip" and stored(node.inputs[0]) is not None:
            weights, low, high = (array(x) for x in node.inputs)
            own = add_constant(graph, node.outputs[0], np.clip(weights, low, high))
            substitute(node.outputs[0], own)
            graph.remove(node, safe=True)


def fold_biases(graph: ir.Graph) -> None:
    """Write int32 biases as the floats that they stand for."""
    for node in list(graph):
        if node.op_type != "DequantizeLinear" or (integers := stored(node.inputs[0])) is None:
            continue
        if integers.dtype == ir.DataType.INT32:
            real = array(node.inputs[0]).astype(np.float32) * array(node.inputs[1])
            substitute(node.outputs[0], add_constant(graph, node.outputs[0], real))
            graph.remove(node, safe=True)


def fold_factors(graph: ir.Graph) -> None:
    """Multiply a quantised map by a positive constant where it is made real: the factor of a frozen AdaDM."""
    for node in [node for node in graph if node.op_type == "Mul"]:
        maps = [x for x in node.inputs if stored(x) is None]
        factors = [array(x) for x in node.inputs if stored(x) is not None]
        real = producer(maps[0], "DequantizeLinear") if len(maps) == len(factors) == 1 else None
        if real is None or factors[0].size != 1 or not factors[0].item() > 0:
            continue
        step = array(real.inputs[1]) * np.float32(factors[0].item())
        own = ir.node("DequantizeLinear", [real.inputs[0], None, real.inputs[2]], name=node.name)
        own.outputs[0].name = f"{node.outputs[0].name}/real"
        own.replace_input_with(1, add_constant(graph, own.outputs[0], step.astype(np.float32)))
        graph.insert_before(node, own)
        substitute(node.outputs[0], own.outputs[0])
        graph.remove(node, safe=True)


def integer_batch_norms(graph: ir.Graph) -> None:
    """Write a batch norm of a quantised map as a depthwise 1x1 convolution in integers, one for each reader.

    That of AdaDM stands before a ReLU, so that no convolution can take it in.
    """
    for node in [node for node in graph if node.op_type == "BatchNormalization"]:
        x = node.inputs[0]
        real = producer(x, "DequantizeLinear")
        if real is None or array(real.inputs[1]).size != 1 or node.outputs[0].is_graph_output():
            continue
        gain, shift, mean, variance = (array(v).astype(np.float64) for v in node.inputs[1:])
        factor = gain / np.sqrt(variance + node.attributes["epsilon"].as_float())
        weight, step, bias, bias_step = _integers(factor, shift - mean * factor, array(real.inputs[1]))
        for reader in list(node.outputs[0].consumers()):
            operands = [
                _dequantised(graph, reader.outputs[0], weight.reshape(-1, 1, 1, 1), step),
                _dequantised(graph, reader.outputs[0], bias, bias_step),
            ]
            convolution = ir.node(
                "Conv",
                [x, *(operand.outputs[0] for operand in operands)],
                {"group": len(weight), "kernel_shape": [1, 1]},
                name=f"{reader.name}/normalise",
            )
            convolution.outputs[0].name = f"{reader.outputs[0].name}/normalised"
            graph.insert_before(reader, [*operands, convolution])
            for i, value in enumerate(reader.inputs):
                if value is node.outputs[0]:
                    reader.replace_input_with(i, convolution.outputs[0])
        graph.remove(node, safe=True)


def _integers(
    factor: np.ndarray, bias: np.ndarray, input_step: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Weights, their steps, biases and theirs: ``factor * x + bias`` for each channel of a map of ``input_step``.

    The factor is exact, whatever integer stands for it; of these each channel takes the one for which its bias is
    closest to an integer, which makes sixty-four times less of an error than any one of them would.
    """
    # A channel that is shut all but has no factor: large enough for its bias to be an int32, and steps to be floats.
    least = np.maximum(np.abs(bias) / input_step * UNITS[-1] / 2**30, LEAST_FACTOR)
    factor = np.where(np.abs(factor) < least, least, factor)
    wanted = bias / (np.abs(factor) * input_step)
    error = np.abs(wanted[:, None] * UNITS - np.round(wanted[:, None] * UNITS)) / UNITS
    unit = UNITS[error.argmin(1)]
    step = (np.abs(factor) / unit).astype(np.float32)
    bias_step = (step * input_step).astype(np.float32)
    weight = (np.sign(factor) * unit).astype(np.int8)
    return weight, step, np.round(bias / bias_step).astype(np.int32), bias_step


def _dequantised(graph: ir.Graph, of: ir.Value, integers: np.ndarray, step: np.ndarray) -> ir.Node:
    zero = np.zeros(len(step), integers.dtype)
    inputs = [add_constant(graph, of, content) for content in (integers, step, zero)]
    node = ir.node("DequantizeLinear", inputs, {"axis": 0}, name=f"{inputs[0].name}/dequantise")
    node.outputs[0].name = f"{inputs[0].name}/dequantised"
    return node
