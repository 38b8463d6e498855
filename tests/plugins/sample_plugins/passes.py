"""A pass in one function."""

import onnx_ir as ir

from graphs.onnx.readers import made_by
from graphs.passes.registry import graph_pass


@graph_pass(stage="export", tolerance=0.0, after="simplify")
def drop_double_relu(model: ir.Model) -> tuple[ir.Model, bool]:
    """Remove a Relu whose input is the output of another Relu: it changes nothing."""
    doubles = [
        (node, inner)
        for node in model.graph
        if node.op_type == "Relu" and (inner := made_by(node.inputs[0], "Relu")) is not None
    ]
    for node, inner in doubles:
        node.replace_input_with(0, inner.inputs[0])
    return model, bool(doubles)
