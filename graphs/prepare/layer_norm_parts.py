"""LayerNormalization -> the operators it stands for, without those that do nothing.

TFLite has no such operator. onnx2tf writes it out too, but multiplies by the scale and adds the shift also where they
are 1 and 0, which is what `fold_affine` leaves: two more passes over the map for each. ONNX Runtime has one kernel for
the whole, so this is for graphs that are about to be lowered.
"""

from typing import Any

import numpy as np
import onnx_ir as ir
from onnxscript.rewriter import pattern

from graphs.prepare.rewriting import apply, constant, static_shape


def _norm(op: Any, x: Any, scale: Any) -> Any:
    return op.LayerNormalization(x, scale, _outputs=["norm"])


def _norm_with_shift(op: Any, x: Any, scale: Any, shift: Any) -> Any:
    return op.LayerNormalization(x, scale, shift, _outputs=["norm"])


def _fits(context: Any, x: ir.Value, scale: ir.Value, norm: ir.Value, shift: ir.Value | None = None) -> bool:
    node, shape = norm.producer(), static_shape(norm)
    if node is None or shape is None or len(node.outputs) != 1:
        return False
    last = node.attributes.get_int("axis", -1) in (-1, len(shape) - 1)
    return last and constant(scale) is not None and (shift is None or constant(shift) is not None)


def _parts(op: Any, x: ir.Value, scale: ir.Value, norm: ir.Value, shift: ir.Value | None = None) -> Any:
    node, factor, offset = norm.producer(), constant(scale), constant(shift)
    assert node is not None and factor is not None  # _fits
    axes = op.initializer(ir.tensor(np.array([-1], np.int64)), name=f"{norm.name}.axis")
    epsilon = np.array(node.attributes.get_float("epsilon", 1e-5), factor.dtype)
    centred = op.Sub(x, op.ReduceMean(x, axes))
    variance = op.ReduceMean(op.Mul(centred, centred), axes)
    deviation = op.Sqrt(op.Add(variance, op.initializer(ir.tensor(epsilon), name=f"{norm.name}.epsilon")))
    # One division a row and a product a value: a division a value costs several times as much.
    result = op.Mul(centred, op.Reciprocal(deviation))
    if (factor != 1).any():
        result = op.Mul(result, scale)
    if offset is not None and offset.any():
        result = op.Add(result, shift)
    return result


def _rules() -> pattern.RewriteRuleSet:
    return pattern.RewriteRuleSet(
        [pattern.RewriteRule(_norm_with_shift, _parts, _fits), pattern.RewriteRule(_norm, _parts, _fits)]
    )


def write_out_layer_norm(model: ir.Model) -> tuple[ir.Model, bool]:
    """Write out every LayerNormalization over the last axis with a constant scale."""
    return apply(_rules(), model)
