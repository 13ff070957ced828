"""What users may ask of a graph, whatever its profile: bytes in and out, packed weights, a fixed size."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx_ir as ir

from hwnas.exporters.graph.centre import BYTE_STEP, quantises_bytes
from hwnas.exporters.graph.values import add_constant, array, stored

INT4_OPSET = 21
"""The first opset with four-bit integers."""


def bytes_in_and_out(graph: ir.Graph, signed: bool) -> None:
    """Read and make images of bytes, [1, 3, height, width], in the place of floats in 0 to 1; the output is rounded.

    Args:
        graph: to be changed.
        signed: the runtime has no quantisers of unsigned integers, only casts.
    """
    (image,), (output,) = graph.inputs, graph.outputs
    zero = np.uint8(0)
    for node in list(image.consumers()):
        if quantises_bytes(node) and not signed:
            node.outputs[0].replace_all_uses_with(image)
            graph.remove(node, safe=True)
    floats = [node for node in image.consumers() if node.op_type != "DequantizeLinear"]
    if floats and signed:
        nodes = [_node(graph, "Cast", image, to=ir.DataType.FLOAT)]
        nodes.append(_node(graph, "Mul", nodes[-1].outputs[0], BYTE_STEP))
    elif floats:
        nodes = [_node(graph, "DequantizeLinear", image, BYTE_STEP, zero)]
    if floats:
        graph.insert_before(graph[0], nodes)
        for node in floats:
            for i, value in enumerate(node.inputs):
                if value is image:
                    node.replace_input_with(i, nodes[-1].outputs[0])
    image.dtype = ir.DataType.UINT8
    name, output.name = output.name, f"{output.name}/real"
    if signed:
        nodes = [_node(graph, "Div", output, BYTE_STEP)]
        nodes.append(_node(graph, "Round", nodes[-1].outputs[0]))
        nodes.append(_node(graph, "Clip", nodes[-1].outputs[0], np.float32(0), np.float32(255)))
        nodes.append(_node(graph, "Cast", nodes[-1].outputs[0], to=ir.DataType.UINT8))
    else:
        nodes = [_node(graph, "QuantizeLinear", output, BYTE_STEP, zero)]
    graph.extend(nodes)
    made = nodes[-1].outputs[0]
    made.name, made.shape, made.type = name, output.shape, ir.TensorType(ir.DataType.UINT8)
    graph.outputs[0] = made


def _node(graph: ir.Graph, operation: str, x: ir.Value, *constants: np.generic, **attributes: int) -> ir.Node:
    name = f"{x.name}/{operation}"
    inputs = [x, *(add_constant(graph, x, content) for content in constants)]
    node = ir.node(operation, inputs, attributes, name=name)
    node.outputs[0].name = name
    return node


def pack_int4(graph: ir.Graph) -> int:
    """Store weights of four bits and fewer as INT4, two in a byte; returns how many layers' are.

    The runtimes that read it make int8 or float of it before they compute: it saves storage, and no time.
    """
    packed = 0
    for node in graph:
        integers = stored(node.inputs[0]) if node.op_type == "DequantizeLinear" else None
        if integers is None or integers.dtype != ir.DataType.INT8:
            continue
        values = integers.numpy()
        if values.ndim == 4 and values.min() >= -8 and values.max() <= 7:
            for i in (0, 2):
                small = array(node.inputs[i]).astype(ml_dtypes.int4)
                node.replace_input_with(i, add_constant(graph, node.outputs[0], small))
            packed += 1
    return packed


def fix_size(graph: ir.Graph, size: tuple[int, int], scale: int) -> None:
    """Take images of one size only: runtimes that compile a network ask for it."""
    for value, factor in ((graph.inputs[0], 1), (graph.outputs[0], scale)):
        value.shape = ir.Shape([1, 3, size[0] * factor, size[1] * factor])
