"""Bicubic enlargement by operations that every runtime is fast at."""

from __future__ import annotations

import onnx_ir as ir

from hwnas.exporters.graph.values import add_constant, substitute
from hwnas.networks.bicubic import REACH, A, bicubic_kernels

COLOURS = 3

ENLARGE = "/bicubic/"
"""What the names of these nodes start with."""


def enlarge_by_convolution(graph: ir.Graph) -> None:
    """Write bicubic enlargement of the image as a convolution of fixed weights and a DepthToSpace.

    Equal, rounding apart; ONNX Runtime takes a thirtieth of the time for the two (docs/results.md).
    """
    for node in [node for node in graph.inputs[0].consumers() if node.op_type == "Resize"]:
        if not _is_bicubic(node) or (scale := _scale(node)) is None:
            continue
        prefix = f"{ENLARGE}{(node.name or str(node.outputs[0].name)).strip('/')}/"
        kernels = bicubic_kernels(scale).reshape(-1, 1, 2 * REACH + 1, 2 * REACH + 1).repeat(COLOURS, 1, 1, 1)
        pads = add_constant(graph, node.outputs[0], [0, 0, REACH, REACH, 0, 0, REACH, REACH])
        weights = add_constant(graph, node.outputs[0], kernels.float().numpy())
        padded = ir.node("Pad", [node.inputs[0], pads], {"mode": "edge"}, name=f"{prefix}Pad")
        convolved = ir.node("Conv", [padded.outputs[0], weights], {"group": COLOURS}, name=f"{prefix}Conv")
        attributes: dict[str, int | str] = {"blocksize": scale, "mode": "CRD"}
        shuffled = ir.node("DepthToSpace", [convolved.outputs[0]], attributes, name=f"{prefix}DepthToSpace")
        nodes = [padded, convolved, shuffled]
        for made in nodes:
            made.outputs[0].name = made.name
        graph.insert_before(node, nodes)
        substitute(node.outputs[0], shuffled.outputs[0])
        graph.remove(node, safe=True)


def _is_bicubic(node: ir.Node) -> bool:
    kind = [node.attributes[name].as_string() for name in ("mode", "coordinate_transformation_mode")]
    return kind == ["cubic", "half_pixel"] and round(node.attributes["cubic_coeff_a"].as_float(), 6) == A


def _scale(node: ir.Node) -> int | None:
    """The whole number, 2 or more, that both sides are enlarged by; None for anything else."""
    given = node.inputs[2] if len(node.inputs) > 2 else None
    scales = ir.convenience.get_const_tensor(given) if given is not None else None
    sides = [] if scales is None else [float(side) for side in scales.numpy()]
    if len(sides) != 4 or sides[:2] != [1, 1] or sides[2] != sides[3] or sides[2] < 2 or sides[2] % 1:
        return None
    return int(sides[2])
