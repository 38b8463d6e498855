"""Passes over activation functions: GELU, ELU and LogSoftmax."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
from onnxscript.rewriter import pattern

from graphs.onnx.readers import static_shape
from graphs.onnx.rewriting import add_constant, add_sizes, apply, new_node, replace_node
from graphs.passes.registry import graph_pass

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


@graph_pass("export", after="fold_batch_norm")
def erf_to_gelu(model: ir.Model) -> tuple[ir.Model, bool]:
    """Rewrite every exact GELU that is written out with Erf as one Gelu, in a model of opset 20 or newer.

    Below opset 20, which has no Gelu, exporters write `x / 2 * (1 + erf(x / sqrt(2)))`, in several orders. onnx2tf
    expands that Erf into a polynomial of dozens of operators once onnxsim has changed it, and TensorFlow Lite has no
    Erf at all.
    """
    if (model.opset_imports.get("") or 0) < 20:
        return model, False
    return apply(_rules(), model)


@graph_pass("lowering", after="keep_small_bounds")
def scale_elu(model: ir.Model) -> tuple[ir.Model, bool]:
    """Write Elu(x, alpha) as Relu(x) + alpha * Elu(Min(x, 0)), unless alpha is 1.

    TFLite's ELU has no alpha, and onnx2tf leaves it out.
    """
    found = [node for node in model.graph if node.op_type == "Elu" and node.attributes.get_float("alpha", 1.0) != 1]
    for node in found:
        x, name = node.inputs[0], str(node.outputs[0].name)
        assert x is not None and x.dtype is not None  # an operator's own, in a graph with its shapes
        zero, alpha = (
            add_constant(model.graph, f"{name}_{what}", np.array(value, x.dtype.numpy()))
            for what, value in (("zero", 0), ("alpha", node.attributes.get_float("alpha", 1.0)))
        )
        above = new_node("Relu", [x], output=f"{name}_above")
        negative = new_node("Min", [x, zero], output=f"{name}_negative")
        below = new_node("Elu", negative.outputs, output=f"{name}_below")
        scaled = new_node("Mul", [below.outputs[0], alpha], output=f"{name}_scaled")
        both = ir.node("Add", [above.outputs[0], scaled.outputs[0]])
        replace_node(model.graph, node, [above, negative, below, scaled, both])
    return model, bool(found)


@graph_pass("lowering", after="write_out_lp_norm")
def write_out_log_softmax(model: ir.Model) -> tuple[ir.Model, bool]:
    """Write LogSoftmax as d - log(sum(exp(d))), where d = x - max(x), over the axis.

    onnx2tf lowers it to the logarithm of a Softmax, which is minus infinity where the Softmax rounds to 0.
    """
    found = [node for node in model.graph if node.op_type == "LogSoftmax" and static_shape(node.inputs[0])]
    for node in found:
        x, name = node.inputs[0], str(node.outputs[0].name)
        shape = static_shape(x) or ()
        axis = node.attributes.get_int("axis", -1) % len(shape)
        axes, keep = add_sizes(model.graph, f"{name}_axis", (axis,)), {"keepdims": 1}
        largest = new_node("ReduceMax", [x, axes], keep, output=f"{name}_largest")
        below = new_node("Sub", [x, largest.outputs[0]], output=f"{name}_below")
        parts = new_node("Exp", below.outputs, output=f"{name}_parts")
        whole = new_node("ReduceSum", [parts.outputs[0], axes], keep, output=f"{name}_whole")
        log = new_node("Log", whole.outputs, output=f"{name}_log")
        result = ir.node("Sub", [below.outputs[0], log.outputs[0]])
        replace_node(model.graph, node, [largest, below, parts, whole, log, result])
    return model, bool(found)
