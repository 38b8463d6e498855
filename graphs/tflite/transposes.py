"""Removes transposes of a TFLite graph that undo each other, directly or with element-wise operators between them."""

from collections import Counter
from collections.abc import Mapping

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from graphs.tflite.graph import Graph, Node, Payload, Tensor, TensorOrigin, read_payload

_OPERATORS = schema.BuiltinOperator
# Element-wise operators: their values do not depend on the order of axes.
_PLACE_BY_PLACE = (_OPERATORS.ADD, _OPERATORS.SUB, _OPERATORS.MUL)


def remove_transposes(graph: Graph) -> None:
    """Remove transposes that undo each other, in place, also where a sum, difference or product lies between them.

    A cut in the residual stream gives a map back in the order of the ONNX graph, so that each sum of that slice lies
    between transposes: those of its inputs are moved behind it, where they meet their inverses.
    """
    cancel_transposes(graph)
    while _move_behind(graph):
        cancel_transposes(graph)


def cancel_transposes(graph: Graph) -> int:
    """Remove each transpose that undoes the one before it, and transposes left unused. Return how many nodes went."""
    before = len(graph.nodes)
    maker = _makers(graph)
    kept = {id(tensor) for tensor in graph.outputs.values()}
    replaced: dict[int, Tensor] = {}
    for node in graph.nodes:
        second = order_of_axes(node)
        first_node = maker.get(id(node.inputs[0]))
        first = None if first_node is None else order_of_axes(first_node)
        if first is None or second is None or first_node is None or id(node.outputs[0]) in kept:
            continue
        if all(first[axis] == i for i, axis in enumerate(second)) and (source := first_node.inputs[0]) is not None:
            replaced[id(node.outputs[0])] = replaced.get(id(source), source)
    replace_tensors(graph, replaced)
    graph.nodes = [node for node in graph.nodes if id(node.outputs[0]) not in replaced]
    used = kept | {id(tensor) for node in graph.nodes for tensor in node.inputs}
    graph.nodes = [node for node in graph.nodes if order_of_axes(node) is None or id(node.outputs[0]) in used]
    return before - len(graph.nodes)


def transpose(source: Tensor, order: tuple[int, ...], target: Tensor) -> Node:
    """Return the operator that makes `target` from `source`, whose axes it puts in `order`."""
    table = schema.TensorT()
    table.name, table.shape = target.table.name + b"/order", [len(order)]
    table.type, table.hasRank = schema.TensorType.INT32, True
    data = np.array(order, "<i4").tobytes()
    operator = schema.OperatorT()
    operator.builtinOptionsType = schema.BuiltinOptions.TransposeOptions
    operator.builtinOptions = schema.TransposeOptionsT()
    constant = Tensor(table, Payload(None, 0, len(data), data))
    return Node(operator, (_OPERATORS.TRANSPOSE, None, 1), [source, constant], [target], [])


def replace_tensors(graph: Graph, replaced: Mapping[int, Tensor]) -> None:
    """Let every node and origin that refers to a tensor refer to its replacement, which holds the same values.

    `replaced` is {id of a tensor: its replacement}.
    """
    for node in graph.nodes:
        node.inputs = [replaced.get(id(tensor), tensor) for tensor in node.inputs]
    for origin in graph.origins:
        origin.tensor = replaced.get(id(origin.tensor), origin.tensor)


def order_of_axes(node: Node) -> tuple[int, ...] | None:
    """Return the order of axes of a transpose, or None for another node or an order that is not constant."""
    if node.code[0] != _OPERATORS.TRANSPOSE or (constant := node.inputs[1]) is None or constant.payload is None:
        return None
    return tuple(int(axis) for axis in np.frombuffer(read_payload(constant.payload), "<i4"))


def _move_behind(graph: Graph) -> bool:
    """Move the transposes of one operator's inputs behind the operator. Return whether there was such an operator."""
    maker = _makers(graph)
    read = (tensor for node in graph.nodes for tensor in node.inputs)
    uses = Counter(id(tensor) for tensor in (*read, *graph.outputs.values()))
    for at, node in enumerate(graph.nodes):
        if node.code[0] not in _PLACE_BY_PLACE:
            continue
        before = [maker.get(id(tensor)) for tensor in node.inputs]
        orders = {None if one is None else order_of_axes(one) for one in before}
        order = next(iter(orders)) if len(orders) == 1 else None
        shapes = {tensor.shape for tensor in node.inputs if tensor is not None}
        # If other nodes read both transposes too, the transposes stay, and the move would add one more.
        if order is None or len(shapes) > 1 or all(uses[id(tensor)] > 1 for tensor in node.inputs):
            continue
        target = node.outputs[0]
        assert target is not None
        turned = _turned_back(graph, target, order)
        node.inputs, node.outputs = [one.inputs[0] for one in before if one is not None], [turned]
        graph.nodes.insert(at + 1, transpose(turned, order, target))
        return True
    return False


def _turned_back(graph: Graph, target: Tensor, order: tuple[int, ...]) -> Tensor:
    """Return a new tensor from which a transpose in `order` makes `target`, with origins like those of `target`."""
    table = schema.TensorT()
    vars(table).update(vars(target.table))
    turned = [order.index(axis) for axis in range(len(order))]
    table.name = target.table.name + b"/turned"
    table.shape = [target.shape[i] for i in turned]
    table.shapeSignature = None
    tensor = Tensor(table, None)
    for origin in [origin for origin in graph.origins if origin.tensor is target]:
        axes = tuple(range(len(order))) if origin.order is None else origin.order
        composed = tuple(axes[i] for i in turned)
        graph.origins.append(
            TensorOrigin(origin.name, tensor, None if composed == tuple(range(len(order))) else composed)
        )
    return tensor


def _makers(graph: Graph) -> dict[int, Node]:
    return {id(output): node for node in graph.nodes for output in node.outputs}
