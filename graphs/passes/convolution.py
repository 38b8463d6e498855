"""Passes over convolutions: their BatchNormalization, and kernels that XNNPACK, which runs TFLite, is slow with."""

import math
from typing import Any

import numpy as np
import onnx_ir as ir
from onnxscript.rewriter import pattern

from backends.tensor import TO_NHWC, Array
from graphs.onnx.readers import Convolution, constant
from graphs.onnx.rewriting import (
    add_constant,
    add_sizes,
    add_tensor,
    apply,
    new_constant,
    new_node,
    replace_node,
    rewrite_convolutions,
)
from graphs.onnx.weights import lazy_tensor
from graphs.passes.registry import graph_pass


def _normalized(op: Any, x: Any, weight: Any, scale: Any, shift: Any, mean: Any, variance: Any) -> Any:
    convolved = op.Conv(x, weight, _allow_other_attributes=True, _outputs=["convolved"])
    return op.BatchNormalization(
        convolved, scale, shift, mean, variance, _allow_other_attributes=True, _outputs=["norm"]
    )


def _batch_norm_fits(context: Any, weight: ir.Value, **values: Any) -> bool:
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
            op, lazy_tensor(tuple(kernel.shape.numpy()), kernel, lambda: kernel.numpy() * columns), weight, "folded"
        ),
        new_constant(op, ir.tensor(beta - average * by), weight, "folded_bias"),
        **convolution.attributes,
    )


def _batch_norm_rules() -> pattern.RewriteRuleSet:
    return pattern.RewriteRuleSet([pattern.RewriteRule(_normalized, _folded, _batch_norm_fits)])


@graph_pass("export")
def fold_batch_norm(model: ir.Model) -> tuple[ir.Model, bool]:
    """Fold every BatchNormalization that follows a Conv without a bias into the weight of the Conv, and a bias.

    The exporter and onnxsim do this too, but only with weights that they can see; see graphs/onnx/weights.py.
    """
    return apply(_batch_norm_rules(), model)


MOST_TAPS = 25


@graph_pass("lowering", after="widen_small_integers")
def split_depthwise(model: ir.Model) -> tuple[ir.Model, bool]:
    """Split every depthwise Conv over MOST_TAPS that keeps the size of its map (stride 1, padded by half the kernel).

    Each part takes rows of the kernel that are equally far apart and lie around its middle, so its own dilation and
    padding keep the size too, and no part needs a padded or shifted copy of the map. XNNPACK has depthwise kernels for
    up to 25 taps. Beyond that it multiplies matrices whose tiles are sixteen channels wide for one channel at a time:
    49 taps took a third of a ConvNeXt's time.
    """
    return rewrite_convolutions(model, _is_large_depthwise, _split_kernel)


def row_groups(rows: int, most: int) -> list[range]:
    """Split the rows of a kernel, an odd number of them, into at most `most` a group, evenly spaced around the middle.

    Row 0 is the middle one: 7 rows, 3 a group, are -3, 0, 3 and -2, 2 and -1, 1.
    """
    outermost = rows // 2
    largest = most - 1 + most % 2  # an odd number has the middle row
    taken = min(largest, rows)
    step = max(1, outermost // max(1, taken // 2))
    middle = range(-step * (taken // 2), step * (taken // 2) + 1, step)
    pairs = [k for k in range(outermost, 0, -1) if k not in middle]
    return [middle, *(range(-k, k + 1, 2 * k) for k in pairs)]


def _is_large_depthwise(node: ir.Node, conv: Convolution) -> bool:
    rows, columns = conv.kernel
    keeps_size = (
        rows % 2 == columns % 2 == 1
        and conv.pads == (rows // 2, columns // 2) * 2
        and conv.strides == conv.dilations == (1, 1)
    )
    return conv.is_depthwise and keeps_size and rows * columns > MOST_TAPS >= 2 * columns


def _split_kernel(graph: ir.Graph, node: ir.Node, conv: Convolution) -> None:
    values, weight, (rows, columns) = conv.values.numpy(), conv.weight, conv.kernel
    made: list[ir.Node] = []
    for i, group in enumerate(row_groups(rows, MOST_TAPS // columns)):
        part = add_constant(graph, f"{weight.name}.rows{i}", values[:, :, [rows // 2 + row for row in group]])
        bias = node.inputs[2:] if i == 0 else ()
        attributes: dict[str, int | list[int]] = {
            "group": conv.group,
            "kernel_shape": [len(group), columns],
            "dilations": [group.step if len(group) > 1 else 1, 1],
            "pads": [group[-1], columns // 2] * 2,
            "strides": [1, 1],
        }
        before = made[-1:]
        name = f"{node.name}.rows{i}"
        made.append(new_node("Conv", [conv.x, part, *bias], attributes, name=name, output=f"{name}.out"))
        if before:
            name, both = f"{node.name}.sum{i}", [before[0].outputs[0], made[-1].outputs[0]]
            made.append(new_node("Add", both, name=name, output=f"{name}.out"))
    replace_node(graph, node, made)
    if not weight.uses() and weight.name is not None:
        graph.initializers.pop(weight.name, None)


# Weights of one output.
MOST_WEIGHTS = 1 << 14


@graph_pass("lowering", after="split_depthwise")
def split_large_conv(model: ir.Model) -> tuple[ir.Model, bool]:
    """Split every Conv with more than MOST_WEIGHTS weights an output into a sum of one Conv for each row of its kernel.

    A Conv that pads or skips stays. XNNPACK works through all the weights of sixteen outputs for every few places of
    the map. Where those are more than a core's cache they come from memory each time: 3 x 3 x 2896 (1.7 MB in float32)
    took 48 ms in INT8 and 730 in float32, by rows 22 and 630. A Conv of 768 channels gains nothing.
    """
    return rewrite_convolutions(model, _is_large, _split_rows)


def _is_large(node: ir.Node, conv: Convolution) -> bool:
    weights = conv.input_shape[1] * math.prod(conv.kernel)
    plain = conv.is_full and conv.strides == (1, 1) and not any(conv.pads)
    return plain and weights > MOST_WEIGHTS and conv.kernel[0] > 1


def _split_rows(graph: ir.Graph, node: ir.Node, conv: Convolution) -> None:
    output, height = node.outputs[0], conv.output_shape[2]
    new: list[ir.Node] = []
    total: ir.Value | None = None
    for row in range(conv.kernel[0]):
        name = f"{output.name}.row{row}"
        bounds = [add_sizes(graph, f"{name}.{what}", (at,)) for what, at in (("from", row), ("to", row + height))]
        bounds.append(add_sizes(graph, f"{name}.axis", (2,)))
        part = new_node("Slice", [conv.x, *bounds], name=f"{name}.part", output=f"{name}.part")
        bias = node.inputs[2:] if row == 0 else ()
        inputs = [part.outputs[0], add_tensor(graph, f"{name}.weight", _row(conv, row)), *bias]
        product = new_node("Conv", inputs, {"kernel_shape": [1, conv.kernel[1]]}, name=name, output=f"{name}.out")
        new += [part, product]
        if total is not None:
            both = [total, product.outputs[0]]
            new.append(new_node("Add", both, name=f"{name}.sum", output=f"{name}.sum"))
        total = new[-1].outputs[0]
    replace_node(graph, node, new)


def _row(conv: Convolution, row: int) -> ir.TensorProtocol:
    shape = (conv.output_shape[1], conv.input_shape[1], 1, conv.kernel[1])
    return lazy_tensor(shape, conv.values, lambda: conv.values.numpy()[:, :, row : row + 1])


@graph_pass("lowering", after="split_large_conv")
def patches_to_depth(model: ir.Model) -> tuple[ir.Model, bool]:
    """Rewrite every Conv of square patches that do not overlap, on a map that they fill, as SpaceToDepth and a product.

    XNNPACK pads the channels of every tap to the depth of its kernel: with three channels, it multiplies mostly zeros.
    A ViT's first layer, 3 x 16 x 16 to 384, took 0.19 of its time in INT8 this way and 0.75 in float32, and each patch
    gets a scale of its own where activations are quantized during the run.
    """
    return rewrite_convolutions(model, _fills, _patches_rewrite)


def _fills(node: ir.Node, conv: Convolution) -> bool:
    filled = conv.input_shape[2] % conv.kernel[0] == conv.input_shape[3] % conv.kernel[1] == 0
    return conv.is_full and conv.makes_patches and filled


def _patches_rewrite(graph: ir.Graph, node: ir.Node, conv: Convolution) -> None:
    """Conv(x, w, b) -> Conv(SpaceToDepth(x), w as 1 x 1, b); depth goes by row, column and then channel of a patch."""
    size, output = conv.kernel[0], node.outputs[0]
    outputs, depth = conv.output_shape[1], conv.input_shape[1] * size * size
    patches = f"{node.name}.patches"
    deep = new_node("SpaceToDepth", [conv.x], {"blocksize": size}, name=patches, output=f"{output.name}.patches")
    name, shape = f"{conv.weight.name}.patches", (outputs, depth, 1, 1)
    if name not in graph.initializers:
        by_pixel = lazy_tensor(shape, conv.values, lambda: conv.values.numpy().transpose(TO_NHWC).reshape(shape))
        add_tensor(graph, name, by_pixel)
    inputs = [deep.outputs[0], graph.initializers[name], *node.inputs[2:]]
    replace_node(graph, node, [deep, ir.node("Conv", inputs, {"kernel_shape": [1, 1]}, name=node.name)])


@graph_pass("lowering", after="patches_to_depth")
def transposed_to_conv(model: ir.Model) -> tuple[ir.Model, bool]:
    """Rewrite every ConvTranspose whose square kernel is a multiple of its step as a Conv and DepthToSpace.

    A transposed convolution with step s makes s x s neighbouring places from the same places of its input, through s x
    s kernels that are s times smaller: one convolution with s x s times the outputs. XNNPACK has one kernel for each of
    the places, and none is as quick: the captioner's four took 0.36 of their time this way in float32 and 0.38 in INT8.
    """
    return rewrite_convolutions(model, _transposed_fits, _transposed_rewrite, "ConvTranspose")


def _transposed_fits(node: ir.Node, conv: Convolution) -> bool:
    (rows, columns), (step, other) = conv.kernel, conv.strides
    more = node.attributes.get_ints("output_padding", (0, 0))
    return (
        conv.is_full
        and rows == columns
        and step == other > 1
        and rows % step == 0
        and min(conv.pads) >= 0
        # More rows than the kernel reaches would have to be added.
        and all(size <= end for size, end in zip(more, conv.pads[2:], strict=True))
        and "output_shape" not in node.attributes
        and (conv.bias is None or constant(conv.bias) is not None)
    )


def _transposed_rewrite(graph: ir.Graph, node: ir.Node, conv: Convolution) -> None:
    """ConvTranspose(x, w, b) -> Slice(DepthToSpace(Conv(x, w', b')))"""
    output, step, taps = node.outputs[0], conv.strides[0], conv.kernel[0] // conv.strides[0]
    name, channels, outputs = str(output.name), conv.input_shape[1], conv.output_shape[1]
    shape = (step * step * outputs, channels, taps, taps)

    def by_place() -> Array:
        # (in, out, tap, place, tap, place): a place's last tap is the first in the map.
        split = conv.values.numpy().reshape(channels, outputs, taps, step, taps, step)[:, :, ::-1, :, ::-1]
        places: Array = split.transpose(3, 5, 1, 0, 2, 4).reshape(shape)
        return places

    inputs = [conv.x, add_tensor(graph, f"{name}.kernels", lazy_tensor(shape, conv.values, by_place))]
    if (bias := constant(conv.bias)) is not None:
        inputs.append(add_constant(graph, f"{name}.bias", np.tile(bias, step * step)))
    rows, columns = (size + taps - 1 for size in conv.input_shape[2:])
    pads = {"kernel_shape": [taps, taps], "pads": [taps - 1] * 4}
    new = [new_node("Conv", inputs, pads, name=node.name, output=f"{name}.places")]
    new.append(ir.node("DepthToSpace", new[0].outputs, {"blocksize": step}, name=f"{node.name}.map"))
    cut, made = conv.pads[:2], conv.output_shape[2:]
    if any(cut) or made != (rows * step, columns * step):
        new[1].outputs[0].name = f"{name}.whole"
        ends = tuple(first + size for first, size in zip(cut, made, strict=True))
        bounds = [add_sizes(graph, f"{name}.{what}", at) for what, at in (("from", cut), ("to", ends))]
        axes = add_sizes(graph, f"{name}.axes", (2, 3))
        new.append(ir.node("Slice", [new[1].outputs[0], *bounds, axes], name=f"{node.name}.cut"))
    replace_node(graph, node, new)
