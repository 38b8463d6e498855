"""The affine part of a LayerNormalization that several Gemms read, or one behind a change of order -> into those Gemms.

`fold_affine` finds the one Gemm that reads a norm directly. In an attention three do, and where it looks at windows the
tokens are put in another order first, which no channel sees. TFLite spends two passes over the map on each such part.
"""

import numpy as np
import onnx_ir as ir

from graphs.prepare.fold_affine import folded, per_channel
from graphs.prepare.nodes import add_constant, add_tensor
from graphs.prepare.rewriting import constant, matrix_shape


def fold_norm(model: ir.Model) -> tuple[ir.Model, bool]:
    """Fold every affine part that nothing but Gemms reads, across Reshapes and Transposes that leave channels last."""
    changed = [_fold(model.graph, node) for node in list(model.graph) if node.op_type == "LayerNormalization"]
    return model, any(changed)


def _fold(graph: ir.Graph, norm: ir.Node) -> bool:
    scale, shift = norm.inputs[1], norm.inputs[2] if len(norm.inputs) > 2 else None
    factors = constant(scale)
    if scale is None or shift is None or factors is None:
        return False
    channels = factors.size
    gemms = _readers(norm.outputs[0], channels)
    if not gemms or per_channel(scale, channels) is None or per_channel(shift, channels) is None:
        return False
    for gemm in gemms:
        weight, bias = gemm.inputs[1], gemm.inputs[2]
        assert weight is not None and bias is not None  # _is_linear
        matrix, vector = folded(weight, bias, shift, scale)
        name = f"{gemm.outputs[0].name}.folded"
        gemm.replace_input_with(1, add_tensor(graph, f"{name}.weight", matrix))
        gemm.replace_input_with(2, add_constant(graph, f"{name}.bias", vector.numpy()))
    ones = f"ones.{channels}"
    one = graph.initializers.get(ones) or add_constant(graph, ones, np.ones(channels, factors.dtype))
    norm.replace_input_with(1, one)
    norm.resize_inputs(2)  # ONNX Runtime 1.31 dies of a third one without a name
    return True


def _readers(value: ir.Value, channels: int) -> list[ir.Node] | None:
    """The Gemms that read a value in the end, each row of its channels whole; None if anything else does."""
    if value.is_graph_output():
        return None
    found = []
    for user, index in value.uses():
        if user.op_type == "Gemm" and index == 0 and _is_linear(user, channels):
            found.append(user)
        elif index == 0 and _keeps_channels(user, channels):
            behind = _readers(user.outputs[0], channels)
            if behind is None:
                return None
            found += behind
        else:
            return None
    return found


def _is_linear(gemm: ir.Node, channels: int) -> bool:
    matrix = matrix_shape(gemm.inputs[1])
    bias = constant(gemm.inputs[2]) if len(gemm.inputs) > 2 else None
    plain = not gemm.attributes.get_int("transA", 0) and gemm.attributes.get_int("transB", 0) == 1
    scaled = any(gemm.attributes.get_float(name, 1.0) != 1.0 for name in ("alpha", "beta"))
    return plain and not scaled and matrix is not None and bias is not None and matrix[1] == channels


def _keeps_channels(node: ir.Node, channels: int) -> bool:
    if node.op_type == "Reshape":
        sizes = constant(node.inputs[1])
        return sizes is not None and sizes[-1] == channels
    order = node.attributes.get_ints("perm", ()) if node.op_type == "Transpose" else ()
    return bool(order) and order[-1] == len(order) - 1
