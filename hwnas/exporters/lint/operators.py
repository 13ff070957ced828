"""Rules on which operations a graph has, and on what numbers."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from hwnas.exporters.lint.base import Finding, advice, constant, error, is_standard

_OF_INTEGERS = {"ConvInteger", "DynamicQuantizeLinear", "MatMulInteger", "QLinearConv", "QLinearMatMul"}


def quantised_by_pairs(graph: ir.Graph) -> Iterator[Finding]:
    """Operations are of floats, with QuantizeLinear and DequantizeLinear around them."""
    for node in ir.traversal.RecursiveGraphIterator(graph):
        if node.op_type in _OF_INTEGERS and is_standard(node):
            message = f"{node.op_type} is of integers; write one of floats between DequantizeLinear and QuantizeLinear"
            yield error("quantised-by-pairs", node, message)


def known_operators(graph: ir.Graph) -> Iterator[Finding]:
    """Operations are the standard's."""
    for node in ir.traversal.RecursiveGraphIterator(graph):
        operation = f"{node.domain}.{node.op_type}"
        if node.domain.startswith("com.microsoft"):
            yield error("known-operators", node, f"{operation} is ONNX Runtime's own; export the graph without it")
        elif not is_standard(node):
            yield advice("known-operators", node, f"{operation} is none of the standard's; the runtime needs a plug-in")


def no_doubles(graph: ir.Graph) -> Iterator[Finding]:
    """Floats have at most 32 bits."""
    for node in ir.traversal.RecursiveGraphIterator(graph):
        constants = [tensor for value in node.inputs if (tensor := constant(value)) is not None]
        made = node.attributes["to"].as_int() if node.op_type == "Cast" and "to" in node.attributes else None
        if made == ir.DataType.DOUBLE or any(tensor.dtype == ir.DataType.DOUBLE for tensor in constants):
            yield error("no-doubles", node, "it computes in 64-bit floats; write them in 32 bits")
    for value in graph.inputs:
        if value.dtype == ir.DataType.DOUBLE:
            yield Finding("error", "no-doubles", str(value.name), "it is of 64-bit floats; write it in 32 bits")
