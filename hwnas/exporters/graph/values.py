"""Reading and changing an ONNX graph: its constants, and who makes and reads a value."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from numpy.typing import ArrayLike

from hwnas.errors import HwnasError


def stored(value: ir.Value | None) -> ir.TensorProtocol | None:
    """The tensor of an initialiser; None for whatever is computed."""
    return value.const_value if value is not None and value.is_initializer() else None


def array(value: ir.Value | None) -> np.ndarray:
    """The numbers of a constant.

    Raises:
        HwnasError: if the value is computed.
    """
    tensor = ir.convenience.get_const_tensor(value) if value is not None else None
    if tensor is None:
        raise HwnasError(f"{value.name if value else 'a missing input'} is not constant in the exported graph")
    return tensor.numpy()


def add_constant(graph: ir.Graph, of: ir.Value, content: ArrayLike) -> ir.Value:
    """A new initialiser, named after the value that it is for."""
    name = f"{of.name}/constant_{len(graph.initializers)}"
    while name in graph.initializers:
        name += "_"
    value = ir.val(name, const_value=ir.tensor(np.asarray(content), name=name))
    graph.register_initializer(value)
    return value


def producer(value: ir.Value | None, operation: str) -> ir.Node | None:
    """The node that computes ``value``, if it is an ``operation``."""
    node = value.producer() if value is not None else None
    return node if node is not None and node.op_type == operation else None


def substitute(old: ir.Value, new: ir.Value) -> None:
    """Have all who read ``old`` read ``new``, which takes its place among the graph's outputs too."""
    if old.is_graph_output():
        new.shape, new.type = old.shape, old.type
        new.name, old.name = old.name, f"{old.name}/replaced"
    old.replace_all_uses_with(new, replace_graph_outputs=True)
