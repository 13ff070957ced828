"""Does a graph keep the rules of a runtime? Read off the graph itself, without the runtime."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnx_ir as ir
from onnx_ir.passes.common import IdentityEliminationPass, InlinePass

from hwnas.errors import HwnasError, UsageError, first_line
from hwnas.exporters.lint import layers, operators, quantisers
from hwnas.exporters.lint.base import Finding, Rule
from hwnas.exporters.profiles import Profile

_PROBE_SIDE = 16

RULES: dict[str, tuple[Rule, ...]] = {
    "tensorrt": (
        operators.known_operators,
        operators.quantised_by_pairs,
        operators.no_doubles,
        quantisers.constant_scales,
        quantisers.symmetric,
        quantisers.one_step_for_maps,
        quantisers.same_step,
        quantisers.adjacent,
        layers.weights_per_channel,
        layers.float_biases,
        layers.both_operands_quantised,
        layers.tensor_core_widths,
    ),
    "cpu": (
        quantisers.constant_scales,
        quantisers.one_step_for_maps,
        layers.weights_per_channel,
        layers.both_operands_quantised,
        layers.quantised_outputs,
        layers.unsigned_maps,
        layers.narrow_weights,
    ),
    "qnn": (
        operators.known_operators,
        operators.quantised_by_pairs,
        operators.no_doubles,
        quantisers.constant_scales,
        quantisers.one_step_for_maps,
        quantisers.same_step,
        quantisers.symmetric_weights,
        quantisers.float_clips,
        quantisers.clips_from_zero,
        layers.weights_per_channel,
        layers.both_operands_quantised,
        layers.static_shapes,
    ),
}
"""Rules by the name that profiles know them under."""


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
        made = _shape_of_output(model)
        read = ir.from_proto(model)
        # What only passes a value on, and functions of the file's own, would hide nodes from the rules.
        InlinePass()(read)
        IdentityEliminationPass()(read)
        graph = read.graph
    except HwnasError:
        raise
    # Protobuf, the checker and the reader each have exceptions of their own.
    except Exception as error:
        raise HwnasError(
            f"{path} is not an ONNX file, or is damaged ({first_line(error)}); what is checked are graphs, which "
            "`hwnas export --format onnx` writes"
        ) from error
    _require_network(path, graph)
    _require_enlargement(path, made)
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


def _shape_of_output(model: onnx.ModelProto) -> list[int] | None:
    """What the graph makes of an image of 16x16, or of the size that it takes; None where that cannot be inferred."""
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    constants = {tensor.name for tensor in probe.graph.initializer}
    for image in probe.graph.input:
        if image.name not in constants:
            for dim in image.type.tensor_type.shape.dim:
                dim.dim_value = dim.dim_value or _PROBE_SIDE
    if not probe.graph.output:
        return None
    probe.graph.output[0].type.tensor_type.ClearField("shape")
    dims = onnx.shape_inference.infer_shapes(probe, data_prop=True).graph.output[0].type.tensor_type.shape.dim
    sides = [dim.dim_value for dim in (*probe.graph.input[0].type.tensor_type.shape.dim, *dims)]
    return sides if len(sides) == 8 and all(sides[1:4] + sides[5:]) else None


def _require_enlargement(path: Path, sides: list[int] | None) -> None:
    if sides is None:
        return
    (height, width), (made_height, made_width) = sides[2:4], sides[6:]
    scale = made_height // height
    if scale < 2 or sides[5] != 3 or (made_height, made_width) != (scale * height, scale * width):
        raise HwnasError(f"{path} does not upscale RGB images: of {sides[:4]} it makes {sides[4:]}")
