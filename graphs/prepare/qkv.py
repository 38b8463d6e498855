"""One Gemm for queries, keys and values, split by a Transpose and three Gathers, or by a Split -> three Gemms.

Splitting costs a pass or two over a map that is three times as wide as the network; three Gemms cost what one does.
"""

from math import prod

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from graphs.large_weights import computed
from graphs.prepare.nodes import add_constant, add_sizes, add_tensor, describe, made_by, put, reshape_of
from graphs.prepare.rewriting import constant, matrix_shape, static_shape

_PARTS_FIRST = (2, 0, 3, 1, 4)


def split_qkv(model: ir.Model) -> tuple[ir.Model, bool]:
    """Rewrite every Gather of one part of Transpose(Reshape(Gemm)), with the parts as the third axis of the Reshape;
    and every Split of the last axis of Gemm, or of Reshape(Gemm), that nothing else reads."""
    changed = sum(_gathered(model.graph, node) or _split(model.graph, node) for node in list(model.graph))
    if changed:
        RemoveUnusedNodesPass()(model)
    return model, bool(changed)


def _gathered(graph: ir.Graph, node: ir.Node) -> bool:
    """Gather(Transpose(Reshape(Gemm(x, w, b))), part) -> Transpose(Reshape(Gemm(x, w[part], b[part])))"""
    transpose = made_by(node.inputs[0], "Transpose") if node.op_type == "Gather" else None
    if transpose is None or tuple(transpose.attributes.get_ints("perm", ())) != _PARTS_FIRST:
        return False
    index, reshape = constant(node.inputs[1]), reshape_of(transpose.inputs[0])
    gemm = None if reshape is None else made_by(reshape.inputs[0], "Gemm")
    if index is None or index.shape != () or node.attributes.get_int("axis", 0) != 0 or gemm is None or reshape is None:
        return False
    shape = static_shape(reshape.outputs[0])
    if shape is None or len(shape) != 5 or not _is_joint(gemm, prod(shape[2:])):
        return False
    batch, tokens, parts, heads, features = shape
    part, rows = int(index) % parts, heads * features
    own = _own_gemm(graph, gemm, part, part * rows, rows)
    sizes = (batch, tokens, heads, features)
    apart = ir.node("Reshape", [own.outputs[0], add_sizes(graph, f"{own.name}.sizes", sizes)], name=f"{own.name}.heads")
    describe(apart.outputs[0], f"{own.name}.heads", gemm.outputs[0], sizes)
    turn = ir.node("Transpose", [apart.outputs[0]], {"perm": [0, 2, 1, 3]}, name=f"{own.name}.turn")
    put(graph, node, [own, apart, turn])
    return True


def _split(graph: ir.Graph, node: ir.Node) -> bool:
    """Split(Reshape(Gemm(x, w, b))) -> a Reshape(Gemm(x, w[part], b[part])) for each part"""
    if node.op_type != "Split" or node.inputs[0] is None:
        return False
    joint = node.inputs[0]
    reshape = reshape_of(joint)
    gemm = made_by(joint if reshape is None else reshape.inputs[0], "Gemm")
    shape, sizes = static_shape(joint), [static_shape(output) for output in node.outputs]
    if gemm is None or shape is None or None in sizes or not _is_joint(gemm, shape[-1]):
        return False
    read = [joint, gemm.outputs[0]]
    alone = all(len(value.uses()) == 1 and not value.is_graph_output() for value in read)
    if not alone or node.attributes.get_int("axis", 0) % len(shape) != len(shape) - 1:
        return False
    start = 0
    for part, (output, size) in enumerate(zip(node.outputs, sizes, strict=True)):
        assert size is not None  # as above
        own = _own_gemm(graph, gemm, part, start, size[-1])
        start += size[-1]
        made = [own]
        if reshape is not None:
            new = add_sizes(graph, f"{own.name}.sizes", size)
            made.append(ir.node("Reshape", [own.outputs[0], new], name=f"{own.name}.map"))
        result, name = made[-1].outputs[0], output.name
        graph.insert_before(node, made)
        output.replace_all_uses_with(result, replace_graph_outputs=True)
        output.name = None
        describe(result, str(name), gemm.outputs[0], size)
    graph.remove(node, safe=True)
    return True


def _is_joint(gemm: ir.Node, columns: int) -> bool:
    """Whether a Gemm is a layer with this many outputs, its weights constant and a row for each."""
    matrix, bias = matrix_shape(gemm.inputs[1]), constant(gemm.inputs[2] if len(gemm.inputs) > 2 else None)
    whole = matrix is not None and matrix[0] == columns and bias is not None and bias.shape == (columns,)
    return whole and gemm.attributes.get_int("transB", 0) == 1


def _own_gemm(graph: ir.Graph, gemm: ir.Node, part: int, start: int, rows: int) -> ir.Node:
    """The layer that gives `rows` of a joint one's outputs, from `start` on."""
    weight, matrix_size, bias = gemm.inputs[1], matrix_shape(gemm.inputs[1]), constant(gemm.inputs[2])
    whole = None if weight is None else ir.convenience.get_const_tensor(weight)
    shape = static_shape(gemm.outputs[0])
    assert whole is not None and matrix_size is not None and bias is not None and shape is not None  # _is_joint
    name = f"{gemm.name}.part{part}"
    tensor = computed((rows, matrix_size[1]), whole, lambda: whole.numpy()[start : start + rows])
    matrix = add_tensor(graph, f"{name}.weight", tensor)
    bias_part = add_constant(graph, f"{name}.bias", np.array(bias[start : start + rows]))
    own = ir.node("Gemm", [gemm.inputs[0], matrix, bias_part], {"transB": 1}, name=name)
    describe(own.outputs[0], f"{name}.out", gemm.outputs[0], (shape[0], rows))
    return own
