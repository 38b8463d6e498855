"""Passes over activation functions: GELU, ELU, PReLU and LogSoftmax."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
from onnxscript.rewriter import pattern

from backends.tensor import Array
from graphs.onnx.readers import constant, static_shape
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


@graph_pass("lowering", tolerance=1e-5, after="write_out_log_softmax")
def write_out_tanh_gelu(model: ir.Model) -> tuple[ir.Model, bool]:
    """Write Gelu(x) with approximate="tanh" as x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x^3))).

    LiteRT's kernel of this Gelu is off by up to 5e-4.
    """
    found = [node for node in model.graph if _is_tanh_gelu(node)]
    for node in found:
        x, name = node.inputs[0], str(node.outputs[0].name)
        assert x is not None and x.dtype is not None  # an operator's own, in a graph with its shapes
        cubic, outer, one, half = (
            add_constant(model.graph, f"{name}_{what}", np.array(value, x.dtype.numpy()))
            for what, value in (("cubic", 0.044715), ("outer", math.sqrt(2 / math.pi)), ("one", 1), ("half", 0.5))
        )
        square = new_node("Mul", [x, x], output=f"{name}_square")
        share = new_node("Mul", [square.outputs[0], cubic], output=f"{name}_share")
        factor = new_node("Add", [share.outputs[0], one], output=f"{name}_factor")
        scaled = new_node("Mul", [x, outer], output=f"{name}_scaled")
        inner = new_node("Mul", [scaled.outputs[0], factor.outputs[0]], output=f"{name}_inner")
        tanh = new_node("Tanh", inner.outputs, output=f"{name}_tanh")
        above = new_node("Add", [tanh.outputs[0], one], output=f"{name}_above")
        halved = new_node("Mul", [above.outputs[0], half], output=f"{name}_halved")
        result = ir.node("Mul", [halved.outputs[0], x])
        replace_node(model.graph, node, [square, share, factor, scaled, inner, tanh, above, halved, result])
    return model, bool(found)


def _is_tanh_gelu(node: ir.Node) -> bool:
    return node.op_type == "Gelu" and node.attributes.get_string("approximate", "none") == "tanh"


@graph_pass("lowering", tolerance=0.0, after="write_out_tanh_gelu")
def write_out_prelu(model: ir.Model) -> tuple[ir.Model, bool]:
    """Write PRelu(x, slope) as Relu(x) + slope * Min(x, 0), unless onnx2tf lowers it as it is.

    onnx2tf lowers a slope of one number, and one with a number for each channel of an x with two or four axes.
    """
    found = [node for node in model.graph if node.op_type == "PRelu" and not _is_lowered_prelu(node)]
    for node in found:
        x, slope = node.inputs
        name = str(node.outputs[0].name)
        assert x is not None and x.dtype is not None  # an operator's own, in a graph with its shapes
        zero = add_constant(model.graph, f"{name}_zero", np.array(0, x.dtype.numpy()))
        above = new_node("Relu", [x], output=f"{name}_above")
        negative = new_node("Min", [x, zero], output=f"{name}_negative")
        below = new_node("Mul", [negative.outputs[0], slope], output=f"{name}_below")
        both = ir.node("Add", [above.outputs[0], below.outputs[0]])
        replace_node(model.graph, node, [above, negative, below, both])
    return model, bool(found)


def _is_lowered_prelu(node: ir.Node) -> bool:
    shape, slope = static_shape(node.inputs[0]), constant(node.inputs[1])
    if shape is None:
        return True
    if slope is None:
        return False
    return slope.size == 1 or (
        len(shape) in (2, 4) and slope.size == shape[1] == math.prod(_over_channels(shape, slope))
    )


def _over_channels(shape: tuple[int, ...], slope: Array) -> tuple[int, ...]:
    """Return the sizes of a slope along the axis of the channels alone; (0,) if it has sizes along others."""
    sizes = (1,) * (len(shape) - slope.ndim) + slope.shape
    return sizes[1:2] if all(size == 1 for axis, size in enumerate(sizes) if axis != 1) else (0,)
