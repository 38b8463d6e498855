"""Einsum of maps with a matrix for each row, or for each column -> a MatMul of rank 4 between Reshapes.

What relative positions leave where they are not joined with the product. Both runtimes take an Einsum apart as they
load it, each in its own way; written out, they compute the same, and a lowering sees only operators that it knows.
"""

import onnx_ir as ir

from graphs.prepare.nodes import add_constant, add_sizes, describe, put
from graphs.prepare.rewriting import constant, static_shape

_ROWS, _COLUMNS = "bnhwc,hkc->bnhwk", "bnhwc,wkc->bnhwk"
_TURN = [0, 2, 1, 3]


def einsum_to_matmul(model: ir.Model) -> tuple[ir.Model, bool]:
    """Rewrite every Einsum of (B, heads, h, w, c) with a constant (h, k, c) or (w, k, c) to (B, heads, h, w, k)."""
    return model, bool(sum(_rewrite(model.graph, node) for node in list(model.graph)))


def _rewrite(graph: ir.Graph, node: ir.Node) -> bool:
    equation = node.attributes.get_string("equation", "") if node.op_type == "Einsum" else ""
    kind = (equation or "").replace(" ", "")
    if kind not in (_ROWS, _COLUMNS):
        return False
    maps, table = static_shape(node.inputs[0]), constant(node.inputs[1])
    if maps is None or table is None:
        return False
    batch, heads, height, width, features = maps
    name, keys = node.name or str(node.outputs[0].name), table.shape[1]
    # Heads are part of the batch: a product of rank 5 is read wrongly by one of the lowerings.
    shape = (batch * heads, height, width, features)
    made = [ir.node("Reshape", [node.inputs[0], add_sizes(graph, f"{name}.maps.sizes", shape)], name=f"{name}.maps")]
    matrices = add_constant(graph, f"{name}.table", table.transpose(0, 2, 1))

    def add(op_type: str, inputs: list[ir.Value], what: str, **attributes: list[int]) -> None:
        made.append(ir.node(op_type, inputs, attributes, name=f"{name}.{what}"))

    if kind == _COLUMNS:
        add("Transpose", [made[-1].outputs[0]], "turned", perm=_TURN)
    add("MatMul", [made[-1].outputs[0], matrices], "product")
    if kind == _COLUMNS:
        add("Transpose", [made[-1].outputs[0]], "back", perm=_TURN)
    add("Reshape", [made[-1].outputs[0], add_sizes(graph, f"{name}.sizes", (*maps[:-1], keys))], "out")
    turned = (batch * heads, width, height)
    between = [(*turned, features), (*turned, keys)] if kind == _COLUMNS else []
    sizes = [shape, *between, (*shape[:-1], keys), (*maps[:-1], keys)]
    for new, size in zip(made, sizes, strict=True):
        describe(new.outputs[0], f"{new.name}.value", node.outputs[0], size)
    put(graph, node, made)
    return True
