"""LogSoftmax -> the differences from the largest, less the logarithm of the sum of their exponentials.

onnx2tf lowers it to the logarithm of a Softmax, which is minus infinity where the Softmax rounds to 0.
"""

import onnx_ir as ir

from graphs.prepare.nodes import add_sizes, describe, put
from graphs.prepare.rewriting import static_shape


def write_out_log_softmax(model: ir.Model) -> tuple[ir.Model, bool]:
    """Write d - log(sum(exp(d))), where d = x - max(x), over the axis."""
    found = [node for node in model.graph if node.op_type == "LogSoftmax" and static_shape(node.inputs[0])]
    for node in found:
        x, name = node.inputs[0], str(node.outputs[0].name)
        shape = static_shape(x) or ()
        axis = node.attributes.get_int("axis", -1) % len(shape)
        reduced = tuple(1 if i == axis else size for i, size in enumerate(shape))
        axes = add_sizes(model.graph, f"{name}_axis", (axis,))
        largest = ir.node("ReduceMax", [x, axes], attributes={"keepdims": 1})
        below = ir.node("Sub", [x, largest.outputs[0]])
        parts = ir.node("Exp", below.outputs)
        whole = ir.node("ReduceSum", [parts.outputs[0], axes], attributes={"keepdims": 1})
        log = ir.node("Log", whole.outputs)
        for made, what in ((largest, "largest"), (whole, "whole"), (log, "log")):
            describe(made.outputs[0], f"{name}_{what}", x, reduced)
        for made, what in ((below, "below"), (parts, "parts")):
            describe(made.outputs[0], f"{name}_{what}", x)
        put(
            model.graph,
            node,
            [largest, below, parts, whole, log, ir.node("Sub", [below.outputs[0], log.outputs[0]])],
        )
    return model, bool(found)
