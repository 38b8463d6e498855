"""Max and Clip with a tiny lower bound -> the same by Neg and Min.

Such a bound keeps a division from dividing by 0, as in PyTorch's normalize. onnx2tf takes it for 0 and the operator for
a ReLU, so that an input of zeros becomes NaN.
"""

import onnx_ir as ir

from graphs.prepare.nodes import add_constant, describe, put
from graphs.prepare.rewriting import constant

# Of the absolute value of a bound that is not 0; the converter was seen to round 1e-12 and 1e-30 to it.
_TINY = 1e-3


def keep_small_bounds(model: ir.Model) -> tuple[ir.Model, bool]:
    """Write Max(x, c) and Clip(x, c, most) as -Min(-x, -c), and a Min with `most`, where c is tiny and one number."""
    found = [(node, at) for node in model.graph if (at := _bound(node)) is not None]
    for node, at in found:
        bound, x = node.inputs[at], node.inputs[1 - at]
        value = constant(bound)
        assert x is not None and value is not None  # _bound
        name = str(node.outputs[0].name)
        turned = ir.node("Neg", [x])
        least = ir.node("Min", [turned.outputs[0], add_constant(model.graph, f"{name}_bound", -value)])
        new = [turned, least, ir.node("Neg", least.outputs)]
        if node.op_type == "Clip" and len(node.inputs) > 2 and node.inputs[2] is not None:
            new.append(ir.node("Min", [new[-1].outputs[0], node.inputs[2]]))
        for number, made in enumerate(new):
            describe(made.outputs[0], f"{name}_part_{number}", node.outputs[0])
        put(model.graph, node, new)
    return model, bool(found)


def _bound(node: ir.Node) -> int | None:
    """Which input of a node is a tiny bound from below."""
    if node.op_type not in ("Max", "Clip") or len(node.inputs) < 2 or (node.op_type == "Max" and len(node.inputs) > 2):
        return None
    for at in (1,) if node.op_type == "Clip" else (1, 0):
        value = constant(node.inputs[at])
        if value is not None and value.size == 1 and value.dtype.kind == "f" and 0 < abs(float(value.item())) < _TINY:
            return at
    return None
