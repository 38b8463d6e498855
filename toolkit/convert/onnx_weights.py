"""Weights of an ONNX graph in fewer bytes, each read from its mapped file as the new one is written."""

from functools import partial

import numpy as np
import onnx_ir as ir

from backends.tensor import Array

_STEPS = 127


def int8_weight(
    graph: ir.Graph, weight: ir.Value, axis: int, transpose: bool = False
) -> tuple[ir.Value, ir.Value, Array]:
    """A constant as int8, symmetric, and its scales as initializers; and the scales: float32, above 0.

    axis: that of the output channels, each with a scale of its own. transpose: store a matrix the other way round.
    """
    tensor = _constant(weight)
    sizes = tensor.shape.numpy()
    scale = _scales(tensor, tuple(i for i in range(len(sizes)) if i != axis))
    steps = ir.LazyTensor(
        partial(_steps, tensor, scale, axis, transpose),
        dtype=ir.DataType.INT8,
        shape=ir.Shape(sizes[::-1] if transpose else sizes),
    )
    stored = initializer(graph, f"{weight.name}_quantized", steps)
    return stored, initializer(graph, f"{weight.name}_scale", ir.tensor(scale)), scale


def float16_weight(graph: ir.Graph, weight: ir.Value) -> ir.Value:
    """A constant as float16, as an initializer. What passes its range becomes infinite."""
    tensor = _constant(weight)
    half = ir.LazyTensor(partial(_halved, tensor), dtype=ir.DataType.FLOAT16, shape=ir.Shape(tensor.shape.numpy()))
    return initializer(graph, f"{weight.name}_float16", half)


def initializer(graph: ir.Graph, name: str, tensor: ir.TensorProtocol) -> ir.Value:
    """Add a constant to a graph, or find the one of that name: the same weight in another node."""
    if name in graph.initializers:
        return graph.initializers[name]
    tensor.name = name
    value = ir.Value(
        name=name, const_value=tensor, type=ir.TensorType(tensor.dtype), shape=ir.Shape(tensor.shape.numpy())
    )
    graph.initializers.add(value)
    return value


def drop_unused(graph: ir.Graph) -> None:
    """Remove the constants that nothing reads any more."""
    read = {value for node in graph for value in node.inputs}
    for name, value in list(graph.initializers.items()):
        if value not in read and not value.is_graph_output():
            del graph.initializers[name]


def _constant(weight: ir.Value) -> ir.TensorProtocol:
    assert weight.const_value is not None  # callers look for weights
    return weight.const_value


def _scales(tensor: ir.TensorProtocol, axes: tuple[int, ...]) -> Array:
    """What one of 127 steps stands for, per output channel: float32, above 0."""
    values = tensor.numpy()
    largest = np.maximum(values.max(axis=axes), -values.min(axis=axes))
    scale: Array = np.maximum(largest / np.float32(_STEPS), np.finfo(np.float32).tiny).astype(np.float32)
    del values
    let_go(tensor)
    return scale


def _steps(tensor: ir.TensorProtocol, scale: Array, axis: int, transpose: bool) -> ir.TensorProtocol:
    """The weight in whole steps of `scale`, whose entries belong to `axis`, as int8."""
    values = tensor.numpy()
    steps = values / scale.reshape([-1 if i == axis else 1 for i in range(values.ndim)])
    del values
    let_go(tensor)
    int8 = np.rint(steps, out=steps).astype(np.int8)
    return ir.tensor(np.ascontiguousarray(int8.T) if transpose else int8)


def _halved(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    half = tensor.numpy().astype(np.float16)
    let_go(tensor)
    return ir.tensor(half)


def let_go(tensor: ir.TensorProtocol) -> None:
    """Unmap a weight that lies in a file of its own: it would count as memory until the last of them is done."""
    if isinstance(tensor, ir.ExternalTensor):
        tensor.release()
