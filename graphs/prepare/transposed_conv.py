"""Transposed convolutions -> convolutions and DepthToSpace.

What a transposed convolution with step s makes at s x s neighbouring places comes from the same places of its input,
through s x s kernels that are s times smaller: one convolution with s x s times the outputs. XNNPACK has one kernel for
each of those places and none that is as quick: the captioner's four took 0.36 of their time this way in float32 and
0.38 in INT8. ONNX Runtime gains nothing, so this is for graphs that are about to be lowered.
"""

import numpy as np
import onnx_ir as ir

from backends.tensor import Array
from graphs.large_weights import computed
from graphs.prepare.convolution import Convolution, rewrite_convolutions
from graphs.prepare.nodes import add_constant, add_sizes, add_tensor, describe, put
from graphs.prepare.rewriting import constant


def transposed_to_conv(model: ir.Model) -> tuple[ir.Model, bool]:
    """Rewrite every ConvTranspose whose square kernel is a multiple of its step."""
    return rewrite_convolutions(model, _fits, _rewrite, "ConvTranspose")


def _fits(node: ir.Node, conv: Convolution) -> bool:
    (rows, columns), (step, other) = conv.kernel, conv.steps
    more = node.attributes.get_ints("output_padding", (0, 0))
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    return (
        rows == columns
        and step == other > 1
        and rows % step == 0
        and min(conv.pads) >= 0
        # More rows than the kernel reaches would have to be added.
        and all(size <= end for size, end in zip(more, conv.pads[2:], strict=True))
        and "output_shape" not in node.attributes
        and (bias is None or constant(bias) is not None)
    )


def _rewrite(graph: ir.Graph, node: ir.Node, conv: Convolution) -> None:
    """ConvTranspose(x, w, b) -> Slice(DepthToSpace(Conv(x, w', b')))"""
    output, step, taps = node.outputs[0], conv.steps[0], conv.kernel[0] // conv.steps[0]
    name, channels, outputs = str(output.name), conv.of[1], conv.made[1]
    shape = (step * step * outputs, channels, taps, taps)

    def by_place() -> Array:
        # (in, out, tap, place, tap, place): a place's last tap is the first in the map.
        split = conv.values.numpy().reshape(channels, outputs, taps, step, taps, step)[:, :, ::-1, :, ::-1]
        places: Array = split.transpose(3, 5, 1, 0, 2, 4).reshape(shape)
        return places

    inputs = [conv.x, add_tensor(graph, f"{name}.kernels", computed(shape, conv.values, by_place))]
    if len(node.inputs) > 2 and (bias := constant(node.inputs[2])) is not None:
        inputs.append(add_constant(graph, f"{name}.bias", np.tile(bias, step * step)))
    rows, columns = (size + taps - 1 for size in conv.of[2:])
    pads = {"kernel_shape": [taps, taps], "pads": [taps - 1] * 4}
    new = [ir.node("Conv", inputs, pads, name=node.name)]
    describe(new[0].outputs[0], f"{name}.places", output, (conv.of[0], shape[0], rows, columns))
    new.append(ir.node("DepthToSpace", new[0].outputs, {"blocksize": step}, name=f"{node.name}.map"))
    cut, made = conv.pads[:2], conv.made[2:]
    if any(cut) or made != (rows * step, columns * step):
        describe(new[1].outputs[0], f"{name}.whole", output, (conv.of[0], outputs, rows * step, columns * step))
        ends = tuple(first + size for first, size in zip(cut, made, strict=True))
        bounds = [add_sizes(graph, f"{name}.{what}", at) for what, at in (("from", cut), ("to", ends))]
        axes = add_sizes(graph, f"{name}.axes", (2, 3))
        new.append(ir.node("Slice", [new[1].outputs[0], *bounds, axes], name=f"{node.name}.cut"))
    put(graph, node, new)
