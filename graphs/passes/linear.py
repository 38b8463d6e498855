"""Passes over linear layers: MatMul becomes Gemm, and the operators around a Gemm become part of its constants."""

import math
from functools import partial
from typing import Any

import numpy as np
import onnx_ir as ir
from onnxscript.rewriter import pattern

from backends.tensor import Array
from graphs.onnx.readers import Linear, constant, per_channel, read_linear, read_norm, static_shape
from graphs.onnx.rewriting import add_constant, add_tensor, apply, new_constant, new_node, replace_node
from graphs.onnx.weights import lazy_tensor, transposed
from graphs.passes.registry import graph_pass


def _gemm_fits(context: Any, x: ir.Value, product: ir.Value, bias: ir.Value | None = None, **_: Any) -> bool:
    shape, linear = static_shape(x), read_linear(product.producer())
    if shape is None or len(shape) < 2 or linear is None:
        return False
    vector = constant(bias)
    return bias is None or (vector is not None and vector.shape == (linear.features_out,))


def _gemm(op: Any, x: ir.Value, product: ir.Value, bias: ir.Value | None = None, **_: Any) -> ir.Value:
    shape, linear = static_shape(x), read_linear(product.producer())
    assert shape is not None and linear is not None  # _gemm_fits
    # One transpose for all layers that share a weight: a second of its name would take the first one's place.
    name = f"{linear.weight.name}.transposed"
    made = None if linear.weight.graph is None else linear.weight.graph.initializers.get(name)
    by_output = op.initializer(transposed(linear.tensor), name=name) if made is None else made
    extra = () if bias is None else (bias,)
    if len(shape) == 2:
        return op.Gemm(x, by_output, *extra, transB=1)  # type: ignore[no-any-return]  # op is dynamic
    rows = op.Reshape(x, op.Constant(value_ints=[math.prod(shape[:-1]), linear.features_in]))
    result = op.Gemm(rows, by_output, *extra, transB=1)
    return op.Reshape(result, op.Constant(value_ints=[*shape[:-1], linear.features_out]))  # type: ignore[no-any-return]


def _with_bias() -> pattern.RewriteRuleSet:
    def biased(op: Any, x: Any, weight: Any, bias: Any) -> Any:
        return op.Add(op.MatMul(x, weight, _outputs=["product"]), bias)

    return pattern.RewriteRuleSet([pattern.RewriteRule(biased, _gemm, _gemm_fits)], commute=True)


def _without_bias() -> pattern.RewriteRuleSet:
    def plain(op: Any, x: Any, weight: Any) -> Any:
        return op.MatMul(x, weight, _outputs=["product"])

    return pattern.RewriteRuleSet([pattern.RewriteRule(plain, _gemm, _gemm_fits)])


@graph_pass("export", after="erf_to_gelu")
def matmul_to_gemm(model: ir.Model) -> tuple[ir.Model, bool]:
    """Rewrite every MatMul with a constant matrix, with or without a bias, as Reshape, Gemm(transB=1), Reshape.

    nn.Linear on maps of rank 4 exports as MatMul. TFLite turns that into BATCH_MATMUL, which its INT8 path does not
    quantize; Gemm becomes FULLY_CONNECTED, which it does. On ONNX Runtime the result is the same, bit for bit.
    """
    # One after the other: in one set the plain rule, which matches at an earlier node, would take every MatMul.
    model, biased = apply(_with_bias(), model)
    model, plain = apply(_without_bias(), model)
    return model, biased or plain


@graph_pass("export", after="erf_to_gelu")
def plain_gemm(model: ir.Model) -> tuple[ir.Model, bool]:
    """Make every Gemm of a constant matrix plain: alpha and beta become part of its constants, and transA a Transpose.

    Exporters write other Gemms for addmm, and TensorFlow's for every dense layer. The passes behind this one, and the
    quantizers, take plain ones alone.
    """
    changed = [_make_plain(model.graph, node) for node in list(model.graph) if node.op_type == "Gemm"]
    return model, any(changed)


def _make_plain(graph: ir.Graph, node: ir.Node) -> bool:
    linear = read_linear(node)
    if linear is None or linear.is_plain or 0 in (linear.alpha, linear.beta):
        return False
    name = str(node.outputs[0].name)
    before: list[ir.Node] = []
    x, bias, bias_values = linear.x, linear.bias, constant(linear.bias)
    if linear.transposes_x:
        before.append(new_node("Transpose", [x], {"perm": [1, 0]}, output=f"{name}.turned", name=f"{name}.turned"))
        x = before[-1].outputs[0]
    if bias is not None and linear.beta != 1 and bias_values is not None:
        bias = add_constant(graph, f"{name}.beta_bias", (bias_values * linear.beta).astype(bias_values.dtype))
    elif bias is not None and linear.beta != 1:
        beta = add_constant(graph, f"{name}.beta", np.array(linear.beta, linear.tensor.dtype.numpy()))
        before.append(new_node("Mul", [bias, beta], output=f"{name}.beta_bias", name=f"{name}.beta_bias"))
        bias = before[-1].outputs[0]
    inputs = [x, _plain_weight(graph, linear, name), *([] if bias is None else [bias])]
    gemm = ir.node("Gemm", inputs, {"transB": 1}, name=node.name)
    replace_node(graph, node, [*before, gemm])
    return True


def _plain_weight(graph: ir.Graph, linear: Linear, name: str) -> ir.Value:
    """Return the weight times alpha, with a row for each output."""
    tensor = linear.tensor if linear.transposes_weight else transposed(linear.tensor)
    if linear.alpha != 1:
        rows, alpha = tensor, linear.alpha
        scaled = lazy_tensor((linear.features_out, linear.features_in), rows, lambda: rows.numpy() * alpha)
        return add_tensor(graph, f"{name}.alpha_weight", scaled)
    if linear.transposes_weight:
        return linear.weight
    made = graph.initializers.get(f"{linear.weight.name}.transposed")  # of another layer that shares the weight
    return add_tensor(graph, f"{linear.weight.name}.transposed", tensor) if made is None else made


_ROWS_BYTES = 16 << 20


def _shifted(op: Any, x: Any, shift: Any, rows: Any, weight: Any, bias: Any) -> Any:
    return op.Gemm(op.Reshape(op.Add(x, shift), rows), weight, bias, _outputs=["result"])


def _normalized(op: Any, x: Any, scale: Any, shift: Any, rows: Any, weight: Any, bias: Any) -> Any:
    norm = op.LayerNormalization(x, scale, shift, _outputs=["norm"])
    return op.Gemm(op.Reshape(norm, rows), weight, bias, _outputs=["result"])


def _affine_fits(
    context: Any, shift: ir.Value, rows: ir.Value, bias: ir.Value, result: ir.Value, **values: Any
) -> bool:
    linear, sizes, norm = read_linear(result.producer()), constant(rows), values.get("norm")
    # A Gemm that scales or transposes its input does not meet the shift channel by channel.
    if linear is None or not linear.is_plain or sizes is None or sizes[-1] != linear.features_in:
        return False
    if constant(bias) is None or (norm is not None and read_norm(norm.producer()) is None):
        return False
    # The length of a constant with one value a channel is the size of the last axis of x, whose shape may be unknown.
    vectors = [shift] if norm is None else [shift, values["scale"]]
    return all(per_channel(vector, linear.features_in) is not None for vector in vectors)


def fold_affine_part(
    linear: Linear, shift: ir.Value, scale: ir.Value | None
) -> tuple[ir.TensorProtocol, ir.TensorProtocol]:
    """Return the weight and bias of a plain linear layer that takes its input as it was before `scale` and `shift`.

    Each of the two is a constant with one value a channel; the layer has a constant bias.
    """
    matrix, vector, by = linear.tensor.numpy(), constant(linear.bias), per_channel(shift, linear.features_in)
    assert vector is not None and by is not None  # callers look at both
    # In float64: the folded bias is a sum over all channels.
    folded_bias = (vector + _times(matrix, by)).astype(matrix.dtype)
    tensor = linear.tensor
    if scale is not None:
        factor = per_channel(scale, linear.features_in)
        assert factor is not None  # as above
        tensor = lazy_tensor(matrix.shape, tensor, partial(_scaled_rows, tensor, factor))
    return tensor, ir.tensor(folded_bias)


def _fold_into(op: Any, result: ir.Value, shift: ir.Value, scale: ir.Value | None) -> tuple[Any, Any]:
    linear = read_linear(result.producer())
    assert linear is not None and linear.bias is not None  # _affine_fits
    matrix, vector = fold_affine_part(linear, shift, scale)
    return new_constant(op, matrix, linear.weight, "folded"), new_constant(op, vector, linear.bias, "folded")


def _times(matrix: Array, vector: Array) -> Array:
    """Return matrix @ vector in float64, some rows at a time: a whole copy in float64 would be twice the matrix."""
    step = max(1, _ROWS_BYTES // (8 * matrix.shape[1]))
    parts = [matrix[start : start + step].astype(np.float64) @ vector for start in range(0, len(matrix), step)]
    return np.concatenate(parts)


def _scaled_rows(matrix: ir.TensorProtocol, by: Array) -> Array:
    scaled: Array = matrix.numpy() * by
    return scaled


def _without_shift(op: Any, x: ir.Value, shift: ir.Value, rows: ir.Value, result: ir.Value, **_: Any) -> Any:
    matrix, vector = _fold_into(op, result, shift, None)
    return op.Gemm(op.Reshape(x, rows), matrix, vector, transB=1)


def _without_affine(op: Any, shift: ir.Value, rows: ir.Value, norm: ir.Value, result: ir.Value, **_: Any) -> Any:
    before = read_norm(norm.producer())
    assert before is not None  # _affine_fits
    matrix, vector = _fold_into(op, result, shift, before.scale)
    ones = constant(before.scale)
    assert ones is not None  # _affine_fits
    plain = op.LayerNormalization(
        before.x,
        new_constant(op, ir.tensor(np.ones_like(ones)), before.scale, "ones"),
        axis=before.axis,
        epsilon=before.epsilon,
    )
    return op.Gemm(op.Reshape(plain, rows), matrix, vector, transB=1)


def _affine_rules() -> pattern.RewriteRuleSet:
    return pattern.RewriteRuleSet(
        [
            pattern.RewriteRule(_shifted, _without_shift, _affine_fits),
            pattern.RewriteRule(_normalized, _without_affine, _affine_fits),
        ]
    )


@graph_pass("export", after="layer_norm_over_channels")
def fold_affine(model: ir.Model) -> tuple[ir.Model, bool]:
    """Fold every per-channel Add, and every affine part of a LayerNormalization, into the plain Gemm behind it.

    LayerNormalization's affine part and GRN's beta each cost a pass over their map in every run. Folded, they cost
    nothing.
    """
    return apply(_affine_rules(), model)


@graph_pass("export", after="fold_norm")
def fold_scale(model: ir.Model) -> tuple[ir.Model, bool]:
    """Fold every multiplication by one number behind a Gemm, however the map between them was transposed and reshaped.

    An attention scales its queries, or queries and keys, by the size of a head: a pass over a map each. In a product of
    two maps the number may move from one side to the other, where the first is read unscaled as well (relative
    positions).
    """
    changed = [_fold(model.graph, node) for node in list(model.graph) if node.op_type in ("Mul", "Div")]
    return model, any(changed)


def _fold(graph: ir.Graph, node: ir.Node) -> bool:
    found = _scaled(node)
    if found is None:
        return False
    value, factor = found
    linear = _source(value, node) or _other_side(node)
    if linear is None:
        return False
    _multiply(graph, linear, factor)
    node.outputs[0].replace_all_uses_with(value)
    graph.remove(node, safe=True)
    return True


def _scaled(node: ir.Node) -> tuple[ir.Value, float] | None:
    """Return the value that a node multiplies by one finite number, and the number; the shape must stay the same."""
    if node.outputs[0].is_graph_output():
        return None
    left, right = node.inputs
    for value, by in ((left, right), (right, left)) if node.op_type == "Mul" else ((left, right),):
        number = constant(by)
        if value is None or number is None or number.size != 1 or number.ndim > 1 or number.dtype.kind != "f":
            continue
        factor = float(number.reshape(())) if node.op_type == "Mul" else 1 / float(number.reshape(()) or np.nan)
        if math.isfinite(factor) and factor and constant(value) is None:
            return value, factor
    return None


def _source(value: ir.Value | None, reader: ir.Node) -> Linear | None:
    """Return the Gemm of constants whose output, only transposed and reshaped, is `value`.

    Returns None if any other node than `reader` reads it.
    """
    while value is not None and not value.is_graph_output() and {user for user, _ in value.uses()} == {reader}:
        node = value.producer()
        if node is None or node.op_type not in ("Reshape", "Transpose", "Gemm"):
            return None
        if node.op_type == "Gemm":
            linear = read_linear(node)
            fixed = linear is not None and (linear.bias is None or constant(linear.bias) is not None)
            return linear if fixed else None
        value, reader = node.inputs[0], node
    return None


def _other_side(node: ir.Node) -> Linear | None:
    """Return the Gemm behind the other operand of the one product that reads the scaled map."""
    users = list(node.outputs[0].uses())
    if len(users) != 1 or users[0][0].op_type != "MatMul":
        return None
    product, index = users[0]
    return _source(product.inputs[1 - index], product)


def _multiply(graph: ir.Graph, linear: Linear, factor: float) -> None:
    """Multiply weight and bias, which multiplies the result: it is linear in both, whatever the attributes are."""
    tensor, name = linear.tensor, f"{linear.node.outputs[0].name}.scaled"
    scaled = lazy_tensor(tuple(tensor.shape.numpy()), tensor, lambda: tensor.numpy() * factor)
    linear.node.replace_input_with(1, add_tensor(graph, f"{name}.weight", scaled))
    bias = constant(linear.bias)
    if bias is not None:
        linear.node.replace_input_with(2, add_constant(graph, f"{name}.bias", bias * factor))
