"""What rules are made of: findings, and questions to a graph."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import onnx_ir as ir

from hwnas.exporters.graph.values import producer


@dataclass(frozen=True, slots=True)
class Finding:
    """A rule that a node breaks.

    Attributes:
        level: an ``error`` stops the runtime, or makes it compute something else; ``advice`` costs time.
        rule: its name.
        node: the node, as the file calls it.
        message: what is wrong, and what to do.
    """

    level: Literal["error", "advice"]
    rule: str
    node: str
    message: str


Rule = Callable[[ir.Graph], Iterator[Finding]]


def constant(value: ir.Value | None) -> ir.TensorProtocol | None:
    """The tensor of an initialiser or of a Constant node; None for whatever is computed, or given with the image."""
    if value is None or value.is_graph_input():
        return None
    tensor = ir.convenience.get_const_tensor(value)
    return None if isinstance(tensor, ir.ExternalTensor) else tensor


def nodes(graph: ir.Graph, *operations: str) -> Iterator[ir.Node]:
    """Nodes of the standard's operations, those of branches included."""
    everything = ir.traversal.RecursiveGraphIterator(graph)
    return (node for node in everything if node.op_type in operations and is_standard(node))


def is_standard(node: ir.Node) -> bool:
    """Whether the operation is the standard's."""
    return node.domain in ("", "ai.onnx")


def name_of(node: ir.Node) -> str:
    """The node, as the file calls it."""
    return node.name or str(node.outputs[0].name)


def error(rule: str, node: ir.Node, message: str) -> Finding:
    """A finding that stops the runtime."""
    return Finding("error", rule, name_of(node), message)


def advice(rule: str, node: ir.Node, message: str) -> Finding:
    """A finding that costs time."""
    return Finding("advice", rule, name_of(node), message)


def integers_of(node: ir.Node) -> ir.DataType | None:
    """The type that a QuantizeLinear makes or a DequantizeLinear reads; None where the file leaves it open."""
    if (zero := constant(node.inputs[2] if len(node.inputs) > 2 else None)) is not None:
        return zero.dtype
    if node.op_type == "QuantizeLinear":
        stated = node.attributes["output_dtype"].as_int() if "output_dtype" in node.attributes else 0
        return ir.DataType(stated) if stated else ir.DataType.UINT8
    integers, source = constant(node.inputs[0]), producer(node.inputs[0], "QuantizeLinear")
    return integers.dtype if integers is not None else integers_of(source) if source is not None else None
