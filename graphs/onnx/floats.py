"""Brings graphs that compute in float16, bfloat16 or float64 to float32, in which every runtime computes; and finds the
outputs of integers that are rounded floats."""

from collections.abc import Iterator, Mapping

import numpy as np
import onnx
import onnx_ir as ir
from onnx import TensorProto, numpy_helper

from graphs.onnx.opset import nodes
from graphs.onnx.weights import lazy_tensor

HALVES = frozenset({"float16", "bfloat16"})

_OTHERS = {TensorProto.FLOAT16: "float16", TensorProto.BFLOAT16: "bfloat16", TensorProto.DOUBLE: "float64"}
# Operators that give the values of their inputs, rounded or moved, their sums and products: a count stays a count.
_TRANSPARENT = frozenset(
    {
        "Abs", "Add", "Cast", "Ceil", "Clip", "Concat", "Div", "Expand", "Flatten", "Floor", "Gather", "Identity",
        "Max", "Min", "Mod", "Mul", "Neg", "Pad", "ReduceMax", "ReduceMin", "ReduceSum", "Reshape", "Round", "Slice",
        "Split", "Squeeze", "Sub", "Tile", "Transpose", "Unsqueeze", "Where",
    }
)  # fmt: skip
# Operators that give integers which stand for floats.
_QUANTIZING = frozenset(
    {
        "ConvInteger", "DynamicQuantizeLinear", "MatMulInteger", "QLinearConv", "QLinearMatMul", "QuantizeLinear",
    }
)  # fmt: skip
# Attributes whose value is the dtype of an output.
_DTYPES = frozenset({"to", "dtype", "output_datatype", "output_dtype"})


def other_floats(model: onnx.ModelProto) -> frozenset[str]:
    """Return which of float16, bfloat16 and float64 are in a model, in its functions too."""
    found = {value.type.tensor_type.elem_type for value in (*model.graph.input, *model.graph.output)}
    found |= {tensor.data_type for tensor in model.graph.initializer}
    inner = (node for function in model.functions for node in function.node)
    for node in (*nodes(model.graph), *inner):
        for attribute in node.attribute:
            found |= {tensor.data_type for tensor in (attribute.t, *attribute.tensors, *attribute.g.initializer)}
            if attribute.name in _DTYPES:
                found.add(attribute.i)
    return frozenset(_OTHERS[dtype] for dtype in found & set(_OTHERS))


def to_float32(model: onnx.ModelProto, weights: Mapping[str, ir.TensorProtocol]) -> dict[str, ir.TensorProtocol]:
    """Make every tensor of float16, bfloat16 and float64 a tensor of float32, in place. Functions must be inlined.

    weights: the weights that were detached from the model, by name. Returns them in float32; values are computed only
    when they are written.
    """
    for graph in _graphs(model.graph):
        for value in (*graph.input, *graph.output, *graph.value_info):
            if value.type.tensor_type.elem_type in _OTHERS:
                value.type.tensor_type.elem_type = TensorProto.FLOAT
        for tensor in graph.initializer:
            _cast(tensor)
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.name in _DTYPES and attribute.i in _OTHERS:
                    attribute.i = TensorProto.FLOAT
                for tensor in (attribute.t, *attribute.tensors):
                    _cast(tensor)
    return {name: _cast_weight(tensor) for name, tensor in weights.items()}


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """Yield a graph and the branches of its nodes."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (*attribute.graphs, *((attribute.g,) if attribute.HasField("g") else ())):
                yield from _graphs(inner)


def _cast(tensor: onnx.TensorProto) -> None:
    if tensor.data_type in _OTHERS:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name))


def _cast_weight(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    if tensor.dtype.value not in _OTHERS:
        return tensor
    like = ir.tensor(np.zeros((), np.float32))
    return lazy_tensor(tuple(tensor.shape.numpy()), like, lambda: tensor.numpy().astype(np.float32))


def rounded_outputs(model: ir.Model) -> tuple[str, ...]:
    """Return the names of the outputs of integers that are rounded floats, such as a picture in uint8.

    Other integers are classes, indices and counts, of which a near one is another answer. Shapes need not be known, and
    dtypes must be.
    """
    return tuple(
        str(value.name)
        for value in model.graph.outputs
        if value.dtype is not None and value.dtype.is_integer() and _is_computed(value)
    )


def _is_computed(value: ir.Value) -> bool:
    """Return whether a value is a float that was computed, or such a float after rounding."""
    left: list[ir.Value | None] = [value]
    seen: set[ir.Value] = set()
    while left:
        one = left.pop()
        if one is None or one in seen:
            continue
        seen.add(one)
        node = one.producer()
        is_float = one.dtype is not None and one.dtype.is_floating_point()
        if node is None:
            if is_float and one.is_graph_input():
                return True
        elif node.op_type in _TRANSPARENT:
            left += node.inputs
        elif node.op_type in _QUANTIZING or (is_float and node.op_type != "Constant"):
            return True
    return False
