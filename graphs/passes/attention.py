"""Passes over attentions: a joint layer of queries, keys and values, and maps of scores that are too large."""

from math import prod

import numpy as np
import onnx_ir as ir

from graphs.onnx.readers import (
    SWAP_MIDDLE_AXES,
    Linear,
    constant,
    made_by,
    read_linear,
    read_permutation,
    reshape_of,
    static_shape,
)
from graphs.onnx.rewriting import (
    add_constant,
    add_sizes,
    add_tensor,
    new_node,
    remove_unused_nodes,
    replace_node,
    set_value_info,
)
from graphs.onnx.weights import lazy_tensor
from graphs.passes.registry import graph_pass

_PARTS_FIRST = (2, 0, 3, 1, 4)


@graph_pass("export", after="keep_rows")
def split_qkv(model: ir.Model) -> tuple[ir.Model, bool]:
    """Give each part of a joint linear layer, as of queries, keys and values, a Gemm of its own.

    Rewrites every Gather of one part of Transpose(Reshape(Gemm)), with the parts as the third axis of the Reshape; and
    every Split of the last axis of Gemm, or of Reshape(Gemm), that no other node reads. Splitting costs a pass or two
    over a map that is three times as wide as the network; three Gemms cost the same as one.
    """
    changed = sum(_gathered(model.graph, node) or _split(model.graph, node) for node in list(model.graph))
    if changed:
        remove_unused_nodes(model)
    return model, bool(changed)


def _gathered(graph: ir.Graph, node: ir.Node) -> bool:
    """Gather(Transpose(Reshape(Gemm(x, w, b))), part) -> Transpose(Reshape(Gemm(x, w[part], b[part])))"""
    transpose = made_by(node.inputs[0], "Transpose") if node.op_type == "Gather" else None
    if transpose is None or read_permutation(transpose) != _PARTS_FIRST:
        return False
    index, reshape = constant(node.inputs[1]), reshape_of(transpose.inputs[0])
    if index is None or index.shape != () or node.attributes.get_int("axis", 0) != 0 or reshape is None:
        return False
    joint, shape = _joint(reshape.inputs[0]), static_shape(reshape.outputs[0])
    if joint is None or shape is None or len(shape) != 5 or joint.features_out != prod(shape[2:]):
        return False
    batch, tokens, parts, heads, features = shape
    part, rows = int(index) % parts, heads * features
    own = _own_gemm(graph, joint, part, part * rows, rows)
    sizes = add_sizes(graph, f"{own.name}.sizes", (batch, tokens, heads, features))
    heads_name = f"{own.name}.heads"
    apart = new_node("Reshape", [own.outputs[0], sizes], name=heads_name, output=heads_name)
    turn = ir.node("Transpose", [apart.outputs[0]], {"perm": SWAP_MIDDLE_AXES}, name=f"{own.name}.turn")
    replace_node(graph, node, [own, apart, turn])
    return True


def _split(graph: ir.Graph, node: ir.Node) -> bool:
    """Split(Reshape(Gemm(x, w, b))) -> a Reshape(Gemm(x, w[part], b[part])) for each part"""
    if node.op_type != "Split" or node.inputs[0] is None:
        return False
    whole = node.inputs[0]
    reshape = reshape_of(whole)
    joint = _joint(whole if reshape is None else reshape.inputs[0])
    shape, sizes = static_shape(whole), [static_shape(output) for output in node.outputs]
    if joint is None or shape is None or None in sizes or joint.features_out != shape[-1]:
        return False
    read = [whole, joint.node.outputs[0]]
    alone = all(len(value.uses()) == 1 and not value.is_graph_output() for value in read)
    if not alone or node.attributes.get_int("axis", 0) % len(shape) != len(shape) - 1:
        return False
    start = 0
    for part, (output, size) in enumerate(zip(node.outputs, sizes, strict=True)):
        assert size is not None  # as above
        own = _own_gemm(graph, joint, part, start, size[-1])
        start += size[-1]
        made = [own]
        if reshape is not None:
            new = add_sizes(graph, f"{own.name}.sizes", size)
            made.append(ir.node("Reshape", [own.outputs[0], new], name=f"{own.name}.map"))
        result, name = made[-1].outputs[0], output.name
        graph.insert_before(node, made)
        output.replace_all_uses_with(result, replace_graph_outputs=True)
        output.name = None
        set_value_info(result, str(name), output, size)
    graph.remove(node, safe=True)
    return True


def _joint(value: ir.Value | None) -> Linear | None:
    """Return the Gemm that makes a value, if its weight has a row, and its constant bias an entry, for each output."""
    linear = read_linear(made_by(value, "Gemm"))
    bias = None if linear is None else constant(linear.bias)
    if linear is None or bias is None or not linear.transposes_weight or bias.shape != (linear.features_out,):
        return None
    return linear


def _own_gemm(graph: ir.Graph, joint: Linear, part: int, start: int, rows: int) -> ir.Node:
    """Return a Gemm with the attributes of a joint one that computes `rows` of its outputs, from `start` on."""
    bias = constant(joint.bias)
    assert bias is not None  # _joint
    name = f"{joint.node.name}.part{part}"
    tensor = lazy_tensor((rows, joint.features_in), joint.tensor, lambda: joint.tensor.numpy()[start : start + rows])
    matrix = add_tensor(graph, f"{name}.weight", tensor)
    bias_part = add_constant(graph, f"{name}.bias", np.array(bias[start : start + rows]))
    return new_node("Gemm", [joint.x, matrix, bias_part], joint.attributes, name=name, output=f"{name}.out")


# The largest map of scores that is left whole. On 12 heads of 4096 queries, ONNX Runtime took as long with parts of
# 50 to 200 MB as with the whole 805 MB, and longer with smaller ones.
LIMIT_BYTES = 128 << 20

_FLOAT_BYTES = 4


@graph_pass("export", after="join_relative_positions")
def split_queries(model: ir.Model, limit_bytes: int = LIMIT_BYTES) -> tuple[ir.Model, bool]:
    """Rewrite MatMul(Softmax(scores), values) whose scores have more than `limit_bytes`, as a Concat over queries.

    Each query's scores are its own. So the map of scores (heads x queries x keys; 2 GB for a page of 1280 pixels) need
    never be there as a whole, nor the copies that the sums and the Softmax make of it. The results are the same bits.
    """
    changed = sum(_rewrite(model.graph, node, limit_bytes) for node in list(model.graph))
    if changed:
        remove_unused_nodes(model)
    return model, bool(changed)


def _rewrite(graph: ir.Graph, node: ir.Node, limit_bytes: int) -> bool:
    softmax = made_by(node.inputs[0], "Softmax") if node.op_type == "MatMul" else None
    shape = None if softmax is None else static_shape(softmax.outputs[0])
    output = static_shape(node.outputs[0])
    if shape is None or output is None or len(shape) < 3 or len(output) != len(shape):
        return False
    queries, size = shape[-2], _FLOAT_BYTES * prod(shape)
    parts = next((n for n in range(2, queries + 1) if queries % n == 0 and size <= n * limit_bytes), 0)
    if size <= limit_bytes or not parts:
        return False
    made = _Parts(graph, str(node.name or node.outputs[0].name), parts)
    pieces = made.computed(node, len(shape) - 2)
    if pieces is None:
        return False
    joined = ir.node("Concat", pieces, {"axis": -2}, name=f"{made.name}.queries")
    replace_node(graph, node, [*made.nodes, joined])
    return True


class _Parts:
    """Values cut into equal parts along an axis: computed part by part where possible, else split."""

    def __init__(self, graph: ir.Graph, name: str, parts: int) -> None:
        self.graph, self.name, self.parts = graph, name, parts
        self.nodes: list[ir.Node] = []

    def of(self, value: ir.Value, axis: int) -> list[ir.Value]:
        """Return the parts of a value along an axis whose size is a multiple of the number of parts."""
        node = value.producer()
        alone = node is not None and len(value.uses()) == 1 and not value.is_graph_output()
        pieces = self.computed(node, axis) if node is not None and alone else None
        return self._split(value, axis) if pieces is None else pieces

    def computed(self, node: ir.Node, axis: int) -> list[ir.Value] | None:
        """Return the parts of a node's result, computed from parts of its inputs; None if each needs whole inputs."""
        value = node.outputs[0]
        shape = static_shape(value)
        inputs = None if shape is None else self._inputs(node, axis, shape)
        if shape is None or inputs is None:
            return None
        sizes = tuple(size // self.parts if i == axis else size for i, size in enumerate(shape))
        return [self._again(node, [one[part] for one in inputs], value, sizes, part) for part in range(self.parts)]

    def _inputs(self, node: ir.Node, axis: int, shape: tuple[int, ...]) -> list[list[ir.Value]] | None:
        """Return for each input of a node the values from which the parts of its result are computed."""
        first = node.inputs[0]
        own = static_shape(first)
        if first is None or own is None:
            return None
        if node.op_type in ("Reshape", "Unsqueeze"):
            place = _same_place(shape, axis, own, self.parts)
            return None if place is None else [self.of(first, place)]
        if node.op_type == "Softmax" and node.attributes.get_int("axis", -1) % len(shape) != axis:
            return [self.of(first, axis)]
        if (
            node.op_type == "MatMul"
            and len(own) == len(shape)
            and axis == len(shape) - 2
            and node.inputs[1] is not None
        ):
            return [self.of(first, axis), [node.inputs[1]] * self.parts]
        if node.op_type in ("Add", "Mul"):
            return self._operands(node, axis, shape)
        return None

    def _operands(self, node: ir.Node, axis: int, shape: tuple[int, ...]) -> list[list[ir.Value]] | None:
        """Return _inputs of a sum or product: an operand that is the same for every query serves each part."""
        operands = []
        for value in node.inputs:
            own = static_shape(value)
            if value is None or own is None:
                return None
            place = axis - len(shape) + len(own)
            whole = place < 0 or own[place] == 1
            operands.append([value] * self.parts if whole else self.of(value, place))
        return operands

    def _again(
        self, node: ir.Node, inputs: list[ir.Value], like: ir.Value, shape: tuple[int, ...], part: int
    ) -> ir.Value:
        name = f"{node.name or like.name}.part{part}"
        if node.op_type in ("Reshape", "Unsqueeze"):
            sizes = add_sizes(self.graph, f"{name}.sizes", shape)
            new = new_node("Reshape", [inputs[0], sizes], name=name, output=f"{name}.out")
        else:
            new = ir.node(node.op_type, inputs, dict(node.attributes), name=name)
            new.outputs[0].name = f"{name}.out"
        self.nodes.append(new)
        return new.outputs[0]

    def _split(self, value: ir.Value, axis: int) -> list[ir.Value]:
        shape = static_shape(value)
        assert shape is not None  # of each value that is asked for
        name = f"{self.name}.{value.name}.parts"
        sizes = add_constant(self.graph, f"{name}.sizes", np.full(self.parts, shape[axis] // self.parts, np.int64))
        new = ir.node("Split", [value, sizes], {"axis": axis}, num_outputs=self.parts, name=name)
        for part, output in enumerate(new.outputs):
            output.name = f"{name}.{part}"
        self.nodes.append(new)
        return list(new.outputs)


def _same_place(shape: tuple[int, ...], axis: int, before: tuple[int, ...], parts: int) -> int | None:
    """Return the axis of a map before a reshape whose equal parts are the parts of `axis` after it."""
    outer = prod(shape[:axis])
    for place, size in enumerate(before):
        if prod(before[:place]) == outer and size % parts == 0:
            return place
    return None
