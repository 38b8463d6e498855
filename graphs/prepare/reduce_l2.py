"""ReduceL2 -> Mul, ReduceSum, Sqrt, the only form TensorFlow's route can read; over the rows of a matrix where it can.

ONNX Runtime sums the rows of a matrix three times as fast as the same numbers in a map of rank 4, whose leading axis
of 1 takes it off its quick path (1.31.1). The sums of a ConvNeXt's GRNs were an eighth of its time.
"""

import math
from typing import Any

import onnx_ir as ir
from onnxscript.rewriter import pattern

from graphs.prepare.rewriting import apply, constant, static_shape


def _norm(op: Any, x: Any, axes: Any) -> Any:
    return op.ReduceL2(x, axes, _outputs=["norm"])


def _written_out(op: Any, x: ir.Value, axes: ir.Value, norm: ir.Value) -> Any:
    node = norm.producer()
    assert node is not None  # it was matched
    keepdims = node.attributes.get_int("keepdims", 1)
    shape = static_shape(x)
    if shape is None or not keepdims or not _leaves_the_last_axis(shape, axes):
        return op.Sqrt(op.ReduceSum(op.Mul(x, x), axes, keepdims=keepdims))
    matrix = op.Reshape(x, op.Constant(value_ints=[math.prod(shape[:-1]), shape[-1]]))
    total = op.ReduceSum(op.Mul(matrix, matrix), op.Constant(value_ints=[0]), keepdims=1)
    return op.Reshape(op.Sqrt(total), op.Constant(value_ints=[*(1 for _ in shape[:-1]), shape[-1]]))


def _leaves_the_last_axis(shape: tuple[int, ...], axes: ir.Value) -> bool:
    """Whether the last axis is all that is left of a shape: every other is summed over, or is 1 anyway."""
    values = constant(axes)
    if values is None or len(shape) < 3:
        return False
    summed = {int(axis) % len(shape) for axis in values}
    last = len(shape) - 1
    return last not in summed and all(axis in summed or shape[axis] == 1 for axis in range(last))


def _rules() -> pattern.RewriteRuleSet:
    return pattern.RewriteRuleSet([pattern.RewriteRule(_norm, _written_out)])


def reduce_l2_to_sum(model: ir.Model) -> tuple[ir.Model, bool]:
    """Rewrite every ReduceL2 that names its axes."""
    return apply(_rules(), model)
