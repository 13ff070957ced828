"""Passes that put the nodes of a quantised graph into the order, and the form, that a runtime is fast at."""

from __future__ import annotations

import re

import onnx_ir as ir

from hwnas.exporters.graph.values import add_constant, producer, stored, substitute

_QUANTISING = ("Relu", "QuantizeLinear", "Clip")

_BREVITAS = re.compile(r"/act_quant/export_handler|_quant/export_handler|/DequantizeLinear_output_\d+(?=/)")
"""What its export adds to the names of modules, and of their weights and biases."""


def shuffle_integers(graph: ir.Graph) -> None:
    """Move DepthToSpace to where its map is of bytes: it permutes, so that elementwise nodes commute with it."""
    for node in [node for node in graph if node.op_type == "DepthToSpace"]:
        # Downwards, past what makes bytes of a convolution's output ...
        _move_down(graph, node, _QUANTISING)
        # ... or upwards, before the bytes are made real.
        if (before := producer(node.inputs[0], "DequantizeLinear")) is not None:
            shuffled = ir.node("DepthToSpace", [before.inputs[0]], node.attributes)
            real = ir.node("DequantizeLinear", [shuffled.outputs[0], *before.inputs[1:]])
            for made, of in ((shuffled, node), (real, before)):
                made.name = made.outputs[0].name = f"{of.outputs[0].name}/shuffled"
            graph.insert_before(node, [shuffled, real])
            substitute(node.outputs[0], real.outputs[0])
            graph.remove(node, safe=True)


def shuffle_between_quantisers(graph: ir.Graph) -> None:
    """Move DepthToSpace to behind what quantises its map, and quantise what it makes by the same step once more.

    A Relu or DepthToSpace between a convolution and its QuantizeLinear leaves QNN with a convolution of floats.
    """
    for node in [node for node in graph if node.op_type == "DepthToSpace"]:
        moved = _move_down(graph, node, (*_QUANTISING, "Min", "DequantizeLinear"))
        if moved and (before := producer(node.inputs[0], "DequantizeLinear")) is not None:
            again = ir.node("QuantizeLinear", [node.outputs[0], *before.inputs[1:]])
            real = ir.node("DequantizeLinear", [again.outputs[0], *before.inputs[1:]])
            for made, name in ((again, "quantised"), (real, "real")):
                made.name = made.outputs[0].name = f"{node.outputs[0].name}/{name}"
            substitute(node.outputs[0], real.outputs[0])
            again.replace_input_with(0, node.outputs[0])
            graph.insert_after(node, [again, real])
    # What a Min is moved to may come before its bound.
    graph.sort()


def _move_down(graph: ir.Graph, node: ir.Node, operations: tuple[str, ...]) -> bool:
    """Move a permutation past its only reader, as long as that is one of ``operations``; whether any was."""
    moved = False
    while (reader := _only_reader(node.outputs[0])) is not None and reader.op_type in operations:
        # Of two maps, the other would have to be moved, too.
        bound = producer(reader.inputs[-1], "DequantizeLinear") if reader.op_type == "Min" else reader
        if bound is None or (bound is not reader and stored(bound.inputs[0]) is None):
            break
        _swap(graph, node, reader)
        moved = True
    return moved


def _only_reader(value: ir.Value) -> ir.Node | None:
    readers = value.consumers()
    return readers[0] if len(readers) == 1 and not value.is_graph_output() else None


def _swap(graph: ir.Graph, node: ir.Node, reader: ir.Node) -> None:
    """``reader(node(x))`` as ``node(reader(x))``, for a reader whose first input is its map."""
    after = ir.node(reader.op_type, [node.inputs[0], *reader.inputs[1:]], reader.attributes, name=reader.name)
    after.outputs[0].name = f"{reader.outputs[0].name}/before"
    graph.insert_before(node, after)
    node.replace_input_with(0, after.outputs[0])
    substitute(reader.outputs[0], node.outputs[0])
    graph.remove(reader, safe=True)


def separate_rectifiers(graph: ir.Graph) -> None:
    """A Relu for each quantiser of what one has rectified: runtimes fuse what is quantised once."""
    for node in [node for node in graph if node.op_type == "Relu"]:
        quantisers = [reader for reader in node.outputs[0].consumers() if reader.op_type == "QuantizeLinear"]
        for i, reader in enumerate(quantisers[1:]):
            own = ir.node("Relu", node.inputs, name=f"{node.name}/{i}")
            own.outputs[0].name = f"{node.outputs[0].name}/{i}"
            graph.insert_before(reader, own)
            reader.replace_input_with(0, own.outputs[0])


def requantise_by_lookup(graph: ir.Graph) -> None:
    """Write what turns one quantised map into another, with a Relu between or nothing, as a LeakyRelu of its own.

    ONNX Runtime computes DequantizeLinear, LeakyRelu, QuantizeLinear by one table of 256 bytes.
    """
    for node in [node for node in graph if node.op_type == "QuantizeLinear"]:
        source, slope = node.inputs[0], 1.0
        if (rectifier := producer(source, "Relu")) is not None:
            source, slope = rectifier.inputs[0], 0.0
        if producer(source, "DequantizeLinear") is not None:
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
                if value is not None and (tensor := stored(value)) is not None and tensor.dtype.is_integer():
                    if value.name in used:
                        node.replace_input_with(i, add_constant(graph, node.outputs[0], tensor.numpy()))
                    used.add(value.name)


def shorten_names(graph: ir.Graph) -> None:
    """Number the values, whose names as paths of modules take as much space as the weights.

    Nodes keep theirs, as far as they say what of the network they are.
    """
    for node in graph:
        node.name = _BREVITAS.sub("", node.name or "")
    kept = {id(value) for value in (*graph.inputs, *graph.outputs)}
    constants = list(graph.initializers.values())
    computed = [value for node in graph for value in node.outputs if id(value) not in kept]
    graph.initializers.clear()
    for i, value in enumerate(constants):
        value.name = f"c{i}"
        if value.const_value is not None:
            value.const_value.name = value.name
        graph.initializers[value.name] = value
    for i, value in enumerate(computed):
        value.name = f"v{i}"
        # Runtimes infer what they need.
        value.shape = value.type = None
