"""Does a graph keep the rules of a runtime? Read off the graph itself, without the runtime."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
import onnx_ir as ir

from hwnas.errors import HwnasError, UsageError, first_line
from hwnas.exporters.graph.values import producer
from hwnas.exporters.profiles import Profile

TENSOR_CORE_CHANNELS = 32
"""Channels of int8 maps are padded to multiples of this on NVIDIA's tensor cores."""


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


def check_model(path: Path, profile: Profile) -> list[Finding]:
    """The findings on a file, errors first.

    Raises:
        UsageError: if there is no such file.
        HwnasError: if it is not ONNX, is damaged, or holds no super-resolution network.
    """
    if not path.is_file():
        raise UsageError(f"there is no file {path}; check the path")
    try:
        model = onnx.load(path, load_external_data=False)
        # Following the paths that a file names would be up to the file.
        if any(map(onnx.external_data_helper.uses_external_data, model.graph.initializer)):
            raise HwnasError(f"{path} keeps its weights in another file; export the network again, into one")
        onnx.checker.check_model(model)
        graph = ir.from_proto(model).graph
    except HwnasError:
        raise
    # Protobuf, the checker and the reader each have exceptions of their own.
    except Exception as error:
        raise HwnasError(
            f"{path} is not an ONNX file, or is damaged ({first_line(error)}); what is checked are graphs, which "
            "`hwnas export --format onnx` writes"
        ) from error
    _require_network(path, graph)
    return _findings(graph, profile)


def _findings(graph: ir.Graph, profile: Profile) -> list[Finding]:
    findings = [finding for rule in RULES[profile.rules] for finding in rule(graph)]
    return sorted(findings, key=lambda finding: (finding.level != "error", finding.rule))


def require_rules(graph: ir.Graph, profile: Profile) -> None:
    """Refuse a graph that breaks a rule of the runtime; its size may be left open until it is compiled.

    Raises:
        HwnasError: with the first node that does.
    """
    for finding in _findings(graph, profile):
        if finding.level == "error" and finding.rule != "static-shapes":
            raise HwnasError(f"{profile.description} would refuse {finding.node}: {finding.message}")


def _require_network(path: Path, graph: ir.Graph) -> None:
    if any(node.op_type == "EPContext" for node in graph):
        raise HwnasError(f"{path} is compiled; what is checked are graphs, which `hwnas export --format onnx` writes")
    inputs = [value for value in graph.inputs if not value.is_initializer()]
    shape = inputs[0].shape if len(inputs) == len(graph.outputs) == 1 else None
    # A dimension that is left open is no number.
    if shape is None or len(shape) != 4 or (isinstance(shape[1], int) and shape[1] != 3):
        found = "; ".join(f"{value.name} {value.shape}" for value in inputs) or "none"
        raise HwnasError(
            f"{path} does not upscale RGB images: its inputs are {found}, expected one [1, 3, height, width]"
        )


def _constant(value: ir.Value | None) -> ir.TensorProtocol | None:
    """The tensor of an initialiser or of a Constant node; None for whatever is computed."""
    tensor = ir.convenience.get_const_tensor(value) if value is not None else None
    return None if isinstance(tensor, ir.ExternalTensor) else tensor


def _nodes(graph: ir.Graph, *operations: str) -> Iterator[ir.Node]:
    """Nodes of the standard's operations, those of branches included."""
    nodes = ir.traversal.RecursiveGraphIterator(graph)
    return (node for node in nodes if node.op_type in operations and node.domain in ("", "ai.onnx"))


def _name(node: ir.Node) -> str:
    return node.name or str(node.outputs[0].name)


def _error(rule: str, node: ir.Node, message: str) -> Finding:
    return Finding("error", rule, _name(node), message)


def _advice(rule: str, node: ir.Node, message: str) -> Finding:
    return Finding("advice", rule, _name(node), message)


def constant_scales(graph: ir.Graph) -> Iterator[Finding]:
    """Steps are constants, positive and finite."""
    for node in _nodes(graph, "QuantizeLinear", "DequantizeLinear"):
        if (step := _constant(node.inputs[1])) is None:
            yield _error("constant-scales", node, "its scale is computed; write it as an initialiser")
        elif not (np.isfinite(step.numpy()) & (step.numpy() > 0)).all():
            yield _error("constant-scales", node, "its scale is not a positive number")


def symmetric(graph: ir.Graph) -> Iterator[Finding]:
    """Maps and weights are int8 with a zero point of zero."""
    for node in _nodes(graph, "QuantizeLinear", "DequantizeLinear"):
        given = node.inputs[2] if len(node.inputs) > 2 else None
        zero, integers = _constant(given), _integers(node)
        if given is not None and zero is None:
            yield _error("symmetric", node, "its zero point is computed; write it as an initialiser")
        elif integers == ir.DataType.UINT8 and given is None:
            yield _error("symmetric", node, "without a zero point it makes uint8; give it one of int8")
        # Biases, the one use of int32, have a rule of their own.
        elif integers not in (ir.DataType.INT8, ir.DataType.INT32, None):
            yield _error(
                "symmetric", node, f"it is {integers.name.lower()}; TensorRT computes maps and weights in int8"
            )
        elif zero is not None and zero.numpy().any():
            yield _error("symmetric", node, f"its zero point is {zero.numpy().ravel()[0]}; it has to be 0")


def _integers(node: ir.Node) -> ir.DataType | None:
    """The type that a QuantizeLinear makes or a DequantizeLinear reads; None where the file leaves it open."""
    if (zero := _constant(node.inputs[2] if len(node.inputs) > 2 else None)) is not None:
        return zero.dtype
    if node.op_type == "QuantizeLinear":
        stated = node.attributes["output_dtype"].as_int() if "output_dtype" in node.attributes else 0
        return ir.DataType(stated) if stated else ir.DataType.UINT8
    constant = _constant(node.inputs[0])
    source = producer(node.inputs[0], "QuantizeLinear")
    return constant.dtype if constant is not None else _integers(source) if source is not None else None


def one_step_for_maps(graph: ir.Graph) -> Iterator[Finding]:
    """Maps have one step, and weights alone one for each channel."""
    for node in _nodes(graph, "QuantizeLinear", "DequantizeLinear"):
        step = _constant(node.inputs[1])
        source = producer(node.inputs[0], "QuantizeLinear") if node.op_type == "DequantizeLinear" else None
        if step is not None and step.size > 1 and _constant(source.inputs[0] if source else node.inputs[0]) is None:
            yield _error("one-step-for-maps", node, f"it has {step.size} steps for one map; give it one")


def adjacent(graph: ir.Graph) -> Iterator[Finding]:
    """Nothing stands between QuantizeLinear and DequantizeLinear."""
    for node in _nodes(graph, "QuantizeLinear"):
        for reader in node.outputs[0].consumers():
            if reader.op_type != "DequantizeLinear":
                yield _error("adjacent", node, f"a {reader.op_type} reads its integers; put it before")


def float_clips(graph: ir.Graph) -> Iterator[Finding]:
    """What narrows a map stands before its QuantizeLinear."""
    for node in _nodes(graph, "QuantizeLinear"):
        if any(reader.op_type == "Clip" for reader in node.outputs[0].consumers()):
            yield _error("float-clips", node, "a Clip reads its integers, which fails below eight bits; put it before")


def same_step(graph: ir.Graph) -> Iterator[Finding]:
    """A map is made real by the step it was quantised by: runtimes that keep its integers take one of the two."""
    for node in _nodes(graph, "QuantizeLinear"):
        made = _constant(node.inputs[1])
        for reader in node.outputs[0].consumers():
            read = _constant(reader.inputs[1]) if reader.op_type == "DequantizeLinear" else None
            if made is not None and read is not None and not np.array_equal(made.numpy(), read.numpy()):
                yield _error("same-step", node, f"{_name(reader)} makes it real by another step; give both the same")


def weights_per_channel(graph: ir.Graph) -> Iterator[Finding]:
    """Quantised weights of convolutions have their steps along axis 0."""
    for node in _nodes(graph, "Conv"):
        source = producer(node.inputs[1], "DequantizeLinear")
        if source is None:
            continue
        axis = source.attributes["axis"].as_int() if "axis" in source.attributes else 1
        step, weight = _constant(source.inputs[1]), _constant(source.inputs[0])
        rank = len(weight.shape) if weight is not None else 4
        if step is not None and step.size > 1 and axis not in (0, -rank):
            yield _error("weights-per-channel", source, f"its steps are along axis {axis}; they have to be along 0")


def float_biases(graph: ir.Graph) -> Iterator[Finding]:
    """Biases of convolutions are float."""
    for node in _nodes(graph, "Conv"):
        if len(node.inputs) > 2 and producer(node.inputs[2], "DequantizeLinear") is not None:
            yield _error("float-biases", node, "its bias is quantised; write it in float")


def tensor_core_widths(graph: ir.Graph) -> Iterator[Finding]:
    """Widths of integer convolutions are multiples of what tensor cores compute at once."""
    for node in _nodes(graph, "Conv"):
        source = producer(node.inputs[1], "DequantizeLinear")
        weight = _constant(source.inputs[0]) if source is not None else None
        width = weight.numpy().shape[0] if weight is not None and weight.shape else 0
        if width % TENSOR_CORE_CHANNELS:
            message = f"{width} channels; tensor cores compute {TENSOR_CORE_CHANNELS} at once, the rest is padding"
            yield _advice("tensor-core-widths", node, message)


def both_operands_quantised(graph: ir.Graph) -> Iterator[Finding]:
    """A convolution of quantised weights reads a quantised map."""
    for node in _nodes(graph, "Conv"):
        if producer(node.inputs[1], "DequantizeLinear") and not producer(node.inputs[0], "DequantizeLinear"):
            yield _advice(
                "both-operands-quantised", node, "its weights are quantised and its map is not: it computes in float"
            )


def quantised_outputs(graph: ir.Graph) -> Iterator[Finding]:
    """What an integer convolution or sum makes is quantised, or it computes in float."""
    for node in _nodes(graph, "Conv", "Add"):
        maps = node.inputs[: 1 if node.op_type == "Conv" else 2]
        if all(producer(x, "DequantizeLinear") for x in maps):
            readers = list(node.outputs[0].consumers())
            readers = [after for r in readers for after in (r.outputs[0].consumers() if r.op_type == "Relu" else [r])]
            if [reader.op_type for reader in readers] != ["QuantizeLinear"]:
                yield _advice("quantised-outputs", node, "its output is not quantised, once: it computes in float")


def unsigned_maps(graph: ir.Graph) -> Iterator[Finding]:
    """Maps are uint8: ONNX Runtime has no fast sums, and slower convolutions, of int8."""
    for node in _nodes(graph, "QuantizeLinear"):
        if _integers(node) == ir.DataType.INT8:
            yield _advice("unsigned-maps", node, "it makes int8; uint8 with a zero point of 128 is faster")


def narrow_weights(graph: ir.Graph) -> Iterator[Finding]:
    """Weights have seven bits, so that pairs of products fit into 16 bits."""
    for node in _nodes(graph, "DequantizeLinear"):
        weight = _constant(node.inputs[0])
        if weight is None or weight.dtype != ir.DataType.INT8:
            continue
        values = weight.numpy()
        # A single product, of a depthwise 1x1 convolution, has no other to be added to.
        if values.ndim == 4 and values.size and values[0].size > 1 and (values.min() < -64 or values.max() > 63):
            message = "its weights use eight bits, which overflows on x86 processors without VNNI"
            yield _advice("narrow-weights", node, f"{message}; set session.x64quantprecision there")


def static_shapes(graph: ir.Graph) -> Iterator[Finding]:
    """Sizes of inputs are numbers."""
    for value in graph.inputs:
        if value.shape is None or any(not isinstance(side, int) for side in value.shape):
            yield Finding("error", "static-shapes", str(value.name), "its size is open; export for one (--input-size)")


RULES: dict[str, tuple[Rule, ...]] = {
    "tensorrt": (
        constant_scales,
        symmetric,
        one_step_for_maps,
        same_step,
        adjacent,
        weights_per_channel,
        float_biases,
        both_operands_quantised,
        tensor_core_widths,
    ),
    "cpu": (
        constant_scales,
        one_step_for_maps,
        weights_per_channel,
        both_operands_quantised,
        quantised_outputs,
        unsigned_maps,
        narrow_weights,
    ),
    "qnn": (
        constant_scales,
        one_step_for_maps,
        same_step,
        float_clips,
        weights_per_channel,
        both_operands_quantised,
        static_shapes,
    ),
}
"""Rules by the name that profiles know them under."""
