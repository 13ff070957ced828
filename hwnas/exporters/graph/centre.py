"""Images of bytes for runtimes whose integers are signed, and have no zero point."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from hwnas.exporters.graph.values import add_constant, array, producer, stored

BYTE_STEP = np.float32(1 / 255)
GREY = np.float32(128 / 255)


def centre_image(graph: ir.Graph) -> None:
    """Quantise the image less grey, at the same step: what convolutions make of the grey goes to their biases.

    Exact but for the rounding of the biases. What is padded by zeros is padded by what stands for them now. An image
    that others than convolutions read stays as it is.
    """
    (image,) = graph.inputs
    for quantise in list(image.consumers()):
        if not quantises_bytes(quantise):
            continue
        (real,) = quantise.outputs[0].consumers()
        readers = list(real.outputs[0].consumers())
        if real.op_type != "DequantizeLinear" or any(reader.op_type != "Conv" for reader in readers):
            continue
        for convolution in readers:
            _centre(graph, image, quantise, convolution)
        graph.remove([real, quantise], safe=True)


def quantises_bytes(node: ir.Node) -> bool:
    """Whether a node quantises bytes over 255 without loss, to uint8."""
    return node.op_type == "QuantizeLinear" and [*map(array, node.inputs[1:])] == [BYTE_STEP, np.uint8(0)]


def _centre(graph: ir.Graph, image: ir.Value, quantise: ir.Node, convolution: ir.Node) -> None:
    nodes: list[ir.Node] = []

    def add(operation: str, *inputs: ir.Value) -> ir.Value:
        name = f"{convolution.outputs[0].name}/image/{operation}"
        nodes.append(ir.node(operation, list(inputs), name=name))
        nodes[-1].outputs[0].name = name
        return nodes[-1].outputs[0]

    def constant(content: np.ndarray | np.generic) -> ir.Value:
        return add_constant(graph, convolution.outputs[0], content)

    x = add("Sub", image, constant(GREY))
    top, left, bottom, right = convolution.attributes["pads"].as_ints() if "pads" in convolution.attributes else [0] * 4
    if any((top, left, bottom, right)):
        x = add("Pad", x, constant(np.array([0, 0, top, left, 0, 0, bottom, right])), constant(-GREY))
        convolution.attributes["pads"] = ir.AttrInt64s("pads", [0, 0, 0, 0])
    step, zero = constant(BYTE_STEP), constant(np.int8(0))
    x = add("DequantizeLinear", add("QuantizeLinear", x, step, zero), step, zero)
    graph.insert_before(convolution, nodes)
    convolution.replace_input_with(0, x)
    bias = array(convolution.inputs[2]) if len(convolution.inputs) > 2 else np.float32(0)
    of_grey = _real_weights(convolution).astype(np.float64).sum(axis=(1, 2, 3)) * (128 / 255)
    convolution.resize_inputs(3)
    convolution.replace_input_with(2, constant((bias + of_grey).astype(np.float32)))


def _real_weights(convolution: ir.Node) -> np.ndarray:
    weights = convolution.inputs[1]
    if (real := producer(weights, "DequantizeLinear")) is None or stored(real.inputs[0]) is None:
        return array(weights)
    integers, step = (array(x) for x in real.inputs[:2])
    scaled: np.ndarray = integers * step.reshape(-1, 1, 1, 1)
    return scaled
