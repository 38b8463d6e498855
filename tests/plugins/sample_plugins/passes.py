"""A graph pass in one function."""

import onnx_ir as ir

from graphs.onnx.readers import made_by
from graphs.passes.registry import graph_pass


@graph_pass(stage="export", tolerance=0.0, after="simplify")
def drop_abs_of_relu(model: ir.Model) -> tuple[ir.Model, bool]:
    """Remove every Abs of a Relu, whose values are never below 0."""
    found = [
        (node, relu)
        for node in model.graph
        if node.op_type == "Abs" and not node.outputs[0].is_graph_output()
        if (relu := made_by(node.inputs[0], "Relu")) is not None
    ]
    for node, relu in found:
        node.outputs[0].replace_all_uses_with(relu.outputs[0])
        model.graph.remove(node, safe=True)
    return model, bool(found)
