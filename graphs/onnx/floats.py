"""Brings graphs that compute in float16, bfloat16 or float64 to float32, in which every runtime computes."""

from collections.abc import Iterator, Mapping

import numpy as np
import onnx
import onnx_ir as ir
from onnx import TensorProto, numpy_helper

from graphs.onnx.opset import nodes
from graphs.onnx.weights import lazy_tensor

HALVES = frozenset({"float16", "bfloat16"})

_OTHERS = {TensorProto.FLOAT16: "float16", TensorProto.BFLOAT16: "bfloat16", TensorProto.DOUBLE: "float64"}
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
