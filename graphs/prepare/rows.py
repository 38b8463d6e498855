"""Work between two linear layers stays on the matrix that the first one made.

A linear layer on a map of rank 4 is Reshape, Gemm, Reshape. Between two of them stand a GELU and a normalization, which
do not care about the shape; TFLite copies the widest map of the network for a Reshape that others read as well.
"""

import math

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from graphs.prepare.nodes import add_sizes, describe, put, reshape_of
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
    reshape = reshape_of(node.inputs[0]) if node.op_type == "Gelu" else None
    if reshape is None or len(reshape.outputs[0].uses()) != 1:
        return False
    x, sizes, output = reshape.inputs[0], reshape.inputs[1], node.outputs[0]
    gelu = ir.node("Gelu", [x], dict(node.attributes), name=node.name)
    describe(gelu.outputs[0], f"{output.name}.rows", x)
    back = ir.node("Reshape", [gelu.outputs[0], sizes], name=f"{node.name}.reshape")
    put(graph, node, [gelu, back])
    return True


def _one_reshape(graph: ir.Graph, node: ir.Node) -> bool:
    """Reshape(Reshape(x)) -> Reshape(x), or x where that is its shape"""
    first = reshape_of(node.inputs[0]) if node.op_type == "Reshape" else None
    shape = static_shape(node.outputs[0])
    if first is None or shape is None:
        return False
    x = first.inputs[0]
    if shape == static_shape(x) and x is not None and not node.outputs[0].is_graph_output():
        node.outputs[0].replace_all_uses_with(x)
        return True
    sizes = add_sizes(graph, f"{node.name}.sizes", shape)
    put(graph, node, [ir.node("Reshape", [x, sizes], name=node.name)])
    return True


def _scaled_columns(graph: ir.Graph, node: ir.Node) -> bool:
    """Reshape(Mul(Reshape(x), scale)), a matrix again with a factor for each column -> Mul(x, Reshape(scale))"""
    product = node.inputs[0].producer() if node.op_type == "Reshape" and node.inputs[0] is not None else None
    if product is None or product.op_type != "Mul" or len(product.outputs[0].uses()) != 1:
        return False
    for reshaped, scale in (product.inputs, tuple(reversed(product.inputs))):
        first = reshape_of(reshaped)
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
        row = ir.node("Reshape", [scale, add_sizes(graph, f"{node.name}.row", (1, columns))], name=f"{node.name}.scale")
        describe(row.outputs[0], f"{scale.name}.row", scale, (1, columns))
        put(graph, node, [row, ir.node("Mul", [x, row.outputs[0]], name=product.name)])
        return True
    return False
