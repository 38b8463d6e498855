"""ReduceL2 -> Mul, ReduceSum, Sqrt: the same result on ONNX Runtime, and the only form TensorFlow's route can read."""

from typing import Any

import onnx_ir as ir
from onnxscript.rewriter import pattern

from graphs.prepare.rewriting import apply


def _norm(op: Any, x: Any, axes: Any) -> Any:
    return op.ReduceL2(x, axes, _outputs=["norm"])


def _written_out(op: Any, x: ir.Value, axes: ir.Value, norm: ir.Value) -> Any:
    node = norm.producer()
    assert node is not None  # it was matched
    return op.Sqrt(op.ReduceSum(op.Mul(x, x), axes, keepdims=node.attributes.get_int("keepdims", 1)))


def _rules() -> pattern.RewriteRuleSet:
    return pattern.RewriteRuleSet([pattern.RewriteRule(_norm, _written_out)])


def reduce_l2_to_sum(model: ir.Model) -> tuple[ir.Model, bool]:
    """Rewrite every ReduceL2 that names its axes."""
    return apply(_rules(), model)
