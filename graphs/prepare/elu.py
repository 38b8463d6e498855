"""Elu with another slope -> what it is below zero, times that, and what it is above.

TFLite's ELU has no alpha, and onnx2tf leaves it out.
"""

import numpy as np
import onnx_ir as ir

from graphs.prepare.nodes import add_constant, describe, put


def scale_elu(model: ir.Model) -> tuple[ir.Model, bool]:
    """Write Elu(x, alpha) as Relu(x) + alpha * Elu(Min(x, 0)), unless alpha is 1."""
    found = [node for node in model.graph if node.op_type == "Elu" and node.attributes.get_float("alpha", 1.0) != 1]
    for node in found:
        x, name = node.inputs[0], str(node.outputs[0].name)
        assert x is not None and x.dtype is not None  # an operator's own, in a graph with its shapes
        zero, alpha = (
            add_constant(model.graph, f"{name}_{what}", np.array(value, x.dtype.numpy()))
            for what, value in (("zero", 0), ("alpha", node.attributes.get_float("alpha", 1.0)))
        )
        above = ir.node("Relu", [x])
        negative = ir.node("Min", [x, zero])
        below = ir.node("Elu", negative.outputs)
        scaled = ir.node("Mul", [below.outputs[0], alpha])
        for made, what in ((above, "above"), (negative, "negative"), (below, "below"), (scaled, "scaled")):
            describe(made.outputs[0], f"{name}_{what}", x)
        put(model.graph, node, [above, negative, below, scaled, ir.node("Add", [above.outputs[0], scaled.outputs[0]])])
    return model, bool(found)
