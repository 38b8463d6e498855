"""LpNormalization -> the norm, and a division by it.

onnx2tf lowers it to TFLite's L2_NORMALIZATION, which is over the last axis of the file, whatever axis was meant.
Max(norm, a tiny number), which is how others guard against 0, it takes for a ReLU.
"""

import numpy as np
import onnx_ir as ir

from graphs.prepare.nodes import add_constant, add_sizes, describe, put
from graphs.prepare.rewriting import static_shape


def write_out_lp_norm(model: ir.Model) -> tuple[ir.Model, bool]:
    """Write x / (norm + 1 where the norm is 0), with p = 1 or 2, over an axis; so zeros stay zeros."""
    found = [node for node in model.graph if node.op_type == "LpNormalization" and static_shape(node.inputs[0])]
    for node in found:
        x, name = node.inputs[0], str(node.outputs[0].name)
        shape = static_shape(x)
        assert x is not None and x.dtype is not None and shape is not None  # found by them
        axis = node.attributes.get_int("axis", -1) % len(shape)
        squared = node.attributes.get_int("p", 2) == 2
        reduced = tuple(1 if i == axis else size for i, size in enumerate(shape))
        sizes = ir.node("Mul", [x, x]) if squared else ir.node("Abs", [x])
        axes = add_sizes(model.graph, f"{name}_axis", (axis,))
        norm = [ir.node("ReduceSum", [sizes.outputs[0], axes], attributes={"keepdims": 1})]
        if squared:
            norm.append(ir.node("Sqrt", norm[0].outputs))
        length = norm[-1].outputs[0]
        # 1 - Sign of what is at least 0.
        sign = ir.node("Sign", [length])
        one = ir.node("Sub", [_one(model.graph, name, x.dtype), sign.outputs[0]])
        guarded = ir.node("Add", [length, one.outputs[0]])
        describe(sizes.outputs[0], f"{name}_parts", x)
        for i, made in enumerate((*norm, sign, one, guarded)):
            describe(made.outputs[0], f"{name}_norm_{i}", x, reduced)
        put(model.graph, node, [sizes, *norm, sign, one, guarded, ir.node("Div", [x, guarded.outputs[0]])])
    return model, bool(found)


def _one(graph: ir.Graph, name: str, dtype: ir.DataType) -> ir.Value:
    return add_constant(graph, f"{name}_one", np.ones((), dtype.numpy()))
