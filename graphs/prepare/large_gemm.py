"""A Gemm whose weights pass a limit -> several, each of some of the outputs, and a Concat.

A graph is lowered in slices of whole nodes, so no node may have more weights than a slice. Each output is the same sum
of the same products as before, and weights are quantized by output. Where ranges of activations are fixed beforehand,
a part has its own.
"""

import math

import onnx_ir as ir

from graphs.large_weights import computed
from graphs.prepare.nodes import describe, put
from graphs.prepare.rewriting import matrix_shape, static_shape


def split_large_gemm(model: ir.Model, limit_bytes: int) -> tuple[ir.Model, bool]:
    """Split every Gemm with a constant matrix and bias of more than limit_bytes, into parts of nearly the same size."""
    return model, bool(sum(_split(model.graph, node, limit_bytes) for node in list(model.graph)))


def _split(graph: ir.Graph, node: ir.Node, limit_bytes: int) -> bool:
    """Gemm(x, w, b) -> Concat(Gemm(x, w[rows], b[rows]), ...)"""
    if node.op_type != "Gemm" or (matrix := matrix_shape(node.inputs[1])) is None:
        return False
    weight = node.inputs[1]
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    shape = static_shape(node.outputs[0])
    by_output = bool(node.attributes.get_int("transB", 0))
    outputs = matrix[0] if by_output else matrix[1]
    assert weight is not None and weight.const_value is not None  # matrix_shape
    constants = [weight.const_value]
    if bias is not None:
        if bias.const_value is None or tuple(bias.const_value.shape.numpy()) != (outputs,):
            return False
        constants.append(bias.const_value)
    most = limit_bytes // math.ceil(sum(tensor.nbytes for tensor in constants) / outputs)
    if shape is None or not 0 < most < outputs:
        return False
    parts: list[ir.Node] = []
    rows = math.ceil(outputs / math.ceil(outputs / most))
    for start in range(0, outputs, rows):
        end = min(start + rows, outputs)
        values = [_part(graph, weight, start, end, 0 if by_output else 1)]
        if bias is not None:
            values.append(_part(graph, bias, start, end, 0))
        name = f"{node.name}.rows{len(parts)}"
        parts.append(ir.node("Gemm", [node.inputs[0], *values], dict(node.attributes), name=name))
        describe(parts[-1].outputs[0], f"{name}.out", node.outputs[0], (shape[0], end - start))
    joined = ir.node("Concat", [part.outputs[0] for part in parts], {"axis": 1}, name=f"{node.name}.join")
    put(graph, node, [*parts, joined])
    for value in (weight, bias):
        if value is not None and value.name is not None and not value.uses():
            del graph.initializers[value.name]
    return True


def _part(graph: ir.Graph, value: ir.Value, start: int, end: int, axis: int) -> ir.Value:
    """Entries start to end of a constant along an axis, read when they are written; one part for all that use it."""
    whole = value.const_value
    assert whole is not None  # _split
    name = f"{value.name}.rows{start}-{end}"
    if name not in graph.initializers:
        sizes = [int(size) for size in whole.shape.numpy()]
        sizes[axis] = end - start
        chosen = (slice(None),) * axis + (slice(start, end),)
        tensor = computed(tuple(sizes), whole, lambda: whole.numpy()[chosen])
        tensor.name = name
        kind = ir.TensorType(whole.dtype)
        graph.initializers.add(ir.Value(name=name, const_value=tensor, type=kind, shape=ir.Shape(sizes)))
    return graph.initializers[name]
