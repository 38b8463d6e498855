"""Rewrites of a foreign graph as it is read: Loops of a fixed number of turns are unrolled, and recurrent layers with
the batch first, which ONNX Runtime refuses, get the time first."""

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import helper, numpy_helper

from backends.tensor import Array

# The most nodes that the turns of one Loop may become.
_MOST_NODES = 20_000


def unroll_loops(graph: onnx.GraphProto) -> bool:
    """Write each Loop whose number of turns is constant, and which no condition ends, as its turns, in place.

    A Loop inside another one is unrolled by the next call. Returns whether there was one. The results of the turns have
    names of the Loop's node and of the turn.
    """
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute and node.attribute[0].name == "value":
            constants[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
    nodes: list[onnx.NodeProto] = []
    changed = False
    for number, node in enumerate(graph.node):
        turns = _turns(node, constants) if node.op_type == "Loop" else None
        if turns is None:
            nodes.append(node)
            continue
        nodes += _unrolled(graph, node, turns, f"{node.name or 'Loop'}_{number}")
        changed = True
    if changed:
        del graph.node[:]
        graph.node.extend(nodes)
    return changed


def _turns(node: onnx.NodeProto, constants: Mapping[str, Array]) -> int | None:
    """Return the number of turns of a Loop, or None if it depends on values, is 0, or would give too many nodes."""
    body = node.attribute[0].g
    given = [*node.input, "", ""]
    count = constants.get(given[0])
    if count is None or (given[1] and not _holds(constants.get(given[1]))):
        return None
    inner = {tensor.name: numpy_helper.to_array(tensor) for tensor in body.initializer}
    makers = {name: one for one in body.node for name in one.output}
    condition = body.output[0].name
    while (maker := makers.get(condition)) is not None and maker.op_type == "Identity":
        condition = maker.input[0]
    if maker is not None and maker.op_type == "Constant" and maker.attribute[0].name == "value":
        inner[condition] = numpy_helper.to_array(maker.attribute[0].t)
    # A body that hands its condition on goes on for ever.
    goes_on = condition == body.input[1].name or _holds(inner.get(condition, constants.get(condition)))
    turns = int(count.reshape(-1)[0])
    return turns if goes_on and 0 < turns <= _MOST_NODES // max(len(body.node), 1) else None


def _holds(value: Array | None) -> bool:
    return value is not None and value.size == 1 and bool(value.reshape(-1)[0])


def _unrolled(graph: onnx.GraphProto, node: onnx.NodeProto, turns: int, name: str) -> list[onnx.NodeProto]:
    """Return the nodes of all turns of a Loop. Constants of the turns are added to the graph."""
    body = node.attribute[0].g
    carried = len(node.input) - 2
    state = list(node.input[2:])
    shown: list[list[str]] = [[] for _ in body.output[1 + carried :]]
    made: list[onnx.NodeProto] = []
    for tensor in body.initializer:
        copy = graph.initializer.add()
        copy.CopyFrom(tensor)
        copy.name = f"{name}_{tensor.name}"
    weights = {tensor.name: f"{name}_{tensor.name}" for tensor in body.initializer}
    condition = numpy_helper.from_array(np.array(True), f"{name}_condition")
    graph.initializer.append(condition)
    for turn in range(turns):
        index = numpy_helper.from_array(np.array(turn, np.int64), f"{name}_turn_{turn}")
        graph.initializer.append(index)
        names = weights | {body.input[0].name: index.name, body.input[1].name: condition.name}
        names |= {value.name: given for value, given in zip(body.input[2:], state, strict=True)}
        names |= {output: f"{name}_{turn}_{output}" for one in body.node for output in one.output if output}
        made += [_renamed(one, names, f"{name}_{turn}_") for one in body.node]
        results = [names.get(value.name, value.name) for value in body.output[1:]]
        state = results[:carried]
        for result, column in zip(results[carried:], shown, strict=True):
            made.append(helper.make_node("Unsqueeze", [result, f"{name}_first"], [f"{result}_row_{turn}"]))
            column.append(made[-1].output[0])
    graph.initializer.append(numpy_helper.from_array(np.array([0], np.int64), f"{name}_first"))
    outputs = [*node.output, *[""] * (carried + len(shown) - len(node.output))]
    made += [
        helper.make_node("Identity", [one], [out]) for one, out in zip(state, outputs[:carried], strict=True) if out
    ]
    made += [
        helper.make_node("Concat", column, [out], axis=0)
        for column, out in zip(shown, outputs[carried:], strict=True)
        if out
    ]
    return made


def _renamed(node: onnx.NodeProto, names: Mapping[str, str], prefix: str) -> onnx.NodeProto:
    """Return a copy of a node of a Loop's body, its subgraphs too, that reads and makes tensors by their new names."""
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    copy.name = f"{prefix}{node.name}" if node.name else ""
    for values in (copy.input, copy.output):
        values[:] = [names.get(value, value) for value in values]
    for attribute in copy.attribute:
        for inner in (*((attribute.g,) if attribute.HasField("g") else ()), *attribute.graphs):
            own = {value.name for value in (*inner.input, *inner.initializer)}
            own |= {value for one in inner.node for value in one.output}
            outside = {old: new for old, new in names.items() if old not in own}
            nodes = [_renamed(one, outside, prefix) for one in inner.node]
            del inner.node[:]
            inner.node.extend(nodes)
            for value in inner.output:
                value.name = outside.get(value.name, value.name)
    return copy


def put_time_first(graph: onnx.GraphProto) -> bool:
    """Write each LSTM, GRU and RNN with the batch first (layout=1) as one with the time first, between transposes.

    Changes the graph in place, and returns whether there was one.
    """
    nodes: list[onnx.NodeProto] = []
    changed = False
    for number, node in enumerate(graph.node):
        layout = [one for one in node.attribute if one.name == "layout" and one.i == 1]
        if node.op_type not in ("LSTM", "GRU", "RNN") or node.domain or not layout:
            nodes.append(node)
            continue
        changed = True
        name = f"{node.name or node.op_type}_{number}_time_first"
        node.attribute.remove(layout[0])
        for position, given in enumerate(node.input):
            if given and position in (0, 5, 6):  # the sequence and the initial states
                nodes.append(_transpose(given, f"{name}_in_{position}", (1, 0, 2)))
                node.input[position] = nodes[-1].output[0]
        nodes.append(node)
        for position, result in enumerate(node.output):
            if result:
                # (time, directions, batch, hidden) of all states; (directions, batch, hidden) of the last ones.
                node.output[position] = f"{name}_out_{position}"
                nodes.append(_transpose(node.output[position], result, (1, 0, 2) if position else (2, 0, 1, 3)))
    if changed:
        del graph.node[:]
        graph.node.extend(nodes)
    return changed


def _transpose(given: str, result: str, order: tuple[int, ...]) -> onnx.NodeProto:
    return helper.make_node("Transpose", [given], [result], name=f"{result}_turned", perm=order)
