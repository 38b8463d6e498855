"""MatMul with a constant, with or without a bias -> Reshape, Gemm(transB=1), Reshape.

nn.Linear on maps of rank 4 exports as MatMul. TFLite turns that into BATCH_MATMUL, which its INT8 path does not
quantize; Gemm becomes FULLY_CONNECTED, which it does. On ONNX Runtime the result is the same, bit for bit.
"""

import math
from typing import Any

import onnx_ir as ir
from onnxscript.rewriter import pattern

from graphs.large_weights import transposed
from graphs.prepare.rewriting import apply, constant, matrix_shape, static_shape


def _fits(context: Any, x: ir.Value, weight: ir.Value, bias: ir.Value | None = None, **_: Any) -> bool:
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
    rule = pattern.RewriteRule(lambda op, x, weight, bias: op.Add(op.MatMul(x, weight), bias), _gemm, _fits)
    return pattern.RewriteRuleSet([rule], commute=True)


def _without_bias() -> pattern.RewriteRuleSet:
    return pattern.RewriteRuleSet([pattern.RewriteRule(lambda op, x, weight: op.MatMul(x, weight), _gemm, _fits)])


def matmul_to_gemm(model: ir.Model) -> tuple[ir.Model, bool]:
    """Rewrite every MatMul with a constant matrix on a static shape."""
    # One after the other: in one set the plain rule, which matches at an earlier node, would take every MatMul.
    model, biased = apply(_with_bias(), model)
    model, plain = apply(_without_bias(), model)
    return model, biased or plain
