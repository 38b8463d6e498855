"""Outputs of three, five and more axes are reshaped to what they are.

onnx2tf keeps maps channels last inside the graph. Of four axes the file's order is known, see Binding; other outputs
must leave as the graph states them, and a reshape is where the converter puts the axes back.
"""

import math

import onnx_ir as ir

from graphs.prepare.nodes import add_sizes, describe
from graphs.prepare.rewriting import static_shape


def keep_output_axes(model: ir.Model) -> tuple[ir.Model, bool]:
    """Put two reshapes, over a row of values, behind every output that has neither four axes nor fewer than three."""
    changed = False
    for i, output in enumerate(model.graph.outputs):
        shape = static_shape(output)
        if shape is not None and len(shape) > 2 and len(shape) != 4 and output.producer() is not None:
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
