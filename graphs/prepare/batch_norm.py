"""BatchNormalization after a convolution -> into the convolution's weight, and a bias.

Exporter and onnxsim both do this, but only with weights they can see; see graphs/large_weights.py.
"""

from typing import Any

import numpy as np
import onnx_ir as ir
from onnxscript.rewriter import pattern

from graphs.large_weights import computed
from graphs.prepare.rewriting import apply, constant, new_constant


def _normalized(op: Any, x: Any, weight: Any, scale: Any, shift: Any, mean: Any, variance: Any) -> Any:
    convolved = op.Conv(x, weight, _allow_other_attributes=True, _outputs=["convolved"])
    return op.BatchNormalization(
        convolved, scale, shift, mean, variance, _allow_other_attributes=True, _outputs=["norm"]
    )


def _fits(context: Any, weight: ir.Value, **values: Any) -> bool:
    numbers = (values[name] for name in ("scale", "shift", "mean", "variance"))
    return weight.const_value is not None and all(constant(value) is not None for value in numbers)


def _folded(
    op: Any,
    x: ir.Value,
    weight: ir.Value,
    scale: ir.Value,
    shift: ir.Value,
    mean: ir.Value,
    variance: ir.Value,
    convolved: ir.Value,
    norm: ir.Value,
) -> Any:
    kernel, convolution, normalization = weight.const_value, convolved.producer(), norm.producer()
    assert kernel is not None and convolution is not None and normalization is not None  # _fits, matched
    gamma, beta, average, spread = (constant(value) for value in (scale, shift, mean, variance))
    assert gamma is not None and beta is not None and average is not None and spread is not None  # _fits
    by = gamma / np.sqrt(spread + np.float32(normalization.attributes.get_float("epsilon", 1e-5)))
    columns = by.reshape(-1, *(1 for _ in kernel.shape[1:]))
    return op.Conv(
        x,
        new_constant(
            op, computed(tuple(kernel.shape.numpy()), kernel, lambda: kernel.numpy() * columns), weight, "folded"
        ),
        new_constant(op, ir.tensor(beta - average * by), weight, "folded_bias"),
        **convolution.attributes,
    )


def _rules() -> pattern.RewriteRuleSet:
    return pattern.RewriteRuleSet([pattern.RewriteRule(_normalized, _folded, _fits)])


def fold_batch_norm(model: ir.Model) -> tuple[ir.Model, bool]:
    """Fold every BatchNormalization that follows a Conv without a bias."""
    return apply(_rules(), model)
