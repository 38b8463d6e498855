"""MatMul with a constant, with or without a bias -> Reshape, Gemm(transB=1), Reshape.

nn.Linear on maps of rank 4 exports as MatMul. TFLite turns that into BATCH_MATMUL, which its INT8 path does not
quantize; Gemm becomes FULLY_CONNECTED, which it does. On ONNX Runtime the result is the same, bit for bit.
"""

import math
from functools import partial
from typing import Any

import numpy as np
import onnx_ir as ir
from onnxscript.rewriter import pattern

from backends.tensor import Array
from graphs.onnx.readers import add_constant, add_tensor, apply, constant, matrix_shape, new_constant, static_shape
from graphs.onnx.weights import lazy_tensor, transposed


def _gemm_fits(context: Any, x: ir.Value, weight: ir.Value, bias: ir.Value | None = None, **_: Any) -> bool:
    shape, sizes = static_shape(x), matrix_shape(weight)
    if shape is None or len(shape) < 2 or sizes is None:
        return False
    vector = constant(bias)
    return bias is None or (vector is not None and vector.shape == sizes[1:])


def _gemm(op: Any, x: ir.Value, weight: ir.Value, bias: ir.Value | None = None, **_: Any) -> ir.Value:
    shape, matrix = static_shape(x), ir.convenience.get_const_tensor(weight)
    assert shape is not None and matrix is not None  # _fits
    features_in, features_out = matrix.shape.numpy()
    # One transpose for all layers that share a weight: a second of its name would take the first one's place.
    name = f"{weight.name}.transposed"
    made = None if weight.graph is None else weight.graph.initializers.get(name)
    by_output = op.initializer(transposed(matrix), name=name) if made is None else made
    extra = () if bias is None else (bias,)
    if len(shape) == 2:
        return op.Gemm(x, by_output, *extra, transB=1)  # type: ignore[no-any-return]  # op is dynamic
    rows = op.Reshape(x, op.Constant(value_ints=[math.prod(shape[:-1]), features_in]))
    result = op.Gemm(rows, by_output, *extra, transB=1)
    return op.Reshape(result, op.Constant(value_ints=[*shape[:-1], features_out]))  # type: ignore[no-any-return]


def _with_bias() -> pattern.RewriteRuleSet:
    rule = pattern.RewriteRule(lambda op, x, weight, bias: op.Add(op.MatMul(x, weight), bias), _gemm, _gemm_fits)
    return pattern.RewriteRuleSet([rule], commute=True)


def _without_bias() -> pattern.RewriteRuleSet:
    return pattern.RewriteRuleSet([pattern.RewriteRule(lambda op, x, weight: op.MatMul(x, weight), _gemm, _gemm_fits)])


def matmul_to_gemm(model: ir.Model) -> tuple[ir.Model, bool]:
    """Rewrite every MatMul with a constant matrix on a static shape."""
    # One after the other: in one set the plain rule, which matches at an earlier node, would take every MatMul.
    model, biased = apply(_with_bias(), model)
    model, plain = apply(_without_bias(), model)
    return model, biased or plain


_ROWS_BYTES = 16 << 20


def _shifted(op: Any, x: Any, shift: Any, rows: Any, weight: Any, bias: Any) -> Any:
    return op.Gemm(op.Reshape(op.Add(x, shift), rows), weight, bias, transB=1, _outputs=["result"])


def _normalized(op: Any, x: Any, scale: Any, shift: Any, rows: Any, weight: Any, bias: Any) -> Any:
    norm = op.LayerNormalization(x, scale, shift, _outputs=["norm"])
    return op.Gemm(op.Reshape(norm, rows), weight, bias, transB=1, _outputs=["result"])


def per_channel(value: ir.Value, channels: int) -> Array | None:
    """The values of a constant that has one for each channel of the last axis."""
    array = constant(value)
    fits = array is not None and array.size == channels and array.shape[-1:] == (channels,)
    return array.reshape(channels) if array is not None and fits else None


def _affine_fits(
    context: Any, shift: ir.Value, rows: ir.Value, weight: ir.Value, bias: ir.Value, **values: Any
) -> bool:
    matrix, sizes, scale = matrix_shape(weight), constant(rows), values.get("scale")
    if matrix is None or sizes is None or constant(bias) is None or sizes[-1] != matrix[1]:
        return False
    # A constant with one value a channel says what the last axis of x is; x itself may come without a shape.
    channels = matrix[1]
    return per_channel(shift, channels) is not None and (scale is None or per_channel(scale, channels) is not None)


def folded(
    weight: ir.Value, bias: ir.Value, shift: ir.Value, scale: ir.Value | None
) -> tuple[ir.TensorProtocol, ir.TensorProtocol]:
    """The weight and bias of a Gemm that takes its input as it was before `scale` and `shift`, one value a channel."""
    tensor, matrix, vector = ir.convenience.get_const_tensor(weight), constant(weight), constant(bias)
    assert tensor is not None and matrix is not None and vector is not None  # _fits
    channels = matrix.shape[1]
    by = per_channel(shift, channels)
    assert by is not None
    # In float64: the folded bias is a sum over all channels.
    folded_bias = (vector + _times(matrix, by)).astype(matrix.dtype)
    if scale is not None:
        factor = per_channel(scale, channels)
        assert factor is not None
        tensor = lazy_tensor(matrix.shape, tensor, partial(_scaled_rows, tensor, factor))
    return tensor, ir.tensor(folded_bias)


def _fold_into(op: Any, weight: ir.Value, bias: ir.Value, shift: ir.Value, scale: ir.Value | None) -> tuple[Any, Any]:
    matrix, vector = folded(weight, bias, shift, scale)
    return new_constant(op, matrix, weight, "folded"), new_constant(op, vector, bias, "folded")


def _times(matrix: Array, vector: Array) -> Array:
    """matrix @ vector in float64, some rows at a time: no second copy of a large matrix, twice as wide."""
    step = max(1, _ROWS_BYTES // (8 * matrix.shape[1]))
    parts = [matrix[start : start + step].astype(np.float64) @ vector for start in range(0, len(matrix), step)]
    return np.concatenate(parts)


def _scaled_rows(matrix: ir.TensorProtocol, by: Array) -> Array:
    scaled: Array = matrix.numpy() * by
    return scaled


def _without_shift(
    op: Any, x: ir.Value, shift: ir.Value, rows: ir.Value, weight: ir.Value, bias: ir.Value, **_: Any
) -> Any:
    matrix, vector = _fold_into(op, weight, bias, shift, None)
    return op.Gemm(op.Reshape(x, rows), matrix, vector, transB=1)


def _without_affine(
    op: Any,
    x: ir.Value,
    scale: ir.Value,
    shift: ir.Value,
    rows: ir.Value,
    weight: ir.Value,
    bias: ir.Value,
    norm: ir.Value,
    **_: Any,
) -> Any:
    matrix, vector = _fold_into(op, weight, bias, shift, scale)
    node, ones = norm.producer(), constant(scale)
    assert node is not None and ones is not None  # matched
    plain = op.LayerNormalization(
        x,
        new_constant(op, ir.tensor(np.ones_like(ones)), scale, "ones"),
        axis=node.attributes.get_int("axis", -1),
        epsilon=node.attributes.get_float("epsilon", 1e-5),
    )
    return op.Gemm(op.Reshape(plain, rows), matrix, vector, transB=1)


def _affine_rules() -> pattern.RewriteRuleSet:
    return pattern.RewriteRuleSet(
        [
            pattern.RewriteRule(_shifted, _without_shift, _affine_fits),
            pattern.RewriteRule(_normalized, _without_affine, _affine_fits),
        ]
    )


def fold_affine(model: ir.Model) -> tuple[ir.Model, bool]:
    """Fold every per-channel Add, and every affine part of a LayerNormalization, into the Gemm behind it."""
    return apply(_affine_rules(), model)


def fold_scale(model: ir.Model) -> tuple[ir.Model, bool]:
    """Fold every multiplication by one number behind a Gemm, however the map between them was turned and reshaped."""
    changed = [_fold(model.graph, node) for node in list(model.graph) if node.op_type in ("Mul", "Div")]
    return model, any(changed)


def _fold(graph: ir.Graph, node: ir.Node) -> bool:
    found = _scaled(node)
    if found is None:
        return False
    value, factor = found
    gemm = _source(value, node) or _other_side(node)
    if gemm is None:
        return False
    _multiply(graph, gemm, factor)
    node.outputs[0].replace_all_uses_with(value)
    graph.remove(node, safe=True)
    return True


def _scaled(node: ir.Node) -> tuple[ir.Value, float] | None:
    """What a node multiplies by one finite number, and that number; the shape stays the same."""
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


def _source(value: ir.Value | None, reader: ir.Node) -> ir.Node | None:
    """The Gemm whose output, only turned and reshaped, is `value`, if nothing but `reader` sees it."""
    while value is not None and not value.is_graph_output() and {user for user, _ in value.uses()} == {reader}:
        node = value.producer()
        if node is None or node.op_type not in ("Reshape", "Transpose", "Gemm"):
            return None
        if node.op_type == "Gemm":
            return node if _is_constant(node) else None
        value, reader = node.inputs[0], node
    return None


def _other_side(node: ir.Node) -> ir.Node | None:
    """The Gemm behind the other operand of the one product that reads the scaled map."""
    users = list(node.outputs[0].uses())
    if len(users) != 1 or users[0][0].op_type != "MatMul":
        return None
    product, index = users[0]
    return _source(product.inputs[1 - index], product)


def _is_constant(gemm: ir.Node) -> bool:
    bias = gemm.inputs[2] if len(gemm.inputs) > 2 else None
    return matrix_shape(gemm.inputs[1]) is not None and (bias is None or constant(bias) is not None)


def _multiply(graph: ir.Graph, gemm: ir.Node, factor: float) -> None:
    weight = gemm.inputs[1]
    tensor = None if weight is None else ir.convenience.get_const_tensor(weight)
    assert tensor is not None  # _is_constant
    name = f"{gemm.outputs[0].name}.scaled"
    scaled = lazy_tensor(tuple(tensor.shape.numpy()), tensor, lambda: tensor.numpy() * factor)
    gemm.replace_input_with(1, add_tensor(graph, f"{name}.weight", scaled))
    bias = constant(gemm.inputs[2]) if len(gemm.inputs) > 2 else None
    if bias is not None:
        gemm.replace_input_with(2, add_constant(graph, f"{name}.bias", bias * factor))
