"""Rules on convolutions and sums, and on what the network takes."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from hwnas.exporters.graph.values import producer
from hwnas.exporters.lint.base import Finding, advice, constant, error, integers_of, nodes

BIAS = 2
"""Which input of a convolution its bias is."""

TENSOR_CORE_CHANNELS = 32
"""Channels of int8 maps are padded to multiples of this on NVIDIA's tensor cores."""


def weights_per_channel(graph: ir.Graph) -> Iterator[Finding]:
    """Quantised weights of convolutions have their steps along axis 0."""
    for node in nodes(graph, "Conv"):
        if (source := producer(node.inputs[1], "DequantizeLinear")) is None:
            continue
        axis = source.attributes["axis"].as_int() if "axis" in source.attributes else 1
        step, weight = constant(source.inputs[1]), constant(source.inputs[0])
        rank = len(weight.shape) if weight is not None else 4
        if step is not None and step.size > 1 and axis not in (0, -rank):
            yield error("weights-per-channel", source, f"its steps are along axis {axis}; they have to be along 0")


def float_biases(graph: ir.Graph) -> Iterator[Finding]:
    """Biases are float, wherever they are added."""
    for node in nodes(graph, "DequantizeLinear"):
        is_bias = any(reader.op_type == "Conv" and index == BIAS for reader, index in node.outputs[0].uses())
        if integers_of(node) == ir.DataType.INT32 or is_bias:
            yield error("float-biases", node, "it makes a bias of integers; write the bias in float")


def both_operands_quantised(graph: ir.Graph) -> Iterator[Finding]:
    """A convolution of quantised weights reads a quantised map."""
    for node in nodes(graph, "Conv"):
        if producer(node.inputs[1], "DequantizeLinear") and not producer(node.inputs[0], "DequantizeLinear"):
            yield advice(
                "both-operands-quantised", node, "its weights are quantised and its map is not: it computes in float"
            )


def quantised_outputs(graph: ir.Graph) -> Iterator[Finding]:
    """What an integer convolution or sum makes is quantised, or it computes in float."""
    for node in nodes(graph, "Conv", "Add"):
        maps = node.inputs[: 1 if node.op_type == "Conv" else 2]
        if all(producer(x, "DequantizeLinear") for x in maps):
            readers = list(node.outputs[0].consumers())
            readers = [after for r in readers for after in (r.outputs[0].consumers() if r.op_type == "Relu" else [r])]
            if [reader.op_type for reader in readers] != ["QuantizeLinear"]:
                yield advice("quantised-outputs", node, "its output is not quantised, once: it computes in float")


def unsigned_maps(graph: ir.Graph) -> Iterator[Finding]:
    """Maps are uint8: ONNX Runtime has no fast sums, and slower convolutions, of int8."""
    for node in nodes(graph, "QuantizeLinear"):
        if integers_of(node) == ir.DataType.INT8:
            yield advice("unsigned-maps", node, "it makes int8; uint8 with a zero point of 128 is faster")


def narrow_weights(graph: ir.Graph) -> Iterator[Finding]:
    """Weights have seven bits, so that pairs of products fit into 16 bits."""
    for node in nodes(graph, "DequantizeLinear"):
        weight = constant(node.inputs[0])
        if weight is None or weight.dtype != ir.DataType.INT8:
            continue
        values = weight.numpy()
        # A single product, of a depthwise 1x1 convolution, has no other to be added to.
        if values.ndim == 4 and values.size and values[0].size > 1 and (values.min() < -64 or values.max() > 63):
            message = "its weights use eight bits, which overflows on x86 processors without VNNI"
            yield advice("narrow-weights", node, f"{message}; set session.x64quantprecision there")


def tensor_core_widths(graph: ir.Graph) -> Iterator[Finding]:
    """Widths of integer convolutions are multiples of what tensor cores compute at once."""
    for node in nodes(graph, "Conv"):
        source = producer(node.inputs[1], "DequantizeLinear")
        weight = constant(source.inputs[0]) if source is not None else None
        width = weight.numpy().shape[0] if weight is not None and weight.shape else 0
        if width % TENSOR_CORE_CHANNELS:
            message = f"{width} channels; tensor cores compute {TENSOR_CORE_CHANNELS} at once, the rest is padding"
            yield advice("tensor-core-widths", node, message)


def static_shapes(graph: ir.Graph) -> Iterator[Finding]:
    """Sizes of inputs are numbers."""
    for value in graph.inputs:
        if value.shape is None or any(not isinstance(side, int) for side in value.shape):
            yield Finding("error", "static-shapes", str(value.name), "its size is open; export for one (--input-size)")
