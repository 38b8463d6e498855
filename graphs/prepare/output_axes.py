"""Outputs of five and more axes, and rows of channels, are reshaped to what they are.

onnx2tf keeps maps channels last inside the graph. Of four axes the file's order is known, see Binding; other outputs
must leave as the graph states them, and a reshape is where the converter puts the axes back. Of three axes it moves
those of a few operators alone; the tokens of a transformer leave as they are.
"""

import math

import onnx_ir as ir

from graphs.prepare.nodes import add_sizes, describe
from graphs.prepare.rewriting import static_shape

# What onnx2tf computes with channels last where it has three axes.
_OF_ROWS = frozenset(
    ("Conv", "ConvTranspose", "AveragePool", "MaxPool", "GlobalAveragePool", "GlobalMaxPool", "LogSoftmax")
)


def keep_output_axes(model: ir.Model) -> tuple[ir.Model, bool]:
    """Put two reshapes, over a flat row of values, behind every output whose axes the converter may move."""
    changed = False
    rows = any(node.op_type in _OF_ROWS and len(static_shape(node.outputs[0]) or ()) == 3 for node in model.graph)
    for i, output in enumerate(model.graph.outputs):
        shape = static_shape(output)
        if shape is None or output.producer() is None:
            continue
        if len(shape) > 4 or (len(shape) == 3 and rows):
            model.graph.outputs[i] = _reshaped(model.graph, output, shape)
            changed = True
    return model, changed


def _reshaped(graph: ir.Graph, output: ir.Value, shape: tuple[int, ...]) -> ir.Value:
    name = str(output.name)
    output.name = f"{name}_axes"
    row = ir.node("Reshape", [output, add_sizes(graph, f"{name}_row", (math.prod(shape),))])
    describe(row.outputs[0], f"{name}_flat", output, (math.prod(shape),))
    back = ir.node("Reshape", [row.outputs[0], add_sizes(graph, f"{name}_stated", shape)])
    describe(back.outputs[0], name, output)
    graph.extend([row, back])
    return back.outputs[0]
