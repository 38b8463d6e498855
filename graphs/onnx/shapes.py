"""Types and shapes of the tensors that passes make, inferred from the inputs of the graph."""

import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass

_UNSTATED = "unstated"


def state_shapes(model: ir.Model) -> None:
    """State every type and shape that follows from the inputs, in place.

    Weights over a kilobyte are not serialized for it.
    """
    weights = list(model.graph.initializers.values())
    ShapeInferencePass(check_type=False, strict_mode=False)(model)
    # The inference moves large weights behind all others. Files keep the order, so it is restored.
    model.graph.initializers.clear()
    for weight in weights:
        model.graph.initializers.add(weight)


def mark_unstated(model: ir.Model) -> None:
    """Mark the tensors without a type: passes may read their inferred shapes, but files must not state them.

    onnxsim numbers its constants by the tensors whose shapes are stated, and the lowering copies each stated shape.
    """
    for node in model.graph:
        for value in node.outputs:
            if value.type is None:
                value.meta[_UNSTATED] = True


def forget_shapes(model: ir.Model) -> None:
    """Remove the types and shapes that state_shapes gave to the marked tensors, except to outputs of the graph."""
    for node in model.graph:
        for value in node.outputs:
            if value.meta.get(_UNSTATED) and not value.is_graph_output():
                value.type, value.shape = None, None
