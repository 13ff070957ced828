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
from onnx_ir.passes.common import IdentityEliminationPass, RemoveUnusedNodesPass

from hwnas.errors import HwnasError
from hwnas.exporters.graph.centre import centre_image
from hwnas.exporters.graph.enlarge import enlarge_by_convolution
from hwnas.exporters.graph.folds import fold_biases, fold_factors, fold_weight_clips, integer_batch_norms
from hwnas.exporters.graph.order import (
    requantise_by_lookup,
    separate_rectifiers,
    shuffle_between_quantisers,
    shuffle_integers,
    unshare_integers,
)
from hwnas.exporters.graph.values import add_constant, array, producer, substitute
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
    # The exporter writes equal parameters once, and reads them elsewhere through Identity.
    IdentityEliminationPass()(model)
    graph = model.graph
    separate_rectifiers(graph)
    fold_weight_clips(graph)
    if not profile.integer_bias:
        fold_biases(graph)
    if profile.integers == "signed":
        centre_image(graph)
    for quantiser in list(map_quantisers(graph)):
        _rewrite(graph, quantiser, profile)
    if profile.enlarge == "convolution":
        enlarge_by_convolution(graph)
    if profile.shuffle == "integer":
        shuffle_integers(graph)
    elif profile.shuffle == "quantised":
        shuffle_between_quantisers(graph)
    if profile.folded_factors:
        fold_factors(graph)
    integer_batch_norms(graph)
    if not profile.integer_bias:
        fold_biases(graph)  # those of the batch norms
    if profile.lookup:
        requantise_by_lookup(graph)
    RemoveUnusedNodesPass()(model)
    unshare_integers(graph)


def map_quantisers(graph: ir.Graph) -> Iterator[MapQuantiser]:
    """The quantisers of feature maps, in the order of the graph."""
    for node in graph:
        if node.op_type != "QuantizeLinear":
            continue
        chain = [node]
        while chain[-1].op_type != "DequantizeLinear":
            (reader,) = chain[-1].outputs[0].consumers()
            chain.append(reader)
        zero = int(array(node.inputs[2]))
        limits = np.iinfo(array(node.inputs[2]).dtype)
        low, high = limits.min - zero, limits.max - zero
        for clip in chain[1:-1]:
            low, high = (int(array(bound)) - zero for bound in clip.inputs[1:])
        yield MapQuantiser(np.float32(array(node.inputs[1])), low, high, tuple(chain))


def _rewrite(graph: ir.Graph, quantiser: MapQuantiser, profile: Profile) -> None:
    first, last = quantiser.nodes[0], quantiser.nodes[-1]
    step, low, high = quantiser.step, quantiser.low, quantiser.high
    shift = SHIFT if low < 0 else 0
    zero: np.integer = np.uint8(shift) if profile.integers == "unsigned" else np.int8(0)
    limits = np.iinfo(zero.dtype)
    if low + int(zero) < limits.min or high + int(zero) > limits.max:
        if first.inputs[0] is not None and first.inputs[0].is_graph_input():
            reader = last.outputs[0].consumers()[0].op_type
            raise HwnasError(
                f"a {reader} reads the image as integers; for {profile.description} convolutions alone may"
            )
        raise HwnasError(
            f"the map {first.inputs[0].name} has integers from {low} to {high}, which {profile.description} does not "  # type: ignore[union-attr]
            "have; train the network for a target of that kind (hwnas train --for)"
        )
    source = first.inputs[0]
    nodes: list[ir.Node] = []

    def add(operation: str, *inputs: ir.Value | None) -> ir.Value:
        name = f"{last.outputs[0].name}/{operation}{len(nodes) or ''}"
        node = ir.node(operation, list(inputs), name=name)
        node.outputs[0].name = name
        nodes.append(node)
        return node.outputs[0]

    def constant(value: ArrayLike) -> ir.Value:
        return add_constant(graph, last.outputs[0], value)

    narrow = low + int(zero) > limits.min or high + int(zero) < limits.max
    rectifier = producer(source, "Relu")
    if narrow and profile.clip == "quantised":
        for operation in ("QuantizeLinear", "DequantizeLinear"):
            source = add(operation, source, constant(step), constant(zero))
        if low == 0:
            # QNN takes a Clip from zero for a Relu, and forgets its upper bound.
            bound = add("DequantizeLinear", constant(zero.dtype.type(high)), constant(step), constant(zero))
            source = add("Min", source, bound)
        else:
            source = add("Clip", source, constant(low * step), constant(high * step))
        narrow = False
    elif narrow and profile.clip == "float":
        # A signed type needs no bound below where a ReLU comes before; and where there is a bound, it needs no ReLU.
        if high + int(zero) < limits.max or rectifier is None:
            source = rectifier.inputs[0] if rectifier is not None and low == 0 else source
            source = add("Clip", source, constant(low * step), constant(high * step))
        narrow = False
    x = add("QuantizeLinear", source, constant(step), constant(zero))
    if narrow:
        x = add("Clip", x, constant(zero.dtype.type(low + int(zero))), constant(zero.dtype.type(high + int(zero))))
    x = add("DequantizeLinear", x, constant(step), constant(zero))
    graph.insert_before(first, nodes)
    substitute(last.outputs[0], x)
    graph.remove(quantiser.nodes, safe=True)
