"""Global response normalization with fewer passes over its map.

gamma * (x * n) + beta + x, four operators over the widest map of a ConvNeXt block, is x * (gamma * n + 1) + beta: two,
and `fold_affine` moves beta into the next Gemm's bias.
"""

from typing import Any

import numpy as np
import onnx_ir as ir
from onnxscript.rewriter import pattern

from graphs.prepare.rewriting import apply, constant, new_constant


def _written_out(op: Any, x: Any, n: Any, gamma: Any, beta: Any) -> Any:
    return op.Add(op.Add(op.Mul(gamma, op.Mul(x, n)), beta), x)


def _fits(context: Any, n: ir.Value, gamma: ir.Value, beta: ir.Value, **_: Any) -> bool:
    return constant(gamma) is not None and constant(beta) is not None and constant(n) is None


def _shorter(op: Any, x: ir.Value, n: ir.Value, gamma: ir.Value, beta: ir.Value) -> Any:
    one = new_constant(op, ir.tensor(np.float32(1)), gamma, "one")
    scale = op.Add(op.Mul(n, gamma), one)
    return op.Add(op.Mul(x, scale), beta)


def _rules() -> pattern.RewriteRuleSet:
    return pattern.RewriteRuleSet([pattern.RewriteRule(_written_out, _shorter, _fits)], commute=True)


def shorten_grn(model: ir.Model) -> tuple[ir.Model, bool]:
    """Rewrite every global response normalization."""
    return apply(_rules(), model)
