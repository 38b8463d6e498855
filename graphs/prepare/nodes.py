"""Reading and rewriting single nodes, for passes whose patterns cross values that several nodes read."""

import numpy as np
import onnx_ir as ir

from backends.tensor import Array
from graphs.prepare.rewriting import constant


def made_by(value: ir.Value | None, op_type: str) -> ir.Node | None:
    """The node that makes a value, if it is of this type."""
    node = None if value is None else value.producer()
    return node if node is not None and node.op_type == op_type else None


def reshape_of(value: ir.Value | None) -> ir.Node | None:
    """The Reshape that makes a value, if its sizes are fixed."""
    node = made_by(value, "Reshape")
    return node if node is not None and constant(node.inputs[1]) is not None else None


def put(graph: ir.Graph, old: ir.Node, new: list[ir.Node]) -> None:
    """Put nodes in the place of one, the last of them under the name of its output."""
    output, result = old.outputs[0], new[-1].outputs[0]
    describe(result, str(output.name), output)
    graph.insert_before(old, new)
    output.replace_all_uses_with(result, replace_graph_outputs=True)
    output.name = None
    graph.remove(old, safe=True)


def describe(value: ir.Value, name: str, like: ir.Value | None, shape: tuple[int, ...] | None = None) -> None:
    """Name a new value, of the type of another, and of its shape unless one is given."""
    assert like is not None
    value.name, value.type, value.shape = name, like.type, like.shape if shape is None else ir.Shape(shape)


def add_constant(graph: ir.Graph, name: str, array: Array) -> ir.Value:
    """A new initializer."""
    return add_tensor(graph, name, ir.tensor(np.array(array, order="C")))  # ascontiguousarray gives a scalar an axis


def add_tensor(graph: ir.Graph, name: str, tensor: ir.TensorProtocol) -> ir.Value:
    """A new initializer of a tensor that nobody else has, its values computed perhaps no sooner than it is written."""
    tensor.name = name
    shape = ir.Shape(tensor.shape.numpy())
    value = ir.Value(name=name, const_value=tensor, type=ir.TensorType(tensor.dtype), shape=shape)
    graph.initializers.add(value)
    return value


def add_sizes(graph: ir.Graph, name: str, shape: tuple[int, ...]) -> ir.Value:
    """A shape as an initializer, for a Reshape."""
    return add_constant(graph, name, np.array(shape, np.int64))
