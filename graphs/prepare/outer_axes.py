"""Inputs and outputs whose axes onnx2tf may move are reshaped to what they are.

onnx2tf keeps maps channels last inside the graph. Of four axes the file's order is known, see Binding; what has others
must come and leave as the graph states it, and a reshape is where the converter puts the axes back. Of three axes it
moves those of a few operators alone; the tokens of a transformer stay as they are. A Transpose that could be from or to
channels last it takes for one of its own: it pulls it through what follows, out of the graph, or into an input.
"""

import math

import onnx_ir as ir

from graphs.prepare.nodes import add_sizes, describe
from graphs.prepare.rewriting import static_shape

# What onnx2tf computes with channels last where it has three axes.
_OF_ROWS = frozenset(("Conv", "ConvTranspose", "AveragePool", "MaxPool", "GlobalAveragePool", "GlobalMaxPool"))
_TO_CHANNELS_FIRST = ((0, 2, 1), (0, 3, 1, 2))


def keep_axes(model: ir.Model) -> tuple[ir.Model, bool]:
    """Put two reshapes, over a flat row of values, behind or before what the converter would give other axes."""
    changed = False
    for value in list(model.graph.inputs):
        if _goes_into_products_turned(value):
            _reshape_input(model.graph, value)
            changed = True
    rows = any(node.op_type in _OF_ROWS and len(static_shape(node.outputs[0]) or ()) == 3 for node in model.graph)
    for i, output in enumerate(model.graph.outputs):
        shape = static_shape(output)
        if shape is None or output.producer() is None:
            continue
        if len(shape) > 4 or (len(shape) == 3 and rows) or _was_turned(output):
            model.graph.outputs[i] = _reshaped_output(model.graph, output, shape)
            changed = True
    return model, changed


def _was_turned(value: ir.Value) -> bool:
    """Whether a Transpose to channels first makes a value, nothing but maps of one value onto one coming after it."""
    node = value.producer()
    while node is not None:
        if node.op_type == "Transpose":
            return tuple(node.attributes.get_ints("perm", ())) in _TO_CHANNELS_FIRST
        sources = [source for source in node.inputs if source is not None and source.const_value is None]
        if len(sources) != 1 or static_shape(sources[0]) != static_shape(node.outputs[0]):
            return False
        node = sources[0].producer()
    return False


def _goes_into_products_turned(value: ir.Value) -> bool:
    """Whether all that reads an input of three axes swaps its last two, for products."""
    readers = [use.node for use in value.uses()]
    return (
        len(static_shape(value) or ()) == 3
        and bool(readers)
        and all(
            reader.op_type == "Transpose"
            and tuple(reader.attributes.get_ints("perm", ())) == (0, 2, 1)
            and all(use.node.op_type == "MatMul" for use in reader.outputs[0].uses())
            for reader in readers
        )
    )


def _reshape_input(graph: ir.Graph, value: ir.Value) -> None:
    name, shape, readers = str(value.name), static_shape(value), [(use.node, use.idx) for use in value.uses()]
    assert shape is not None  # callers look at it
    row, back = _over_a_row(graph, value, shape, name)
    describe(back.outputs[0], f"{name}_axes", value)
    for node, index in readers:
        node.replace_input_with(index, back.outputs[0])
    graph.insert_before(graph[0], [row, back])


def _reshaped_output(graph: ir.Graph, output: ir.Value, shape: tuple[int, ...]) -> ir.Value:
    name = str(output.name)
    output.name = f"{name}_axes"
    row, back = _over_a_row(graph, output, shape, name)
    describe(back.outputs[0], name, output)
    graph.extend([row, back])
    return back.outputs[0]


def _over_a_row(graph: ir.Graph, value: ir.Value, shape: tuple[int, ...], name: str) -> tuple[ir.Node, ir.Node]:
    """A value as a flat row, and that with the axes that it has."""
    row = ir.node("Reshape", [value, add_sizes(graph, f"{name}_row", (math.prod(shape),))])
    describe(row.outputs[0], f"{name}_flat", value, (math.prod(shape),))
    return row, ir.node("Reshape", [row.outputs[0], add_sizes(graph, f"{name}_stated", shape)])
