"""Rules on steps, zero points, and what stands between quantisers."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from hwnas.exporters.graph.values import producer
from hwnas.exporters.lint.base import Finding, constant, error, integers_of, name_of, nodes


def constant_scales(graph: ir.Graph) -> Iterator[Finding]:
    """Steps are constants, positive and finite."""
    for node in nodes(graph, "QuantizeLinear", "DequantizeLinear"):
        if (step := constant(node.inputs[1])) is None:
            yield error("constant-scales", node, "its scale is computed, or an input; write it as an initialiser alone")
        elif not step.size or not (np.isfinite(step.numpy()) & (step.numpy() > 0)).all():
            yield error("constant-scales", node, "its scale is not a positive number")


def symmetric(graph: ir.Graph) -> Iterator[Finding]:
    """Maps and weights are int8 with a zero point of zero."""
    for node in nodes(graph, "QuantizeLinear", "DequantizeLinear"):
        given = node.inputs[2] if len(node.inputs) > 2 else None
        zero, integers = constant(given), integers_of(node)
        if given is not None and zero is None:
            yield error("symmetric", node, "its zero point is computed; write it as an initialiser")
        elif integers == ir.DataType.UINT8 and given is None:
            yield error("symmetric", node, "without a zero point it makes uint8; give it one of int8")
        # Biases, the one use of int32, have a rule of their own.
        elif integers not in (ir.DataType.INT8, ir.DataType.INT32, None):
            yield error("symmetric", node, f"it is {integers.name.lower()}; TensorRT computes maps and weights in int8")
        elif zero is not None and _shifts(zero):
            yield error("symmetric", node, f"its zero point is {zero.numpy()[zero.numpy() != 0][0]}; it has to be 0")


def symmetric_weights(graph: ir.Graph) -> Iterator[Finding]:
    """Weights with a step for each channel have zero points of zero."""
    for node in nodes(graph, "DequantizeLinear"):
        step, zero = constant(node.inputs[1]), constant(node.inputs[2] if len(node.inputs) > 2 else None)
        if step is not None and step.size > 1 and (integers_of(node) == ir.DataType.UINT8 or _shifts(zero)):
            yield error("symmetric-weights", node, "its steps are by channel; write it in int8 with zero points of 0")


def _shifts(zero: ir.TensorProtocol | None) -> bool:
    return zero is not None and bool(zero.numpy().any())


def one_step_for_maps(graph: ir.Graph) -> Iterator[Finding]:
    """Maps have one step, and weights alone one for each channel."""
    for node in nodes(graph, "QuantizeLinear", "DequantizeLinear"):
        step = constant(node.inputs[1])
        source = producer(node.inputs[0], "QuantizeLinear") if node.op_type == "DequantizeLinear" else None
        if step is not None and step.size > 1 and constant(source.inputs[0] if source else node.inputs[0]) is None:
            yield error("one-step-for-maps", node, f"it has {step.size} steps for one map; give it one")


def same_step(graph: ir.Graph) -> Iterator[Finding]:
    """A map is made real by the step it was quantised by, and by its zero point: runtimes take one of the two."""
    for node in nodes(graph, "QuantizeLinear"):
        for reader in node.outputs[0].consumers():
            if reader.op_type != "DequantizeLinear":
                continue
            for operand, what in ((1, "step"), (2, "zero point")):
                made, read = (
                    constant(side.inputs[operand]) if len(side.inputs) > operand else None for side in (node, reader)
                )
                if made is not None and read is not None and not np.array_equal(made.numpy(), read.numpy()):
                    yield error(
                        "same-step", node, f"{name_of(reader)} makes it real by another {what}; give both the same"
                    )


def adjacent(graph: ir.Graph) -> Iterator[Finding]:
    """Nothing stands between QuantizeLinear and DequantizeLinear."""
    for node in nodes(graph, "QuantizeLinear"):
        for reader in node.outputs[0].consumers():
            if reader.op_type != "DequantizeLinear":
                yield error("adjacent", node, f"a {reader.op_type} reads its integers; put it before")


def float_clips(graph: ir.Graph) -> Iterator[Finding]:
    """What narrows a map stands before its QuantizeLinear."""
    for node in nodes(graph, "QuantizeLinear"):
        if any(reader.op_type == "Clip" for reader in node.outputs[0].consumers()):
            yield error("float-clips", node, "a Clip reads its integers, which fails below eight bits; put it before")


def clips_from_zero(graph: ir.Graph) -> Iterator[Finding]:
    """QNN takes a Clip from zero for a Relu, and forgets its upper bound."""
    for node in nodes(graph, "Clip"):
        low, high = (constant(node.inputs[i]) if len(node.inputs) > i else None for i in (1, 2))
        if high is not None:
            for reader in node.outputs[0].consumers():
                if reader.op_type != "QuantizeLinear" or float(high.numpy()) >= highest(reader):
                    continue
                step = constant(reader.inputs[1])
                if low is None or (step is not None and not np.rint(low.numpy() / step.numpy()).any()):
                    yield error("clips-from-zero", node, "QNN forgets its upper bound; write a Min of quantised maps")


def highest(quantise: ir.Node) -> float:
    """The largest value that a QuantizeLinear tells from others; infinity where that is computed."""
    step, zero = constant(quantise.inputs[1]), constant(quantise.inputs[2] if len(quantise.inputs) > 2 else None)
    kind = integers_of(quantise)
    if step is None or step.size != 1 or kind not in (ir.DataType.INT8, ir.DataType.UINT8):
        return math.inf
    shift = int(zero.numpy().item()) if zero is not None else 0
    return float(step.numpy().item()) * (np.iinfo(kind.numpy()).max - shift)
