"""Work between two linear layers stays on the matrix that the first one made.

A linear layer on a map of rank 4 is Reshape, Gemm, Reshape. Between two of them stand a GELU and a normalization, which
do not care about the shape; TFLite copies the widest map of the network for a Reshape that others read as well.
"""

import math

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from graphs.prepare.rewriting import constant, static_shape


def keep_rows(model: ir.Model) -> tuple[ir.Model, bool]:
    """Move GELU before a Reshape, merge neighbouring Reshapes, and scale the columns of the matrix itself."""
    steps = (_gelu_first, _one_reshape, _scaled_columns)
    # In running order, and each step before the next: what one leaves is what another looks for.
    changed = sum(step(model.graph, node) for step in steps for node in list(model.graph))
    if changed:
        RemoveUnusedNodesPass()(model)
    return model, bool(changed)


def _gelu_first(graph: ir.Graph, node: ir.Node) -> bool:
    """Gelu(Reshape(x)) -> Reshape(Gelu(x))"""
    reshape = _reshape(node.inputs[0]) if node.op_type == "Gelu" else None
    if reshape is None or len(reshape.outputs[0].uses()) != 1:
        return False
    x, sizes, output = reshape.inputs[0], reshape.inputs[1], node.outputs[0]
    gelu = ir.node("Gelu", [x], dict(node.attributes), name=node.name)
    _describe(gelu.outputs[0], f"{output.name}.rows", x)
    back = ir.node("Reshape", [gelu.outputs[0], sizes], name=f"{node.name}.reshape")
    _put(graph, node, [gelu, back])
    return True


def _one_reshape(graph: ir.Graph, node: ir.Node) -> bool:
    """Reshape(Reshape(x)) -> Reshape(x), or x where that is its shape"""
    first = _reshape(node.inputs[0]) if node.op_type == "Reshape" else None
    shape = static_shape(node.outputs[0])
    if first is None or shape is None:
        return False
    x = first.inputs[0]
    if shape == static_shape(x) and x is not None and not node.outputs[0].is_graph_output():
        node.outputs[0].replace_all_uses_with(x)
        return True
    sizes = _sizes(graph, f"{node.name}.sizes", shape)
    _put(graph, node, [ir.node("Reshape", [x, sizes], name=node.name)])
    return True


def _scaled_columns(graph: ir.Graph, node: ir.Node) -> bool:
    """Reshape(Mul(Reshape(x), scale)), a matrix again with a factor for each column -> Mul(x, Reshape(scale))"""
    product = node.inputs[0].producer() if node.op_type == "Reshape" and node.inputs[0] is not None else None
    if product is None or product.op_type != "Mul" or len(product.outputs[0].uses()) != 1:
        return False
    for reshaped, scale in (product.inputs, tuple(reversed(product.inputs))):
        first = _reshape(reshaped)
        if first is None or scale is None or constant(scale) is not None:
            continue
        x, factors, wide = first.inputs[0], static_shape(scale), static_shape(reshaped)
        shape = static_shape(x)
        if shape is None or len(shape) != 2 or static_shape(node.outputs[0]) != shape or wide is None:
            continue
        columns = shape[1]
        if not factors or len(factors) > len(wide) or wide[-1] != columns or factors[-1] != columns:
            continue
        if math.prod(factors) != columns:
            continue
        row = ir.node("Reshape", [scale, _sizes(graph, f"{node.name}.row", (1, columns))], name=f"{node.name}.scale")
        _describe(row.outputs[0], f"{scale.name}.row", scale, (1, columns))
        _put(graph, node, [row, ir.node("Mul", [x, row.outputs[0]], name=product.name)])
        return True
    return False


def _reshape(value: ir.Value | None) -> ir.Node | None:
    """The Reshape that makes a value, if its sizes are fixed."""
    node = None if value is None else value.producer()
    fixed = node is not None and node.op_type == "Reshape" and constant(node.inputs[1]) is not None
    return node if fixed else None


def _put(graph: ir.Graph, old: ir.Node, new: list[ir.Node]) -> None:
    """Put nodes in the place of one, the last of them under the name of its output."""
    output, result = old.outputs[0], new[-1].outputs[0]
    _describe(result, str(output.name), output)
    graph.insert_before(old, new)
    output.replace_all_uses_with(result, replace_graph_outputs=True)
    output.name = f"{output.name}.before"
    graph.remove(old, safe=True)


def _describe(value: ir.Value, name: str, like: ir.Value | None, shape: tuple[int, ...] | None = None) -> None:
    assert like is not None
    value.name, value.type, value.shape = name, like.type, like.shape if shape is None else ir.Shape(shape)


def _sizes(graph: ir.Graph, name: str, shape: tuple[int, ...]) -> ir.Value:
    tensor = ir.tensor(np.array(shape, np.int64), name=name)
    value = ir.Value(name=name, const_value=tensor, type=ir.TensorType(tensor.dtype), shape=ir.Shape([len(shape)]))
    graph.initializers.add(value)
    return value
