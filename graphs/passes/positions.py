"""Passes over decomposed relative positions of an attention (SAM, ViTDet)."""

import numpy as np
import onnx_ir as ir

from graphs.onnx.readers import SWAP_MIDDLE_AXES, constant, made_by, reshape_of, static_shape
from graphs.onnx.rewriting import Attribute, add_constant, add_sizes, new_node, remove_unused_nodes, replace_node
from graphs.passes.registry import graph_pass

_ROWS, _COLUMNS = "bnhwc,hkc->bnhwk", "bnhwc,wkc->bnhwk"


@graph_pass("export", after="fold_scale")
def join_relative_positions(model: ir.Model) -> tuple[ir.Model, bool]:
    """Rewrite every sum of scores and of the two position terms, as `torch.einsum` exports them, as one product.

    The score of query q and key k is q.k / sqrt(d) + q.R_h[rows apart] + q.R_w[columns apart]. Written out, the last
    two are an Einsum each, added to each other and to the scores: two passes over the largest maps of the network. As
    more features of the queries, multiplied by a one where the key has that row or column, they are part of the one
    product.
    """
    changed = sum(_join(model.graph, node) for node in list(model.graph))
    if changed:
        remove_unused_nodes(model)
    return model, bool(changed)


def _join(graph: ir.Graph, node: ir.Node) -> bool:
    if node.op_type != "Add":
        return False
    for scores, bias in (node.inputs, tuple(reversed(node.inputs))):
        product, terms = made_by(scores, "MatMul"), _terms(bias)
        if product is not None and terms is not None and len(product.outputs[0].uses()) == 1:
            return _rewrite(graph, node, product, *terms)
    return False


def _terms(bias: ir.Value | None) -> tuple[ir.Value, ir.Value, ir.Value] | None:
    """Return the grid of queries (B, heads, h, w, d), and the constant positions (side, keys, d) by rows and
    columns.
    """
    reshape = reshape_of(bias)
    both = None if reshape is None else made_by(reshape.inputs[0], "Add")
    found: dict[str, ir.Node] = {}
    for value in () if both is None else both.inputs:
        wider = None if value is None else value.producer()
        if wider is None or wider.op_type not in ("Unsqueeze", "Reshape"):
            return None
        einsum = made_by(wider.inputs[0], "Einsum")
        if einsum is None or constant(einsum.inputs[1]) is None:
            return None
        found[einsum.attributes.get_string("equation", "").replace(" ", "")] = einsum
    if set(found) != {_ROWS, _COLUMNS}:
        return None
    rows, columns = found[_ROWS], found[_COLUMNS]
    grid, row_table, column_table = rows.inputs[0], rows.inputs[1], columns.inputs[1]
    if grid is None or row_table is None or column_table is None or columns.inputs[0] is not grid:
        return None
    return grid, row_table, column_table


def _rewrite(
    graph: ir.Graph, node: ir.Node, product: ir.Node, grid: ir.Value, row_table: ir.Value, column_table: ir.Value
) -> bool:
    queries, keys = product.inputs
    sizes, scores, key_shape = static_shape(grid), static_shape(node.outputs[0]), static_shape(keys)
    by_row, by_column = constant(row_table), constant(column_table)
    if sizes is None or len(sizes) != 5 or scores is None or key_shape is None or by_row is None or by_column is None:
        return False
    batch, heads, height, width, features = sizes
    key_rows, key_columns = by_row.shape[1], by_column.shape[1]
    tokens = height * width
    if key_rows + key_columns > features:  # twice the work and more in the product, to save a pass over the scores
        return False
    if scores != (batch, heads, tokens, key_rows * key_columns) or key_shape[-2] != features:
        return False
    name = node.name or str(node.outputs[0].name)

    def made(op_type: str, inputs: list[ir.Value | None], what: str, **attributes: Attribute) -> ir.Node:
        return new_node(op_type, inputs, attributes, name=f"{name}.{what}", output=f"{name}.{what}")

    def reshaped(value: ir.Value, what: str, *shape: int) -> ir.Node:
        return made("Reshape", [value, add_sizes(graph, f"{name}.{what}.sizes", shape)], what)

    # (h, d, keys) and (w, d, keys): each row of the grid, then each column, has a matrix of its own. Heads are taken as
    # part of the batch: TensorFlow's route reads a product of rank 5 wrongly on small grids.
    rows_table = add_constant(graph, f"{name}.row_table", by_row.transpose(0, 2, 1))
    columns_table = add_constant(graph, f"{name}.column_table", by_column.transpose(0, 2, 1))
    places = _places(graph, (batch, heads, key_rows, key_columns), by_row.dtype)
    maps = reshaped(grid, "maps", batch * heads, height, width, features)
    rows = made("MatMul", [maps.outputs[0], rows_table], "rows")
    turned = made("Transpose", [maps.outputs[0]], "turned", perm=SWAP_MIDDLE_AXES)
    columns = made("MatMul", [turned.outputs[0], columns_table], "columns")
    back = made("Transpose", [columns.outputs[0]], "back", perm=SWAP_MIDDLE_AXES)
    flat_rows = reshaped(rows.outputs[0], "flat_rows", batch, heads, tokens, key_rows)
    flat_columns = reshaped(back.outputs[0], "flat_columns", batch, heads, tokens, key_columns)
    left = made("Concat", [queries, flat_rows.outputs[0], flat_columns.outputs[0]], "queries", axis=-1)
    right = made("Concat", [keys, places], "keys", axis=-2)
    final = ir.node("MatMul", [left.outputs[0], right.outputs[0]], name=f"{name}.scores")
    replace_node(graph, node, [maps, rows, turned, columns, back, flat_rows, flat_columns, left, right, final])
    return True


def _places(graph: ir.Graph, sizes: tuple[int, int, int, int], dtype: np.dtype) -> ir.Value:
    """Return (B, heads, rows + columns, keys), 1 where a key has that row or column, else 0; layers share it."""
    name = "places." + "x".join(map(str, sizes))
    if name in graph.initializers:
        return graph.initializers[name]
    batch, heads, rows, columns = sizes
    ones = np.concatenate([np.repeat(np.eye(rows), columns, 1), np.tile(np.eye(columns), rows)]).astype(dtype)
    return add_constant(graph, name, np.broadcast_to(ones, (batch, heads, *ones.shape)))


# For relative positions that could not be joined.
@graph_pass("export", after="split_queries")
def einsum_to_matmul(model: ir.Model) -> tuple[ir.Model, bool]:
    """Rewrite every Einsum of (B, heads, h, w, c) with a constant (h, k, c) or (w, k, c) to (B, heads, h, w, k).

    Relative positions that are not joined with the product are such Einsums. Both runtimes take an Einsum apart as they
    load it, each in its own way; written out as MatMul of rank 4 between Reshapes, they compute the same, and a
    lowering sees only operators that it knows.
    """
    return model, bool(sum(_rewrite_einsum(model.graph, node) for node in list(model.graph)))


def _rewrite_einsum(graph: ir.Graph, node: ir.Node) -> bool:
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
    made: list[ir.Node] = []

    def add(op_type: str, inputs: list[ir.Value | None], what: str, **attributes: Attribute) -> None:
        made.append(new_node(op_type, inputs, attributes, name=f"{name}.{what}", output=f"{name}.{what}.value"))

    add("Reshape", [node.inputs[0], add_sizes(graph, f"{name}.maps.sizes", shape)], "maps")
    matrices = add_constant(graph, f"{name}.table", table.transpose(0, 2, 1))
    if kind == _COLUMNS:
        add("Transpose", [made[-1].outputs[0]], "turned", perm=SWAP_MIDDLE_AXES)
    add("MatMul", [made[-1].outputs[0], matrices], "product")
    if kind == _COLUMNS:
        add("Transpose", [made[-1].outputs[0]], "back", perm=SWAP_MIDDLE_AXES)
    add("Reshape", [made[-1].outputs[0], add_sizes(graph, f"{name}.sizes", (*maps[:-1], keys))], "out")
    replace_node(graph, node, made)
    return True
