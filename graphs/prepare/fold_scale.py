"""A number that multiplies what a Gemm made -> into that Gemm's weights.

An attention scales its queries, or queries and keys, by the size of a head: a pass over a map each. In a product of two
maps the number may move from one side to the other, where the first is read unscaled as well (relative positions).
"""

import math

import numpy as np
import onnx_ir as ir

from graphs.large_weights import computed
from graphs.prepare.nodes import add_constant, add_tensor
from graphs.prepare.rewriting import constant, matrix_shape


def fold_scale(model: ir.Model) -> tuple[ir.Model, bool]:
    """Fold every multiplication by one number behind a Gemm, however the map between them was turned and reshaped."""
    changed = [_fold(model.graph, node) for node in list(model.graph) if node.op_type in ("Mul", "Div")]
    return model, any(changed)


def _fold(graph: ir.Graph, node: ir.Node) -> bool:
    found = _scaled(node)
    if found is None:
        return False
    value, factor = found
    gemm = _source(value, node) or _other_side(node)
    if gemm is None:
        return False
    _multiply(graph, gemm, factor)
    node.outputs[0].replace_all_uses_with(value)
    graph.remove(node, safe=True)
    return True


def _scaled(node: ir.Node) -> tuple[ir.Value, float] | None:
    """What a node multiplies by one finite number, and that number; the shape stays the same."""
    if node.outputs[0].is_graph_output():
        return None
    left, right = node.inputs
    for value, by in ((left, right), (right, left)) if node.op_type == "Mul" else ((left, right),):
        number = constant(by)
        if value is None or number is None or number.size != 1 or number.ndim > 1 or number.dtype.kind != "f":
            continue
        factor = float(number.reshape(())) if node.op_type == "Mul" else 1 / float(number.reshape(()) or np.nan)
        if math.isfinite(factor) and factor and constant(value) is None:
            return value, factor
    return None


def _source(value: ir.Value | None, reader: ir.Node) -> ir.Node | None:
    """The Gemm whose output, only turned and reshaped, is `value`, if nothing but `reader` sees it."""
    while value is not None and not value.is_graph_output() and {user for user, _ in value.uses()} == {reader}:
        node = value.producer()
        if node is None or node.op_type not in ("Reshape", "Transpose", "Gemm"):
            return None
        if node.op_type == "Gemm":
            return node if _is_constant(node) else None
        value, reader = node.inputs[0], node
    return None


def _other_side(node: ir.Node) -> ir.Node | None:
    """The Gemm behind the other operand of the one product that reads the scaled map."""
    users = list(node.outputs[0].uses())
    if len(users) != 1 or users[0][0].op_type != "MatMul":
        return None
    product, index = users[0]
    return _source(product.inputs[1 - index], product)


def _is_constant(gemm: ir.Node) -> bool:
    bias = gemm.inputs[2] if len(gemm.inputs) > 2 else None
    return matrix_shape(gemm.inputs[1]) is not None and (bias is None or constant(bias) is not None)


def _multiply(graph: ir.Graph, gemm: ir.Node, factor: float) -> None:
    weight = gemm.inputs[1]
    tensor = None if weight is None else ir.convenience.get_const_tensor(weight)
    assert tensor is not None  # _is_constant
    name = f"{gemm.outputs[0].name}.scaled"
    scaled = computed(tuple(tensor.shape.numpy()), tensor, lambda: tensor.numpy() * factor)
    gemm.replace_input_with(1, add_tensor(graph, f"{name}.weight", scaled))
    bias = constant(gemm.inputs[2]) if len(gemm.inputs) > 2 else None
    if bias is not None:
        gemm.replace_input_with(2, add_constant(graph, f"{name}.bias", bias * factor))
