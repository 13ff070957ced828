"""The quantised graph of a runtime, from the one that Brevitas writes; every pass computes the same numbers.

In the graph, a quantised map is a QuantizeLinear, a Clip where it has fewer than eight bits, and a DequantizeLinear; a
weight is an integer initialiser and a DequantizeLinear.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import ArrayLike
from onnx_ir.passes.common import RemoveUnusedNodesPass

from hwnas.errors import HwnasError
from hwnas.exporters.profiles import Profile

SHIFT = 128
"""Zero point of an unsigned map with negative values."""


@dataclass(frozen=True)
class MapQuantiser:
    """What becomes of a map: ``step * clamp(round(x / step), low, high)``.

    Attributes:
        step: real value of an integer step.
        low: smallest integer, where zero is zero.
        high: largest integer.
        nodes: the nodes that do it, the first of them QuantizeLinear, the last DequantizeLinear.
    """

    step: np.float32
    low: int
    high: int
    nodes: tuple[ir.Node, ...]


def adapt(model: ir.Model, profile: Profile) -> None:
    """Rewrite the graph in the form that a runtime wants.

    Raises:
        HwnasError: if that form cannot hold the network's numbers; names the map.
    """
    graph = model.graph
    fold_weight_clips(graph)
    for quantiser in list(map_quantisers(graph)):
        _rewrite(graph, quantiser, profile)
    if not profile.integer_bias:
        fold_biases(graph)
    if profile.integer_shuffle:
        shuffle_integers(graph)
    if profile.lookup:
        requantise_by_lookup(graph)
    RemoveUnusedNodesPass()(model)
    unshare_integers(graph)


def fold_weight_clips(graph: ir.Graph) -> None:
    """Drop the Clips of weights: integer initialisers that are in their range already."""
    for node in list(graph):
        if node.op_type == "Clip" and _value(node.inputs[0]) is not None:
            weights, low, high = (_array(x) for x in node.inputs)
            own = _initialiser(graph, node.outputs[0], np.clip(weights, low, high))
            node.outputs[0].replace_all_uses_with(own)
            graph.remove(node, safe=True)


def map_quantisers(graph: ir.Graph) -> Iterator[MapQuantiser]:
    """The quantisers of feature maps, in the order of the graph."""
    for node in graph:
        if node.op_type != "QuantizeLinear":
            continue
        chain = [node]
        while chain[-1].op_type != "DequantizeLinear":
            (reader,) = chain[-1].outputs[0].consumers()
            chain.append(reader)
        zero = int(_array(node.inputs[2]))
        limits = np.iinfo(_array(node.inputs[2]).dtype)
        low, high = limits.min - zero, limits.max - zero
        for clip in chain[1:-1]:
            low, high = (int(_array(bound)) - zero for bound in clip.inputs[1:])
        yield MapQuantiser(np.float32(_array(node.inputs[1])), low, high, tuple(chain))


def _rewrite(graph: ir.Graph, quantiser: MapQuantiser, profile: Profile) -> None:
    first, last = quantiser.nodes[0], quantiser.nodes[-1]
    step, low, high = quantiser.step, quantiser.low, quantiser.high
    shift = SHIFT if low < 0 else 0
    zero: np.integer = np.uint8(shift) if profile.integers == "unsigned" else np.int8(0)
    limits = np.iinfo(zero.dtype)
    if low + int(zero) < limits.min or high + int(zero) > limits.max:
        raise HwnasError(
            f"the map {first.inputs[0].name} has integers from {low} to {high}, which {profile.description} does not "  # type: ignore[union-attr]
            "have; train the network for that target (--for)"
        )
    source = first.inputs[0]
    nodes: list[ir.Node] = []

    def add(operation: str, *inputs: ir.Value | None) -> ir.Value:
        node = ir.node(operation, list(inputs), name=f"{last.outputs[0].name}/{operation}")
        node.outputs[0].name = f"{last.outputs[0].name}/{operation}"
        nodes.append(node)
        return node.outputs[0]

    def constant(value: ArrayLike) -> ir.Value:
        return _initialiser(graph, last.outputs[0], np.asarray(value))

    narrow = low + int(zero) > limits.min or high + int(zero) < limits.max
    # A signed type needs no bound below where a ReLU comes before.
    if narrow and profile.clip == "float" and (high + int(zero) < limits.max or not _is_rectified(source)):
        source = add("Clip", source, constant(low * step), constant(high * step))
        narrow = False
    x = add("QuantizeLinear", source, constant(step), constant(zero))
    if narrow and profile.clip == "integer":
        x = add("Clip", x, constant(zero.dtype.type(low + int(zero))), constant(zero.dtype.type(high + int(zero))))
    x = add("DequantizeLinear", x, constant(step), constant(zero))
    graph.insert_before(first, nodes)
    last.outputs[0].replace_all_uses_with(x)
    graph.remove(quantiser.nodes, safe=True)


def _is_rectified(value: ir.Value | None) -> bool:
    producer = value.producer() if value is not None else None
    return producer is not None and producer.op_type == "Relu"


def fold_biases(graph: ir.Graph) -> None:
    """Write int32 biases as the floats that they stand for."""
    for node in list(graph):
        if node.op_type != "DequantizeLinear" or (integers := _value(node.inputs[0])) is None:
            continue
        if integers.dtype == ir.DataType.INT32:
            real = _array(node.inputs[0]).astype(np.float32) * _array(node.inputs[1])
            node.outputs[0].replace_all_uses_with(_initialiser(graph, node.outputs[0], real))
            graph.remove(node, safe=True)


_ELEMENTWISE = ("Relu", "QuantizeLinear", "Clip")


def shuffle_integers(graph: ir.Graph) -> None:
    """Move DepthToSpace to where its map is of bytes: it permutes, so that elementwise nodes commute with it."""
    for node in [node for node in graph if node.op_type == "DepthToSpace"]:
        # Downwards, past what makes bytes of a convolution's output ...
        while len(readers := node.outputs[0].consumers()) == 1 and readers[0].op_type in _ELEMENTWISE:
            _swap(graph, node, readers[0])
        # ... or upwards, before the bytes are made real.
        before = node.inputs[0].producer() if node.inputs[0] is not None else None
        if before is not None and before.op_type == "DequantizeLinear":
            shuffled = ir.node("DepthToSpace", [before.inputs[0]], node.attributes)
            real = ir.node("DequantizeLinear", [shuffled.outputs[0], *before.inputs[1:]])
            for made, of in ((shuffled, node), (real, before)):
                made.name = made.outputs[0].name = f"{of.outputs[0].name}/shuffled"
            graph.insert_before(node, [shuffled, real])
            node.outputs[0].replace_all_uses_with(real.outputs[0])
            graph.remove(node, safe=True)


def _swap(graph: ir.Graph, node: ir.Node, reader: ir.Node) -> None:
    """``reader(node(x))`` as ``node(reader(x))``, for a reader whose first input is its map."""
    after = ir.node(reader.op_type, [node.inputs[0], *reader.inputs[1:]], reader.attributes, name=reader.name)
    after.outputs[0].name = f"{reader.outputs[0].name}/before"
    graph.insert_before(node, after)
    node.replace_input_with(0, after.outputs[0])
    reader.outputs[0].replace_all_uses_with(node.outputs[0])
    graph.remove(reader, safe=True)


def requantise_by_lookup(graph: ir.Graph) -> None:
    """Write what turns one quantised map into another, with a Relu between or nothing, as a LeakyRelu of its own.

    ONNX Runtime computes DequantizeLinear, LeakyRelu, QuantizeLinear by one table of 256 bytes.
    """
    for node in [node for node in graph if node.op_type == "QuantizeLinear"]:
        source, slope = node.inputs[0], 1.0
        if _is_rectified(source):
            source, slope = source.producer().inputs[0], 0.0  # type: ignore[union-attr]
        before = source.producer() if source is not None else None
        if before is not None and before.op_type == "DequantizeLinear":
            table = ir.node("LeakyRelu", [source], {"alpha": slope}, name=f"{node.name}/lookup")
            table.outputs[0].name = f"{node.outputs[0].name}/lookup"
            graph.insert_before(node, table)
            node.replace_input_with(0, table.outputs[0])


def unshare_integers(graph: ir.Graph) -> None:
    """Give every DequantizeLinear weights and zero points of its own.

    The exporter merges equal tensors, and most zero points are equal. ONNX Runtime fails to open such a file
    on processors where it has to convert int8 weights ("Attempt to replace the existing tensor").
    """
    used: set[str | None] = set()
    for node in graph:
        if node.op_type == "DequantizeLinear":
            for i, value in enumerate(node.inputs):
                if value is not None and (tensor := _value(value)) is not None and tensor.dtype.is_integer():
                    if value.name in used:
                        node.replace_input_with(i, _initialiser(graph, node.outputs[0], tensor.numpy()))
                    used.add(value.name)


def _value(value: ir.Value | None) -> ir.TensorProtocol | None:
    return value.const_value if value is not None and value.is_initializer() else None


def _array(value: ir.Value | None) -> np.ndarray:
    tensor = ir.convenience.get_const_tensor(value) if value is not None else None
    if tensor is None:
        raise HwnasError(f"{value.name if value else 'a missing input'} is not constant in the exported graph")
    return tensor.numpy()


def _initialiser(graph: ir.Graph, of: ir.Value, array: np.ndarray) -> ir.Value:
    """A new initialiser, named after the value it is for."""
    name = f"{of.name}/constant_{len(graph.initializers)}"
    while name in graph.initializers:
        name += "_"
    value = ir.val(name, const_value=ir.tensor(array, name=name))
    graph.register_initializer(value)
    return value
