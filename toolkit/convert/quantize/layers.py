"""Quantizes single layers of an ONNX graph: weights in fewer bytes, and dense layers that compute in eight bits.

Each weight is read from its mapped file again when the new file is written, so that memory does not hold them all.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import onnx_ir as ir

from backends.errors import InvalidArtifact
from backends.tensor import Array
from graphs.onnx.readers import read_linear

STEPS = 127


def int8_weight(
    graph: ir.Graph, weight: ir.Value, axis: int, transpose: bool = False
) -> tuple[ir.Value, ir.Value, Array]:
    """Add a constant's symmetric int8 values and its scales to the graph as initializers.

    Returns both initializers, and the scales as an array: (output channels,) float32, above 0.
    axis: that of the output channels; each channel has its own scale. transpose: store a matrix transposed.
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
    """Add a constant's float16 values to the graph and return the initializer. Values out of range become infinite."""
    tensor = _constant(weight)
    half = ir.LazyTensor(partial(_halved, tensor), dtype=ir.DataType.FLOAT16, shape=ir.Shape(tensor.shape.numpy()))
    return initializer(graph, f"{weight.name}_float16", half)


def initializer(graph: ir.Graph, name: str, tensor: ir.TensorProtocol) -> ir.Value:
    """Add a constant to a graph and return it; or return the initializer that has this name, made for another node
    with the same weight."""
    if name in graph.initializers:
        return graph.initializers[name]
    tensor.name = name
    value = ir.Value(
        name=name, const_value=tensor, type=ir.TensorType(tensor.dtype), shape=ir.Shape(tensor.shape.numpy())
    )
    graph.initializers.add(value)
    return value


def drop_unused(graph: ir.Graph) -> None:
    """Remove the initializers that no node reads and that are not outputs of the graph."""
    read = {value for node in graph for value in node.inputs}
    for name, value in list(graph.initializers.items()):
        if value not in read and not value.is_graph_output():
            del graph.initializers[name]


def _constant(weight: ir.Value) -> ir.TensorProtocol:
    assert weight.const_value is not None  # the layers that _layer finds have constant weights
    return weight.const_value


def _scales(tensor: ir.TensorProtocol, axes: tuple[int, ...]) -> Array:
    """Return the size of one of 127 steps for each output channel: float32, above 0. `axes` are all other axes."""
    values = tensor.numpy()
    largest = np.maximum(values.max(axis=axes), -values.min(axis=axes))
    scale: Array = np.maximum(largest / np.float32(STEPS), np.finfo(np.float32).tiny).astype(np.float32)
    del values
    let_go(tensor)
    return scale


def _steps(tensor: ir.TensorProtocol, scale: Array, axis: int, transpose: bool) -> ir.TensorProtocol:
    """Return the weight rounded to whole steps of `scale`, whose entries belong to `axis`: int8."""
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
    """Unmap a weight that lies in an external file: else it would count as memory until all weights are done."""
    if isinstance(tensor, ir.ExternalTensor):
        tensor.release()


Ranges = Mapping[str, tuple[float, float]]
_SMALLEST_CONV_WEIGHT = 4096  # values; in smaller kernels int8 saves less than its scale and node cost
_LEVELS = 255


@dataclass(frozen=True)
class QuantizableLayer:
    """A Gemm, MatMul or Conv with a constant weight.

    dense: whether it is a Gemm or MatMul. axis: that of the weight's output channels.
    """

    node: ir.Node
    dense: bool
    weight: ir.Value
    axis: int

    @property
    def name(self) -> str:
        """The node's name, or that of its first output if the node has none."""
        return str(self.node.name or self.node.outputs[0].name)

    @property
    def input(self) -> ir.Value:
        """The activations that the layer reads."""
        value = self.node.inputs[0]
        assert value is not None  # Gemm, MatMul and Conv always have this input
        return value

    @property
    def channels(self) -> int:
        """The number of output channels."""
        return int(_constant(self.weight).shape.numpy()[self.axis])

    @property
    def bias(self) -> ir.Value | None:
        """The node's third input; None if it has none."""
        return self.node.inputs[2] if len(self.node.inputs) > 2 else None


def layers(graph: ir.Graph, least_conv_weight: int | None = None) -> list[QuantizableLayer]:
    """Return the layers that can be quantized, in running order. Products of two activations are left out, and
    convolutions whose kernels have less than least_conv_weight values, or _SMALLEST_CONV_WEIGHT if that is None."""
    least = _SMALLEST_CONV_WEIGHT if least_conv_weight is None else least_conv_weight
    found = [_layer(node, least) for node in graph]
    return [layer for layer in found if layer is not None]


def _layer(node: ir.Node, least_conv_weight: int) -> QuantizableLayer | None:
    if node.op_type not in ("Gemm", "MatMul", "Conv"):
        return None
    weight = node.inputs[1]
    if weight is None or weight.const_value is None or not weight.is_initializer():
        return None
    if node.op_type == "Conv":
        return QuantizableLayer(node, False, weight, 0) if weight.const_value.size >= least_conv_weight else None
    linear = read_linear(node)
    if linear is None or not linear.is_unscaled:
        return None
    return QuantizableLayer(node, True, weight, linear.output_axis)


def store_float16(graph: ir.Graph, layer: QuantizableLayer) -> None:
    """Store a layer's weight as float16, with a Cast to float32, which the runtime computes once, when it loads."""
    cast = ir.node("Cast", [float16_weight(graph, layer.weight)], {"to": ir.DataType.FLOAT})
    _feed_weight(graph, layer, [cast])


def store_int8(graph: ir.Graph, layer: QuantizableLayer) -> None:
    """Store a layer's weight as int8, with a Cast and a Mul to float32, which the runtime computes once, when it loads.

    The runtime would not fold a DequantizeLinear, but compute it again in every run.
    """
    stored, _, scale = int8_weight(graph, layer.weight, layer.axis)
    shape = [-1 if i == layer.axis else 1 for i in range(len(stored.shape or ()))]
    shaped = initializer(graph, f"{layer.weight.name}_scales", ir.tensor(scale.reshape(shape)))
    cast = ir.node("Cast", [stored], {"to": ir.DataType.FLOAT})
    _feed_weight(graph, layer, [cast, ir.node("Mul", [cast.outputs[0], shaped])])


def compute_dynamic(graph: ir.Graph, layer: QuantizableLayer, quantized: dict[str, tuple[ir.Value, ...]]) -> None:
    """Replace a dense layer x @ w (+ b) by a MatMulInteger of x and w in eight bits, scaled back to float32, (+ b).

    x is quantized in each run by its own range. quantized: the inputs that are quantized already, by name, to which
    this function adds x: layers can share inputs.
    """
    name = layer.weight.name
    int8, weight_scale, scale = int8_weight(graph, layer.weight, layer.axis, transpose=layer.axis == 0)
    weight_zero = initializer(graph, f"{name}_zero_point", ir.tensor(np.zeros(len(scale), np.int8)))
    nodes: list[ir.Node] = []
    x = layer.input
    if str(x.name) not in quantized:
        nodes.append(ir.node("DynamicQuantizeLinear", [x], num_outputs=3, name=f"{x.name}_quantize"))
        quantized[str(x.name)] = tuple(nodes[-1].outputs)
    eight_bits, x_scale, x_zero = quantized[str(x.name)]
    # ONNX Runtime fuses these nodes, and the Add, into one kernel only in this order.
    where = layer.node.outputs[0].name
    product = ir.node("MatMulInteger", [eight_bits, int8, x_zero, weight_zero], name=f"{where}_product")
    cast = ir.node("Cast", [product.outputs[0]], {"to": ir.DataType.FLOAT}, name=f"{where}_cast")
    both = ir.node("Mul", [x_scale, weight_scale], name=f"{where}_scales")
    result = ir.node("Mul", [cast.outputs[0], both.outputs[0]], name=f"{where}_scaled")
    nodes += [product, cast, both, result]
    if layer.bias is not None:
        result = ir.node("Add", [result.outputs[0], layer.bias], name=f"{where}_biased")
        nodes.append(result)
    _replace(graph, layer.node, nodes)


def compute_static(
    graph: ir.Graph, layer: QuantizableLayer, ranges: Ranges, quantized: dict[str, tuple[ir.Value, ...]]
) -> None:
    """Quantize the input of a dense layer over its range in `ranges`, and dequantize input, weight and bias before it.

    The runtime fuses these nodes and the layer into one kernel that computes in eight bits and returns float32.
    `quantized` is as for compute_dynamic. Raises InvalidArtifact if the input has no range.
    """
    x = layer.input
    nodes: list[ir.Node] = []
    if str(x.name) not in quantized:
        pair, scale = _quantize_pair(graph, x, ranges)
        nodes += pair
        quantized[str(x.name)] = (pair[-1].outputs[0], scale)
    dequantized, x_scale = quantized[str(x.name)]
    weight = _dequantized_weight(graph, layer)
    nodes.append(weight)
    inputs = [dequantized, weight.outputs[0]]
    bias, added = layer.bias, None
    if bias is not None and (bias.const_value is None or bias.const_value.shape.numpy() != (layer.channels,)):
        bias, added = None, bias  # not one constant for each channel: added behind the integer kernel
    if bias is not None:
        nodes.append(_dequantized_bias(graph, layer, bias, x_scale))
        inputs.append(nodes[-1].outputs[0])
    nodes.append(ir.node(layer.node.op_type, inputs, layer.node.attributes, name=layer.node.name))
    if added is not None:
        nodes.append(ir.node("Add", [nodes[-1].outputs[0], added], name=f"{layer.node.outputs[0].name}_biased"))
    _replace(graph, layer.node, nodes)


def _quantize_pair(graph: ir.Graph, value: ir.Value, ranges: Ranges) -> tuple[list[ir.Node], ir.Value]:
    """Make the nodes that round a tensor to 256 levels over its range, extended to include zero.

    Returns the nodes (not yet in the graph) and the scale. Raises InvalidArtifact if the tensor has no range.
    """
    name = str(value.name)
    if name not in ranges:
        raise InvalidArtifact(f"the range of {name!r} was not seen on the calibration images")
    low, high = min(0.0, ranges[name][0]), max(0.0, ranges[name][1])
    size = max((high - low) / _LEVELS, float(np.finfo(np.float32).tiny))
    scale = initializer(graph, f"{name}_scale", ir.tensor(np.float32(size)))
    zero = initializer(graph, f"{name}_zero_point", ir.tensor(np.uint8(np.clip(round(-low / size), 0, _LEVELS))))
    quantize = ir.node("QuantizeLinear", [value, scale, zero], name=f"{name}_quantize")
    dequantize = ir.node("DequantizeLinear", [quantize.outputs[0], scale, zero], name=f"{name}_dequantize")
    return [quantize, dequantize], scale


def _dequantized_weight(graph: ir.Graph, layer: QuantizableLayer) -> ir.Node:
    stored, scale, steps = int8_weight(graph, layer.weight, layer.axis)
    zero = initializer(graph, f"{layer.weight.name}_zero_point", ir.tensor(np.zeros(len(steps), np.int8)))
    # Zero points of 0 are the default, but the runtime does not fuse a Gemm without them.
    return ir.node(
        "DequantizeLinear", [stored, scale, zero], {"axis": layer.axis}, name=f"{layer.node.outputs[0].name}_weight"
    )


def _dequantized_bias(graph: ir.Graph, layer: QuantizableLayer, bias: ir.Value, x_scale: ir.Value) -> ir.Node:
    """Return a node that dequantizes the bias, stored as int32 steps of input scale times weight scale: integer kernels
    add the bias in these steps."""
    weight_scale = graph.initializers[f"{layer.weight.name}_scale"].const_value
    assert bias.const_value is not None
    assert x_scale.const_value is not None
    assert weight_scale is not None
    scale: Array = (x_scale.const_value.numpy() * weight_scale.numpy()).astype(np.float32)
    scale = np.maximum(scale, np.finfo(np.float32).tiny)
    limits = np.iinfo(np.int32)
    steps = np.clip(np.rint(bias.const_value.numpy().astype(np.float64) / scale), limits.min, limits.max)
    where = layer.node.outputs[0].name
    stored = initializer(graph, f"{where}_bias", ir.tensor(steps.astype(np.int32)))
    scales = initializer(graph, f"{where}_bias_scale", ir.tensor(scale))
    zero = initializer(graph, f"{where}_bias_zero_point", ir.tensor(np.zeros(len(scale), np.int32)))
    return ir.node("DequantizeLinear", [stored, scales, zero], {"axis": 0}, name=f"{where}_bias_dequantize")


def _feed_weight(graph: ir.Graph, layer: QuantizableLayer, nodes: Sequence[ir.Node]) -> None:
    """Insert nodes that make a weight before its layer, and use their result as the layer's weight."""
    _name_outputs(nodes, f"{layer.node.outputs[0].name}_weight")
    graph.insert_before(layer.node, nodes)
    layer.node.replace_input_with(1, nodes[-1].outputs[0])


def _replace(graph: ir.Graph, node: ir.Node, nodes: Sequence[ir.Node]) -> None:
    """Replace a node by `nodes`. The output of the last of them gets the name of the old output."""
    _name_outputs(nodes, str(node.outputs[0].name))
    output, result = node.outputs[0], nodes[-1].outputs[0]
    graph.insert_before(node, nodes)
    result.name, result.type, result.shape = output.name, output.type, output.shape
    output.replace_all_uses_with(result, replace_graph_outputs=True)
    graph.remove(node, safe=True)


def _name_outputs(nodes: Sequence[ir.Node], prefix: str) -> None:
    for i, node in enumerate(nodes):
        node.name = node.name or f"{prefix}_{i}"
        for k, value in enumerate(node.outputs):
            value.name = value.name or f"{node.name}_{k}"
