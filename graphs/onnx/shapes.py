"""Types and shapes of the tensors that passes make, inferred from the inputs of the graph."""

import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass

_UNSTATED = "unstated"


def state_shapes(model: ir.Model) -> None:
    """State every type and shape that follows from the inputs. Weights over a kilobyte are not serialized for it."""
    weights = list(model.graph.initializers.values())
    ShapeInferencePass(check_type=False, strict_mode=False)(model)
    # The inference puts the weights that it left out behind all others; files keep the order.
    model.graph.initializers.clear()
    for weight in weights:
        model.graph.initializers.add(weight)


def mark_unstated(model: ir.Model) -> None:
    """Mark the tensors without a type: passes may read the shapes that are inferred for them, files do not state these.

    onnxsim numbers its constants by the tensors whose shapes it is told, and the lowering copies each stated shape.
    """
    for node in model.graph:
        for value in node.outputs:
            if value.type is None:
                value.meta[_UNSTATED] = True


def forget_shapes(model: ir.Model) -> None:
    """Undo state_shapes for the marked tensors inside a graph."""
    for node in model.graph:
        for value in node.outputs:
            if value.meta.get(_UNSTATED) and not value.is_graph_output():
                value.type, value.shape = None, None
