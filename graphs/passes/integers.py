"""Passes over graphs that were quantized before they were imported, for TFLite, which has none of their operators."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from backends.tensor import Array
from graphs.onnx.readers import constant
from graphs.onnx.rewriting import add_constant, new_node, remove_unused_nodes, replace_node
from graphs.onnx.sizes import infer_shapes
from graphs.passes.registry import graph_pass

# What onnx and com.microsoft call operators that take and give integers with scales.
_INTEGER = frozenset({"MatMulInteger", "ConvInteger", "DynamicQuantizeLinear", "QGemm", "QuantizeLinear"})
# Operators that move values or choose among them: the scale stays that of the input.
_MOVES = frozenset(
    {"MaxPool", "Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze", "Slice", "Gather", "DepthToSpace", "Split"}
)
_SMALL = (ir.DataType.INT8, ir.DataType.UINT8)


def is_quantized(model: ir.Model) -> bool:
    """Return whether a graph computes in integers with scales, or rounds its activations to them."""
    return any(node.op_type in _INTEGER or node.op_type.startswith("QLinear") for node in model.graph)


@dataclass(frozen=True)
class _Scaled:
    """A tensor of integers with its scale and zero point."""

    value: ir.Value
    scale: ir.Value
    zero: ir.Value | None


class _Pairs:
    """Builds the nodes that take the place of one operator on integers."""

    def __init__(self, graph: ir.Graph, node: ir.Node) -> None:
        self._graph = graph
        self._name = str(node.name or node.outputs[0].name)
        self.nodes: list[ir.Node] = []

    def add(
        self, op_type: str, inputs: Sequence[ir.Value | None], attributes: dict[str, object], what: str
    ) -> ir.Value:
        name = f"{self._name}.{what}"
        node = ir.node(op_type, inputs, attributes, name=name)  # type: ignore[arg-type]  # attributes of another node
        node.outputs[0].name = f"{name}.out"
        self.nodes.append(node)
        return node.outputs[0]

    def widened(self, given: _Scaled, what: str, axis: int = 0) -> ir.Value:
        inputs = [given.value, given.scale, *([] if given.zero is None else [given.zero])]
        rank = given.scale.shape is not None and len(given.scale.shape)
        return self.add("DequantizeLinear", inputs, {"axis": axis} if rank else {}, what)

    def bias(self, steps: ir.Value, x: ir.Value, weight: ir.Value) -> ir.Value | None:
        """Return a bias in float32, which integer operators take in steps of input scale times weight scale."""
        values, by, of = constant(steps), constant(x), constant(weight)
        if values is None or by is None or of is None:
            return None
        return add_constant(self._graph, f"{self._name}.bias", (values * (by * of)).astype(np.float32))


def _scaled(inputs: Sequence[ir.Value | None], start: int) -> _Scaled | None:
    value, scale = inputs[start : start + 2]
    zero = inputs[start + 2] if start + 2 < len(inputs) else None
    return None if value is None or scale is None else _Scaled(value, scale, zero)


def _attributes(node: ir.Node, *left_out: str) -> dict[str, object]:
    return {name: attribute for name, attribute in node.attributes.items() if name not in left_out}


def _convolution(node: ir.Node, pairs: _Pairs) -> ir.Value | None:
    inputs = node.inputs
    x, weight = _scaled(inputs, 0), _scaled(inputs, 3)
    if x is None or weight is None:
        return None
    operands: list[ir.Value | None] = [pairs.widened(x, "x"), pairs.widened(weight, "weight")]
    if len(inputs) > 8 and inputs[8] is not None:
        operands.append(pairs.bias(inputs[8], x.scale, weight.scale))
        if operands[-1] is None:
            return None
    return pairs.add("Conv", operands, _attributes(node), "float")


def _gemm(node: ir.Node, pairs: _Pairs) -> ir.Value | None:
    inputs = node.inputs
    x, weight = _scaled(inputs, 0), _scaled(inputs, 3)
    if x is None or weight is None:
        return None
    axis = 0 if node.attributes.get_int("transB", 0) else 1
    operands: list[ir.Value | None] = [pairs.widened(x, "x"), pairs.widened(weight, "weight", axis)]
    if len(inputs) > 6 and inputs[6] is not None:
        operands.append(pairs.bias(inputs[6], x.scale, weight.scale))
        if operands[-1] is None or node.attributes.get_float("alpha", 1.0) != 1:
            return None
    return pairs.add("Gemm", operands, _attributes(node), "float")


def _two(op_type: str) -> Callable[[ir.Node, _Pairs], ir.Value | None]:
    def rewrite(node: ir.Node, pairs: _Pairs) -> ir.Value | None:
        left, right = _scaled(node.inputs, 0), _scaled(node.inputs, 3)
        if left is None or right is None:
            return None
        rank = 1 if right.value.shape is None else len(right.value.shape)
        return pairs.add(op_type, [pairs.widened(left, "a"), pairs.widened(right, "b", rank - 1)], {}, "float")

    return rewrite


def _one(op_type: str, *left_out: str) -> Callable[[ir.Node, _Pairs], ir.Value | None]:
    def rewrite(node: ir.Node, pairs: _Pairs) -> ir.Value | None:
        x = _scaled(node.inputs, 0)
        if x is None or bool(node.attributes.get_int("channels_last", 0)):
            return None
        return pairs.add(op_type, [pairs.widened(x, "x")], _attributes(node, "channels_last", *left_out), "float")

    return rewrite


def _concat(node: ir.Node, pairs: _Pairs) -> ir.Value | None:
    parts = [_scaled(node.inputs, start) for start in range(2, len(node.inputs), 3)]
    if None in parts:
        return None
    given = [pairs.widened(part, f"part{i}") for i, part in enumerate(parts) if part is not None]
    return pairs.add("Concat", given, _attributes(node), "float")


# Operator -> its rewrite, which returns the result in float32, and the place of the result's scale among the inputs.
_REWRITES: dict[str, tuple[Callable[[ir.Node, _Pairs], ir.Value | None], int]] = {
    "QLinearConv": (_convolution, 6),
    "QLinearMatMul": (_two("MatMul"), 6),
    "QGemm": (_gemm, 7),
    "QLinearAdd": (_two("Add"), 6),
    "QLinearMul": (_two("Mul"), 6),
    "QLinearSigmoid": (_one("Sigmoid"), 3),
    "QLinearLeakyRelu": (_one("LeakyRelu"), 3),
    "QLinearSoftmax": (_one("Softmax", "opset"), 3),
    "QLinearAveragePool": (_one("AveragePool"), 3),
    "QLinearGlobalAveragePool": (_one("GlobalAveragePool"), 3),
    "QLinearConcat": (_concat, 0),
}


@graph_pass("lowering", tolerance=1.0)
def integers_to_pairs(model: ir.Model) -> tuple[ir.Model, bool]:
    """Rewrite operators on integers with scales as DequantizeLinear, the float operator, and QuantizeLinear.

    TFLite has integer kernels only for tensors with scales in the file, which onnx2tf does not write, and no operator
    of com.microsoft. A result that lies between two levels may be rounded to the other one of them.
    """
    changed = False
    for node in list(model.graph):
        if node.op_type in _REWRITES:
            changed |= _rewrite(model.graph, node)
        elif node.op_type in _MOVES and len(node.outputs) == 1:
            changed |= _move(model.graph, node)
    return model, changed


# Operators before which a Relu stands in float graphs.
_BEFORE_RELU = ("Add", "Conv", "Gemm", "MatMul", "Mul", "Sub")
# Lowest and highest number of a tensor.
Range = tuple[float, float]


def floats_with_ranges(model: ir.Model) -> tuple[ir.Model, dict[str, Range]]:
    """Return the float graph that a quantized graph was made of, and the ranges that its scales state, by tensor.

    Pairs of a QuantizeLinear and a DequantizeLinear with one scale are left out, and constants behind a
    DequantizeLinear become floats, rounded as they are. Where the lowest number is 0, a quantizer leaves out a Relu: it
    comes back. The given graph is changed.
    """
    model, _ = integers_to_pairs(model)
    graph, ranges = model.graph, dict[str, Range]()
    for node in [node for node in graph if node.op_type == "DequantizeLinear"]:
        maker = None if node.inputs[0] is None else node.inputs[0].producer()
        result = node.outputs[0]
        if (values := _dequantized(node)) is not None:
            replacement = add_constant(graph, f"{result.name}_float", values)
        elif maker is not None and maker.op_type == "QuantizeLinear" and (found := _range(maker)) is not None:
            x = maker.inputs[0]
            assert x is not None  # an operator's own
            replacement = x
            layer = x.producer()
            if found[0] == 0 and layer is not None and layer.op_type in _BEFORE_RELU:
                relu = new_node("Relu", [x], output=f"{x.name}_relu")
                graph.insert_before(maker, relu)
                maker.replace_input_with(0, relu.outputs[0])  # where other pairs of this tensor find it
                replacement = x = relu.outputs[0]
            if result.is_graph_output():
                if x.is_graph_input() or x.is_graph_output():
                    continue
                result.name, x.name = None, result.name
            ranges[str(x.name)] = found
        else:
            continue
        result.replace_all_uses_with(replacement, replace_graph_outputs=True)
        graph.remove(node, safe=True)
    remove_unused_nodes(model)
    return infer_shapes(model), ranges


def _range(node: ir.Node) -> Range | None:
    """Return the lowest and the highest number that a QuantizeLinear of one scale keeps, or None."""
    scale, zero = (constant(value) if value is not None else None for value in node.inputs[1:3])
    if scale is None or zero is None or scale.size != 1 or zero.size != 1 or zero.dtype.itemsize != 1:
        return None
    limits, step = np.iinfo(zero.dtype), float(scale.item())
    return (limits.min - int(zero.item())) * step, (limits.max - int(zero.item())) * step


def _dequantized(node: ir.Node) -> Array | None:
    """Return the result of a DequantizeLinear of a constant as float32, or None for any other."""
    steps, scale = (constant(value) if value is not None else None for value in node.inputs[:2])
    zero = constant(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2] is not None else np.zeros(1, np.int64)
    is_in_blocks = node.attributes.get_int("block_size", 0) > 0
    if steps is None or scale is None or zero is None or is_in_blocks:
        return None
    sizes = [1] * steps.ndim
    if scale.size > 1:
        sizes[node.attributes.get_int("axis", 1)] = scale.size
    along = scale.reshape(sizes) if steps.ndim else scale.reshape(())
    zeros = zero.astype(np.int64).reshape(sizes if zero.size == scale.size and steps.ndim else ())
    return np.asarray((steps.astype(np.int64) - zeros) * along.astype(np.float32), np.float32)


def _rewrite(graph: ir.Graph, node: ir.Node) -> bool:
    make, at = _REWRITES[node.op_type]
    pairs = _Pairs(graph, node)
    result = make(node, pairs)
    if result is None:
        return False
    scale = node.inputs[at : at + 2]
    if scale and scale[0] is not None:
        pairs.add("QuantizeLinear", [result, *(value for value in scale if value is not None)], {}, "rounded")
    replace_node(graph, node, pairs.nodes)
    return True


def _move(graph: ir.Graph, node: ir.Node) -> bool:
    """Let an operator that moves integers move floats between a DequantizeLinear and a QuantizeLinear."""
    x = node.inputs[0]
    maker = None if x is None else x.producer()
    if x is None or maker is None or maker.op_type != "QuantizeLinear":
        return False
    scale = [value for value in maker.inputs[1:3] if value is not None]
    if any((values := constant(value)) is None or values.size != 1 for value in scale):
        return False
    name = str(node.name or node.outputs[0].name)
    wide = new_node("DequantizeLinear", [x, *scale], output=f"{name}.x.out", name=f"{name}.x")
    inputs = [wide.outputs[0], *node.inputs[1:]]
    moved = ir.node(node.op_type, inputs, dict(node.attributes), name=f"{name}.float")
    moved.outputs[0].name = f"{name}.float.out"
    rounded = new_node("QuantizeLinear", [moved.outputs[0], *scale], output=f"{name}.out", name=f"{name}.rounded")
    replace_node(graph, node, [wide, moved, rounded])
    return True
