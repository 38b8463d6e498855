"""An ONNX graph to INT8 for ONNX Runtime: dynamic range, per channel, float32 in and out.

Written here, weight by weight from the mapped file to the new one. ONNX Runtime's own quantizer makes the same numbers
(the tests compare them), but holds the whole model in memory several times over.
"""

from functools import partial
from pathlib import Path

import numpy as np
import onnx_ir as ir

from backends.tensor import Array
from graphs.onnx_file import load, save

_SMALLEST_CONV_WEIGHT = 4096  # values; below that a scale and a node a weight are not worth what they save
_STEPS = 127


def quantize_onnx(source: Path, target: Path) -> tuple[Path, ...]:
    """Write the INT8 form of a prepared float32 graph. Returns the files: target, then external data.

    Gemm and MatMul compute in int8, on activations quantized as they come. Convolutions keep int8 weights and
    compute in float32: ConvInteger, the runtime's other choice, takes longer than float32 (measured on pocketseal:
    1.3 times as long as this on dense kernels, 3.4 times with depthwise ones). Depthwise weights stay float32.
    Memory: what the largest weight needs, a few times. Raises InvalidArtifact for a graph that is not valid.
    """
    model = load(source)
    quantized_inputs: dict[str, tuple[ir.Value, ...]] = {}
    for node in list(model.graph):
        if node.op_type in ("Gemm", "MatMul"):
            _quantize_product(model.graph, node, quantized_inputs)
        elif node.op_type == "Conv":
            _shrink_convolution(model.graph, node)
    read = {value for node in model.graph for value in node.inputs}
    for name, value in list(model.graph.initializers.items()):
        if value not in read and not value.is_graph_output():
            del model.graph.initializers[name]
    return save(model, target)


def _quantize_product(graph: ir.Graph, node: ir.Node, quantized_inputs: dict[str, tuple[ir.Value, ...]]) -> None:
    """x @ w (+ b) -> MatMulInteger of both in eight bits, scaled back to float32, (+ b)."""
    x, weight = node.inputs[0], node.inputs[1]
    assert x is not None and weight is not None
    tensor = weight.const_value
    if tensor is None or len(tensor.shape) != 2 or not weight.is_initializer():
        return  # a product of two computed maps stays float32
    if node.op_type == "Gemm" and (
        node.attributes.get_int("transA", False)
        or node.attributes.get_float("alpha", 1.0) != 1
        or node.attributes.get_float("beta", 1.0) != 1
    ):
        return
    by_output = bool(node.attributes.get_int("transB", 0))
    scale = _scales(tensor, axis=1 if by_output else 0)
    rows, columns = tensor.shape.numpy()
    steps = ir.LazyTensor(
        partial(_steps, tensor, scale, 0 if by_output else 1, transpose=by_output),
        dtype=ir.DataType.INT8,
        shape=ir.Shape((columns, rows) if by_output else (rows, columns)),
    )
    name = weight.name
    int8 = _initializer(graph, f"{name}_quantized", steps)
    weight_scale = _initializer(graph, f"{name}_scale", ir.tensor(scale))
    weight_zero = _initializer(graph, f"{name}_zero_point", ir.tensor(np.zeros(len(scale), np.int8)))
    nodes: list[ir.Node] = []
    assert x.name is not None
    if x.name not in quantized_inputs:
        nodes.append(ir.node("DynamicQuantizeLinear", [x], num_outputs=3, name=f"{x.name}_quantize"))
        quantized_inputs[x.name] = tuple(nodes[-1].outputs)
    eight_bits, x_scale, x_zero = quantized_inputs[x.name]
    # In this order ONNX Runtime joins the five of them, and the Add, into one kernel.
    where = node.outputs[0].name
    product = ir.node("MatMulInteger", [eight_bits, int8, x_zero, weight_zero], name=f"{where}_product")
    cast = ir.node("Cast", [product.outputs[0]], {"to": ir.DataType.FLOAT}, name=f"{where}_cast")
    both = ir.node("Mul", [x_scale, weight_scale], name=f"{where}_scales")
    result = ir.node("Mul", [cast.outputs[0], both.outputs[0]], name=f"{where}_scaled")
    nodes += [product, cast, both, result]
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if bias is not None:
        result = ir.node("Add", [result.outputs[0], bias], name=f"{where}_biased")
        nodes.append(result)
    for made in nodes:
        for i, value in enumerate(made.outputs):
            value.name = f"{made.name}_{i}"
    _replace(graph, node, nodes, result.outputs[0])


def _shrink_convolution(graph: ir.Graph, node: ir.Node) -> None:
    """Replace the weight of a large dense Conv by int8, per output channel, and a DequantizeLinear."""
    weight = node.inputs[1]
    if weight is None or weight.const_value is None or not weight.is_initializer():
        return
    tensor = weight.const_value
    if tensor.size < _SMALLEST_CONV_WEIGHT or tensor.shape[1] == 1:
        return
    scale = _scales(tensor, axis=tuple(range(1, len(tensor.shape))))
    steps = ir.LazyTensor(
        partial(_steps, tensor, scale, 0), dtype=ir.DataType.INT8, shape=ir.Shape(tensor.shape.numpy())
    )
    inputs = [
        _initializer(graph, f"{weight.name}_quantized", steps),
        _initializer(graph, f"{weight.name}_scale", ir.tensor(scale)),
    ]
    dequantize = ir.node("DequantizeLinear", inputs, {"axis": 0}, name=f"{weight.name}_dequantize")
    dequantize.outputs[0].name = f"{weight.name}_dequantized"
    graph.insert_before(node, dequantize)
    node.replace_input_with(1, dequantize.outputs[0])


def _scales(tensor: ir.TensorProtocol, axis: int | tuple[int, ...]) -> Array:
    """What one of 127 steps stands for, per output channel: float32, above 0."""
    values = tensor.numpy()
    largest = np.maximum(values.max(axis=axis), -values.min(axis=axis))
    scale: Array = np.maximum(largest / np.float32(_STEPS), np.finfo(np.float32).tiny).astype(np.float32)
    del values
    _let_go(tensor)
    return scale


def _steps(tensor: ir.TensorProtocol, scale: Array, axis: int, transpose: bool = False) -> ir.TensorProtocol:
    """The weight in whole steps of `scale`, whose entries belong to `axis`, as int8."""
    values = tensor.numpy()
    steps = values / scale.reshape([-1 if i == axis else 1 for i in range(values.ndim)])
    del values
    _let_go(tensor)
    int8 = np.rint(steps, out=steps).astype(np.int8)
    return ir.tensor(np.ascontiguousarray(int8.T) if transpose else int8)


def _let_go(tensor: ir.TensorProtocol) -> None:
    """Unmap a weight that lies in a file of its own: it would count as memory until the last of them is done."""
    if isinstance(tensor, ir.ExternalTensor):
        tensor.release()


def _initializer(graph: ir.Graph, name: str, tensor: ir.TensorProtocol) -> ir.Value:
    if name in graph.initializers:
        return graph.initializers[name]  # the same weight in another product
    tensor.name = name
    value = ir.Value(
        name=name, const_value=tensor, type=ir.TensorType(tensor.dtype), shape=ir.Shape(tensor.shape.numpy())
    )
    graph.initializers.add(value)
    return value


def _replace(graph: ir.Graph, node: ir.Node, nodes: list[ir.Node], result: ir.Value) -> None:
    """Put `nodes` in the place of one, `result` under the name of its output."""
    output = node.outputs[0]
    graph.insert_before(node, nodes)
    result.name, result.type, result.shape = output.name, output.type, output.shape
    output.replace_all_uses_with(result, replace_graph_outputs=True)
    graph.remove(node, safe=True)
