"""The written-out erf form of GELU -> one Gelu.

Below opset 20 exporters write `x / 2 * (1 + erf(x / sqrt(2)))`, in several orders. onnx2tf expands that Erf into a
polynomial of dozens of operators once onnxsim has touched it, and TensorFlow Lite has no Erf at all.
"""

import math
from collections.abc import Callable
from typing import Any

import onnx_ir as ir
from onnxscript.rewriter import pattern

from graphs.prepare.rewriting import apply

_SCALED: tuple[Callable[..., Any], ...] = (
    lambda op, x: op.Div(x, math.sqrt(2)),
    lambda op, x: op.Mul(x, math.sqrt(0.5)),
)
_PRODUCT: tuple[Callable[..., Any], ...] = (
    lambda op, x, factor: op.Mul(op.Mul(x, 0.5), factor),
    lambda op, x, factor: op.Mul(op.Mul(x, factor), 0.5),
    lambda op, x, factor: op.Mul(x, op.Mul(factor, 0.5)),
)


def _rule(scaled: Callable[..., Any], product: Callable[..., Any]) -> pattern.RewriteRule:
    def written_out(op: Any, x: Any) -> Any:
        return product(op, x, op.Add(op.Erf(scaled(op, x)), 1.0))

    return pattern.RewriteRule(written_out, lambda op, x: op.Gelu(x))


def _rules() -> pattern.RewriteRuleSet:
    return pattern.RewriteRuleSet(
        [_rule(scaled, product) for scaled in _SCALED for product in _PRODUCT],
        commute=True,
    )


def erf_to_gelu(model: ir.Model) -> tuple[ir.Model, bool]:
    """Rewrite every exact GELU of a model of opset 20 or newer; older opsets have no Gelu."""
    if (model.opset_imports.get("") or 0) < 20:
        return model, False
    return apply(_rules(), model)
