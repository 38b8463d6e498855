"""Transposes go where they undo each other, and the graph still says which tensor is which."""

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from backends.tensor import TO_NCHW, TO_NHWC
from graphs.tflite.graph import Graph, Node, Tensor, TensorOrigin
from graphs.tflite.transposes import cancel_transposes, order_of_axes, remove_transposes, transpose

ADD, OTHER = schema.BuiltinOperator.ADD, schema.BuiltinOperator.CUSTOM
SHAPES = {"NHWC": [1, 3, 4, 2], "NCHW": [1, 2, 3, 4]}


def _tensor(name: str, layout: str = "NHWC") -> Tensor:
    table = schema.TensorT()
    table.name, table.shape, table.type = name.encode(), SHAPES[layout], 0
    return Tensor(table, None)


def _node(code: int, sources: list[Tensor], target: Tensor) -> Node:
    return Node(None, (code, None, 1), list(sources), [target], [])


def test_pairs_go_and_what_is_needed_stays() -> None:
    x, b, y, z = (_tensor(name) for name in ("x", "b", "y", "z"))
    a, c = (_tensor(name, "NCHW") for name in ("a", "c"))
    nodes = [transpose(x, TO_NCHW, a), transpose(a, TO_NHWC, b), _node(OTHER, [b], y)]
    graph = Graph(b"", {"x": x}, {"y": y, "z": z}, [*nodes, transpose(a, TO_NCHW, c), _node(OTHER, [c], z)])
    assert cancel_transposes(graph) == 1
    assert [node.inputs[0] for node in graph.nodes] == [x, x, a, c]
    graph = Graph(b"", {"x": x}, {"y": y}, [transpose(x, TO_NCHW, a), transpose(a, TO_NHWC, b), _node(OTHER, [b], y)])
    assert cancel_transposes(graph) == 2
    assert [node.inputs for node in graph.nodes] == [[x]]
    # An output of the graph keeps its tensor.
    graph = Graph(b"", {"x": x}, {"b": b}, [transpose(x, TO_NCHW, a), transpose(a, TO_NHWC, b)])
    assert cancel_transposes(graph) == 0


def _residual(blocks: int) -> Graph:
    """What a cut in a residual stream leaves: branches in NHWC, their sums in NCHW, and a transpose at every step."""
    x, stream = _tensor("x"), _tensor("x/onnx", "NCHW")
    nodes = [transpose(x, TO_NCHW, stream)]
    for i in range(blocks):
        turned, branch = _tensor(f"turned{i}"), _tensor(f"branch{i}")
        back, total = (_tensor(f"{name}{i}", "NCHW") for name in ("back", "sum"))
        nodes += [transpose(stream, TO_NHWC, turned), _node(OTHER, [turned], branch), transpose(branch, TO_NCHW, back)]
        nodes.append(_node(ADD, [stream, back], total))
        stream = total
    y = _tensor("y")
    nodes.append(transpose(stream, TO_NHWC, y))
    held = [
        TensorOrigin(f"sum{i}", node.outputs[0], None) for i, node in enumerate(n for n in nodes if n.code[0] == ADD)
    ]
    return Graph(b"", {"x": x}, {"y": y}, nodes, origins=held)


@pytest.mark.parametrize("blocks", [1, 2, 5])
def test_sums_between_transposes_are_made_in_the_order_of_their_branches(blocks: int) -> None:
    graph = _residual(blocks)
    remove_transposes(graph)
    # The last one makes the output of the graph, which keeps its tensor: then the sum before it is turned for it.
    assert [node.code[0] for node in graph.nodes if order_of_axes(node) is None] == [OTHER, ADD] * blocks
    assert sum(order_of_axes(node) is not None for node in graph.nodes) == 2
    sums = [node.outputs[0] for node in graph.nodes if node.code[0] == ADD]
    assert [tensor.shape for tensor in sums if tensor] == [tuple(SHAPES["NHWC"])] * blocks
    # Of an ONNX tensor, axis order[i] is axis i of the one that holds it now.
    held = {one.name: one.order for one in graph.origins if any(one.tensor is tensor for tensor in sums)}
    assert held == {f"sum{i}": TO_NHWC for i in range(blocks)}
    assert np.zeros(SHAPES["NCHW"]).transpose(TO_NHWC).shape == tuple(SHAPES["NHWC"])


def test_a_sum_of_which_both_terms_are_read_elsewhere_stays() -> None:
    a, b = _tensor("a"), _tensor("b")
    c, d, e = (_tensor(name, "NCHW") for name in ("c", "d", "e"))
    nodes = [transpose(a, TO_NCHW, c), transpose(b, TO_NCHW, d), _node(ADD, [c, d], e)]
    graph = Graph(b"", {"a": a, "b": b}, {"c": c, "d": d, "e": e}, nodes)
    remove_transposes(graph)
    assert graph.nodes == nodes
    assert graph.nodes[2].inputs == [c, d]
