"""Memory that a deployed network needs: its weights at their widths, and the feature maps alive at the worst moment."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor, fx, nn

from hwnas.architecture import Architecture
from hwnas.cost_models.base import COST_MODELS, Cost, CostModel, LayerCost
from hwnas.operators import FLOAT_BITS, OperatorSpec, build_operator
from hwnas.operators.edge import replace_edges
from hwnas.operators.layers import FloatLayers
from hwnas.sizes import Size


class StoredActivation(nn.Module):
    """An activation that knows at how many bits its output is kept."""

    def __init__(self, bits: int) -> None:
        super().__init__()
        self.bits = bits

    def forward(self, x: Tensor) -> Tensor:
        return x.relu()


class StorageLayers(FloatLayers):
    """A `LayerFactory` whose activations carry their width."""

    def activation(self, spec: OperatorSpec) -> nn.Module:
        return StoredActivation(spec.activation_bits)


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, StoredActivation | nn.BatchNorm2d) or super().is_leaf_module(m, module_qualified_name)


class _Shapes(fx.Interpreter):
    """Runs the graph on the meta device and notes how many elements each node writes."""

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        # The output node returns what another one has written.
        n.meta["elements"] = result.numel() if isinstance(result, Tensor) and n.op != "output" else 0
        return result


def peak_activation_bytes(architecture: Architecture, input_size: Size) -> int:
    """Bytes of the feature maps that are alive together at the worst moment of one image's inference.

    Nodes run in order, each writes a buffer of its own, and a buffer is freed after its last reader. An activation is
    computed where its map is written: a map read by activations only is kept at their width (the widest of them).
    Sums, and what is added, take eight bits where every operator is quantised; all else (the output) is float.
    """
    with torch.device("meta"):
        network = architecture.build(StorageLayers()).eval()
        edge_bits = 8 if architecture.is_fully_quantised else FLOAT_BITS
        replace_edges(network, lambda edge: StoredActivation(edge_bits))
        sample = torch.empty(1, 3, *input_size)
    graph = _Tracer().trace(network)
    module = fx.GraphModule(network, graph)
    _Shapes(module).run(sample)

    def activation(node: fx.Node) -> StoredActivation | None:
        found = module.get_submodule(str(node.target)) if node.op == "call_module" else None
        return found if isinstance(found, StoredActivation) else None

    nodes = list(graph.nodes)
    position = {node: i for i, node in enumerate(nodes)}
    # A fused activation is the buffer of the node that it reads.
    owner: dict[fx.Node, fx.Node] = {}
    size: dict[fx.Node, float] = {}
    last: dict[fx.Node, int] = {}
    for node in nodes:
        readers = [activation(user) for user in node.users]
        widths = [reader.bits for reader in readers if reader is not None]
        fused = activation(node) is not None and all(activation(user) for user in node.args[0].users)  # type: ignore[union-attr]
        owner[node] = owner[node.args[0]] if fused else node  # type: ignore[index]
        if not fused:
            own = activation(node)
            bits = own.bits if own else max(widths) if widths and len(widths) == len(readers) else FLOAT_BITS
            size[node] = node.meta["elements"] * bits / 8
        last[owner[node]] = max([position[node], *(position[user] for user in node.users)])
    return int(max(sum(size[n] for n in size if position[n] <= i <= last[n]) for i in range(len(nodes))))


@cache
def _parameter_bytes(spec: OperatorSpec) -> float:
    with torch.device("meta"):
        module = build_operator(spec, FloatLayers())
    weights = sum(m.weight.numel() for m in module.modules() if isinstance(m, nn.Conv2d))
    total = sum(p.numel() for p in module.parameters())
    # Biases and whatever else a user's operator learns are added to wide sums and stay wide.
    return (weights * spec.weight_bits + (total - weights) * FLOAT_BITS) / 8


class MemoryCost(CostModel):
    """Bytes of the weights at their widths, plus `peak_activation_bytes`. The peak does not add up over operators."""

    name = "memory"
    unit = "B"
    default_input_size = (180, 320)
    additive = False

    def operator_cost(self, spec: OperatorSpec, size: Size) -> float:
        return _parameter_bytes(spec)

    def architecture_cost(self, architecture: Architecture, input_size: Size | None = None) -> Cost:
        weights = super().architecture_cost(architecture, input_size)
        peak = LayerCost(
            "(activations)", "peak of live maps", 1, peak_activation_bytes(architecture, weights.input_size)
        )
        return Cost(self.name, weights.value + peak.value, self.unit, weights.input_size, (*weights.layers, peak))


COST_MODELS.register(MemoryCost.name)(MemoryCost())
