"""Passes over normalizations: layer norms, global response norms, and lengths of vectors."""

import math
from itertools import count
from typing import Any

import numpy as np
import onnx_ir as ir
from onnxscript.rewriter import pattern

from backends.tensor import TO_NCHW, TO_NHWC
from graphs.onnx.readers import Linear, constant, per_channel, read_linear, read_norm, read_permutation, static_shape
from graphs.onnx.rewriting import add_constant, add_sizes, add_tensor, apply, new_constant, new_node, replace_node
from graphs.passes.linear import fold_affine_part
from graphs.passes.registry import graph_pass


def _layer_norm_pattern(op: Any, x: Any, axes: Any, epsilon: Any, scale: Any, shift: Any) -> Any:
    centred = op.Sub(x, op.ReduceMean(x, axes))
    variance = op.ReduceMean(op.Mul(centred, centred), axes)
    normalized = op.Div(centred, op.Sqrt(op.Add(variance, epsilon)))
    return op.Add(op.Mul(scale, normalized), shift)


def _layer_norm_fits(
    context: Any, x: ir.Value, axes: ir.Value, epsilon: ir.Value, scale: ir.Value, shift: ir.Value
) -> bool:
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
        op.Transpose(x, perm=TO_NHWC),
        new_constant(op, ir.tensor(np.ascontiguousarray(weight.reshape(-1))), scale, "vector"),
        new_constant(op, ir.tensor(np.ascontiguousarray(bias.reshape(-1))), shift, "offset"),
        axis=-1,
        epsilon=float(small.item()),
    )
    return op.Transpose(last, perm=TO_NCHW)


def _layer_norm_rules() -> pattern.RewriteRuleSet:
    return pattern.RewriteRuleSet(
        [pattern.RewriteRule(_layer_norm_pattern, _one_operator, _layer_norm_fits)], commute=True
    )


# The kernel rounds differently, and a division by a small deviation makes that visible (2.4e-5 on a tiny UNet).
@graph_pass("export", tolerance=1e-4, after="shorten_grn")
def layer_norm_over_channels(model: ir.Model) -> tuple[ir.Model, bool]:
    """Rewrite every LayerNorm over axis 1 of a map of rank 4 that is written out, between two Transposes.

    ONNX Runtime has one kernel for LayerNormalization, over the last axis. TFLite holds maps channels last anyway:
    there the transposes vanish.
    """
    return apply(_layer_norm_rules(), model)


def _plain_norm(op: Any, x: Any, scale: Any) -> Any:
    return op.LayerNormalization(x, scale, _outputs=["norm"])


def _norm_with_shift(op: Any, x: Any, scale: Any, shift: Any) -> Any:
    return op.LayerNormalization(x, scale, shift, _outputs=["norm"])


def _parts_fit(context: Any, norm: ir.Value, **_: Any) -> bool:
    found = read_norm(norm.producer())
    if found is None or not found.is_over_last_axis or constant(found.scale) is None:
        return False
    return found.shift is None or constant(found.shift) is not None


def _parts(op: Any, x: ir.Value, scale: ir.Value, norm: ir.Value, shift: ir.Value | None = None) -> Any:
    found, factor, offset = read_norm(norm.producer()), constant(scale), constant(shift)
    assert found is not None and factor is not None  # _parts_fit
    axes = op.initializer(ir.tensor(np.array([-1], np.int64)), name=f"{norm.name}.axis")
    epsilon = np.array(found.epsilon, factor.dtype)
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


def _parts_rules() -> pattern.RewriteRuleSet:
    return pattern.RewriteRuleSet(
        [
            pattern.RewriteRule(_norm_with_shift, _parts, _parts_fit),
            pattern.RewriteRule(_plain_norm, _parts, _parts_fit),
        ]
    )


@graph_pass("lowering", tolerance=1e-4, after="reflect_by_slices")
def write_out_layer_norm(model: ir.Model) -> tuple[ir.Model, bool]:
    """Write out every LayerNormalization over the last axis with a constant scale.

    TFLite has no such operator. onnx2tf writes it out too, but multiplies by the scale and adds the shift even where
    they are 1 and 0, as `fold_affine` leaves them: two more passes over the map.
    """
    return apply(_parts_rules(), model)


@graph_pass("export", after="split_qkv")
def fold_norm(model: ir.Model) -> tuple[ir.Model, bool]:
    """Fold every affine part that only Gemms read, across Reshapes and Transposes that leave channels last.

    `fold_affine` finds the one Gemm that reads a norm directly. In an attention three do, and where it looks at windows
    the tokens are put in another order first, which leaves each channel as it is. TFLite spends two passes over the map
    on each affine part.
    """
    changed = [_fold(model.graph, node) for node in list(model.graph) if node.op_type == "LayerNormalization"]
    return model, any(changed)


def _fold(graph: ir.Graph, node: ir.Node) -> bool:
    norm = read_norm(node)
    factors = None if norm is None else constant(norm.scale)
    if norm is None or norm.shift is None or factors is None:
        return False
    channels = factors.size
    layers = _readers(node.outputs[0], channels)
    if not layers or per_channel(norm.scale, channels) is None or per_channel(norm.shift, channels) is None:
        return False
    for linear in layers:
        matrix, vector = fold_affine_part(linear, norm.shift, norm.scale)
        name = f"{linear.node.outputs[0].name}.folded"
        linear.node.replace_input_with(1, add_tensor(graph, f"{name}.weight", matrix))
        linear.node.replace_input_with(2, add_constant(graph, f"{name}.bias", vector.numpy()))
    ones = f"ones.{channels}"
    one = graph.initializers.get(ones) or add_constant(graph, ones, np.ones(channels, factors.dtype))
    node.replace_input_with(1, one)
    node.resize_inputs(2)  # ONNX Runtime 1.31 crashes on a third input without a name
    return True


def _readers(value: ir.Value, channels: int) -> list[Linear] | None:
    """Return the linear layers that read a value in the end, with each row of its channels whole.

    Returns None if any other node reads it.
    """
    if value.is_graph_output():
        return None
    found = []
    for user, index in value.uses():
        linear = read_linear(user) if index == 0 and user.op_type == "Gemm" else None
        if linear is not None and _takes_channels(linear, channels):
            found.append(linear)
        elif index == 0 and _keeps_channels(user, channels):
            behind = _readers(user.outputs[0], channels)
            if behind is None:
                return None
            found += behind
        else:
            return None
    return found


def _takes_channels(linear: Linear, channels: int) -> bool:
    return linear.is_plain and linear.features_in == channels and constant(linear.bias) is not None


def _keeps_channels(node: ir.Node, channels: int) -> bool:
    if node.op_type == "Reshape":
        sizes = constant(node.inputs[1])
        return sizes is not None and sizes[-1] == channels
    order = read_permutation(node)
    return order is not None and order[-1] == len(order) - 1


def _grn_pattern(op: Any, x: Any, n: Any, gamma: Any, beta: Any) -> Any:
    return op.Add(op.Add(op.Mul(gamma, op.Mul(x, n)), beta), x)


def _grn_fits(context: Any, n: ir.Value, gamma: ir.Value, beta: ir.Value, **_: Any) -> bool:
    return constant(gamma) is not None and constant(beta) is not None and constant(n) is None


def _shorter(op: Any, x: ir.Value, n: ir.Value, gamma: ir.Value, beta: ir.Value) -> Any:
    one = new_constant(op, ir.tensor(np.float32(1)), gamma, "one")
    scale = op.Add(op.Mul(n, gamma), one)
    return op.Add(op.Mul(x, scale), beta)


def _grn_rules() -> pattern.RewriteRuleSet:
    return pattern.RewriteRuleSet([pattern.RewriteRule(_grn_pattern, _shorter, _grn_fits)], commute=True)


@graph_pass("export", after="reduce_l2_to_sum")
def shorten_grn(model: ir.Model) -> tuple[ir.Model, bool]:
    """Rewrite every global response normalization with fewer passes over its map.

    gamma * (x * n) + beta + x, four operators over the widest map of a ConvNeXt block, is x * (gamma * n + 1) + beta:
    two, and `fold_affine` moves beta into the bias of the next Gemm.
    """
    return apply(_grn_rules(), model)


def _l2_pattern(op: Any, x: Any, axes: Any) -> Any:
    return op.ReduceL2(x, axes, _outputs=["norm"])


def _l2_replacement(op: Any, x: ir.Value, axes: ir.Value, norm: ir.Value) -> Any:
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
    """Return whether a sum leaves only the last axis: every other axis is summed over, or has size 1."""
    values = constant(axes)
    if values is None or len(shape) < 3:
        return False
    summed = {int(axis) % len(shape) for axis in values}
    last = len(shape) - 1
    return last not in summed and all(axis in summed or shape[axis] == 1 for axis in range(last))


def _l2_rules() -> pattern.RewriteRuleSet:
    return pattern.RewriteRuleSet([pattern.RewriteRule(_l2_pattern, _l2_replacement)])


@graph_pass("export", after="matmul_to_gemm")
def reduce_l2_to_sum(model: ir.Model) -> tuple[ir.Model, bool]:
    """Rewrite every ReduceL2 that names its axes as Mul, ReduceSum and Sqrt, over the rows of a matrix where it can.

    TensorFlow's route reads no other form. ONNX Runtime sums the rows of a matrix three times as fast as the same
    numbers in a map of rank 4, whose leading axis of 1 takes it off its quick path (1.31.1). The sums of a ConvNeXt's
    GRNs were an eighth of its time.
    """
    return apply(_l2_rules(), model)


@graph_pass("lowering", after="scale_elu")
def write_out_lp_norm(model: ir.Model) -> tuple[ir.Model, bool]:
    """Write LpNormalization as x / (norm + 1 where the norm is 0), with p = 1 or 2, over an axis; so zeros stay zeros.

    onnx2tf lowers it to TFLite's L2_NORMALIZATION, which is over the last axis of the file, whatever axis was meant.
    The usual guard against 0, Max(norm, a tiny number), it takes for a ReLU.
    """
    found = [node for node in model.graph if node.op_type == "LpNormalization" and static_shape(node.inputs[0])]
    for node in found:
        x, name = node.inputs[0], str(node.outputs[0].name)
        shape = static_shape(x)
        assert x is not None and x.dtype is not None and shape is not None  # found by them
        axis = node.attributes.get_int("axis", -1) % len(shape)
        squared = node.attributes.get_int("p", 2) == 2
        sizes = new_node("Mul" if squared else "Abs", [x, x] if squared else [x], output=f"{name}_parts")
        axes = add_sizes(model.graph, f"{name}_axis", (axis,))
        norm = [new_node("ReduceSum", [sizes.outputs[0], axes], {"keepdims": 1}, output=f"{name}_norm_0")]
        if squared:
            norm.append(new_node("Sqrt", norm[0].outputs, output=f"{name}_norm_1"))
        length, next_name = norm[-1].outputs[0], (f"{name}_norm_{i}" for i in count(len(norm)))
        # 1 - Sign of what is at least 0.
        sign = new_node("Sign", [length], output=next(next_name))
        one = new_node("Sub", [_one(model.graph, name, x.dtype), sign.outputs[0]], output=next(next_name))
        guarded = new_node("Add", [length, one.outputs[0]], output=next(next_name))
        replace_node(model.graph, node, [sizes, *norm, sign, one, guarded, ir.node("Div", [x, guarded.outputs[0]])])
    return model, bool(found)


def _one(graph: ir.Graph, name: str, dtype: ir.DataType) -> ir.Value:
    return add_constant(graph, f"{name}_one", np.ones((), dtype.numpy()))
