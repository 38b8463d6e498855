"""A per-channel scale and shift before a Gemm -> into the Gemm's own weight and bias.

LayerNormalization's affine part and GRN's beta each cost a pass over their map at every run. Folded, they cost nothing.
The Gemm must have transB=1, as `matmul_to_gemm` writes it.
"""

from functools import partial
from typing import Any

import numpy as np
import onnx_ir as ir
from onnxscript.rewriter import pattern

from backends.tensor import Array
from graphs.large_weights import computed
from graphs.prepare.rewriting import apply, constant, matrix_shape, new_constant

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


def _fits(context: Any, shift: ir.Value, rows: ir.Value, weight: ir.Value, bias: ir.Value, **values: Any) -> bool:
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
        tensor = computed(matrix.shape, tensor, partial(_scaled, tensor, factor))
    return tensor, ir.tensor(folded_bias)


def _fold(op: Any, weight: ir.Value, bias: ir.Value, shift: ir.Value, scale: ir.Value | None) -> tuple[Any, Any]:
    matrix, vector = folded(weight, bias, shift, scale)
    return new_constant(op, matrix, weight, "folded"), new_constant(op, vector, bias, "folded")


def _times(matrix: Array, vector: Array) -> Array:
    """matrix @ vector in float64, some rows at a time: no second copy of a large matrix, twice as wide."""
    step = max(1, _ROWS_BYTES // (8 * matrix.shape[1]))
    parts = [matrix[start : start + step].astype(np.float64) @ vector for start in range(0, len(matrix), step)]
    return np.concatenate(parts)


def _scaled(matrix: ir.TensorProtocol, by: Array) -> Array:
    scaled: Array = matrix.numpy() * by
    return scaled


def _without_shift(
    op: Any, x: ir.Value, shift: ir.Value, rows: ir.Value, weight: ir.Value, bias: ir.Value, **_: Any
) -> Any:
    matrix, vector = _fold(op, weight, bias, shift, None)
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
    matrix, vector = _fold(op, weight, bias, shift, scale)
    node, ones = norm.producer(), constant(scale)
    assert node is not None and ones is not None  # matched
    plain = op.LayerNormalization(
        x,
        new_constant(op, ir.tensor(np.ones_like(ones)), scale, "ones"),
        axis=node.attributes.get_int("axis", -1),
        epsilon=node.attributes.get_float("epsilon", 1e-5),
    )
    return op.Gemm(op.Reshape(plain, rows), matrix, vector, transB=1)


def _rules() -> pattern.RewriteRuleSet:
    return pattern.RewriteRuleSet(
        [
            pattern.RewriteRule(_shifted, _without_shift, _fits),
            pattern.RewriteRule(_normalized, _without_affine, _fits),
        ]
    )


def fold_affine(model: ir.Model) -> tuple[ir.Model, bool]:
    """Fold every per-channel Add, and every affine part of a LayerNormalization, into the Gemm behind it."""
    return apply(_rules(), model)
