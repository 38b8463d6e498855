"""LayerNorm over channels, written out -> Transpose, LayerNormalization, Transpose.

ONNX Runtime has one kernel for it, over the last axis. TFLite holds maps channels last anyway: the transposes vanish.
"""

from typing import Any

import numpy as np
import onnx_ir as ir
from onnxscript.rewriter import pattern

from graphs.prepare.rewriting import apply, constant, new_constant, static_shape


def _written_out(op: Any, x: Any, axes: Any, epsilon: Any, scale: Any, shift: Any) -> Any:
    centred = op.Sub(x, op.ReduceMean(x, axes))
    variance = op.ReduceMean(op.Mul(centred, centred), axes)
    normalized = op.Div(centred, op.Sqrt(op.Add(variance, epsilon)))
    return op.Add(op.Mul(scale, normalized), shift)


def _fits(context: Any, x: ir.Value, axes: ir.Value, epsilon: ir.Value, scale: ir.Value, shift: ir.Value) -> bool:
    shape, axis, small = static_shape(x), constant(axes), constant(epsilon)
    if shape is None or len(shape) != 4 or axis is None or axis.tolist() != [1] or small is None or small.size != 1:
        return False
    wanted = (shape[1], 1, 1)
    return all(array is not None and array.shape[-3:] == wanted for array in (constant(scale), constant(shift)))


def _one_operator(op: Any, x: ir.Value, axes: ir.Value, epsilon: ir.Value, scale: ir.Value, shift: ir.Value) -> Any:
    small, weight, bias = constant(epsilon), constant(scale), constant(shift)
    assert small is not None  # _fits
    assert weight is not None
    assert bias is not None
    last = op.LayerNormalization(
        op.Transpose(x, perm=[0, 2, 3, 1]),
        new_constant(op, ir.tensor(np.ascontiguousarray(weight.reshape(-1))), scale, "vector"),
        new_constant(op, ir.tensor(np.ascontiguousarray(bias.reshape(-1))), shift, "offset"),
        axis=-1,
        epsilon=float(small.item()),
    )
    return op.Transpose(last, perm=[0, 3, 1, 2])


def _rules() -> pattern.RewriteRuleSet:
    return pattern.RewriteRuleSet([pattern.RewriteRule(_written_out, _one_operator, _fits)], commute=True)


def layer_norm_over_channels(model: ir.Model) -> tuple[ir.Model, bool]:
    """Rewrite every LayerNorm over axis 1 of a map of rank 4 that is written out."""
    return apply(_rules(), model)
