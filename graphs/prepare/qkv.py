"""One Gemm for queries, keys and values, split by a Transpose and three Gathers -> three Gemms.

Splitting costs two passes over a map that is three times as wide as the network; three Gemms cost what one does.
"""

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from graphs.large_weights import computed
from graphs.prepare.nodes import add_constant, add_sizes, add_tensor, describe, made_by, put, reshape_of
from graphs.prepare.rewriting import constant, matrix_shape, static_shape

_PARTS_FIRST = (2, 0, 3, 1, 4)


def split_qkv(model: ir.Model) -> tuple[ir.Model, bool]:
    """Rewrite every Gather of one part of Transpose(Reshape(Gemm)), with the parts as the third axis of the Reshape."""
    changed = sum(_split(model.graph, node) for node in list(model.graph))
    if changed:
        RemoveUnusedNodesPass()(model)
    return model, bool(changed)


def _split(graph: ir.Graph, node: ir.Node) -> bool:
    """Gather(Transpose(Reshape(Gemm(x, w, b))), part) -> Transpose(Reshape(Gemm(x, w[part], b[part])))"""
    transpose = made_by(node.inputs[0], "Transpose") if node.op_type == "Gather" else None
    if transpose is None or tuple(transpose.attributes.get_ints("perm", ())) != _PARTS_FIRST:
        return False
    index, reshape = constant(node.inputs[1]), reshape_of(transpose.inputs[0])
    gemm = None if reshape is None else made_by(reshape.inputs[0], "Gemm")
    if index is None or index.shape != () or node.attributes.get_int("axis", 0) != 0 or gemm is None or reshape is None:
        return False
    shape, weight = static_shape(reshape.outputs[0]), gemm.inputs[1]
    matrix, bias = matrix_shape(weight), constant(gemm.inputs[2] if len(gemm.inputs) > 2 else None)
    if shape is None or len(shape) != 5 or matrix is None or bias is None or not gemm.attributes.get_int("transB", 0):
        return False
    batch, tokens, parts, heads, features = shape
    rows = heads * features
    if matrix[0] != parts * rows or bias.shape != (parts * rows,):
        return False
    part = int(index) % parts
    assert weight is not None
    whole = ir.convenience.get_const_tensor(weight)
    assert whole is not None  # matrix_shape
    name, start = f"{gemm.name}.part{part}", part * rows
    tensor = computed((rows, matrix[1]), whole, lambda: whole.numpy()[start : start + rows])
    matrix_part = add_tensor(graph, f"{name}.weight", tensor)
    bias_part = add_constant(graph, f"{name}.bias", np.array(bias[start : start + rows]))
    own = ir.node("Gemm", [gemm.inputs[0], matrix_part, bias_part], {"transB": 1}, name=name)
    describe(own.outputs[0], f"{name}.out", gemm.outputs[0], (batch * tokens, rows))
    sizes = (batch, tokens, heads, features)
    apart = ir.node("Reshape", [own.outputs[0], add_sizes(graph, f"{name}.sizes", sizes)], name=f"{name}.heads")
    describe(apart.outputs[0], f"{name}.heads", gemm.outputs[0], sizes)
    put(
        graph, node, [own, apart, ir.node("Transpose", [apart.outputs[0]], {"perm": [0, 2, 1, 3]}, name=f"{name}.turn")]
    )
    return True
