"""Transposed convolutions -> convolutions and DepthToSpace.

What a transposed convolution with step s makes at s x s neighbouring places comes from the same places of its input,
through s x s kernels that are s times smaller: one convolution with s x s times the outputs. XNNPACK has one kernel for
each of those places and none that is as quick: the captioner's four took 0.36 of their time this way in float32 and
0.38 in INT8. ONNX Runtime gains nothing, so this is for graphs that are about to be lowered.
"""

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from graphs.large_weights import computed
from graphs.prepare.nodes import add_constant, add_sizes, add_tensor, describe, put
from graphs.prepare.rewriting import constant, static_shape


@dataclass(frozen=True)
class _Transposed:
    """Sizes of a transposed convolution: `taps` a side and place, and what is cut off before the first row and column.

    cut: rows, columns. made: rows and columns of the output.
    """

    step: int
    taps: int
    cut: tuple[int, int]
    made: tuple[int, int]


def transposed_to_conv(model: ir.Model) -> tuple[ir.Model, bool]:
    """Rewrite every ConvTranspose of one group whose square kernel is a multiple of its step."""
    found = [(node, sizes) for node in model.graph if (sizes := _sizes(node)) is not None]
    for node, sizes in found:
        _rewrite(model.graph, node, sizes)
    return model, bool(found)


def _sizes(node: ir.Node) -> _Transposed | None:
    if node.op_type != "ConvTranspose" or node.inputs[1] is None or static_shape(node.inputs[0]) is None:
        return None
    kernel, made = ir.convenience.get_const_tensor(node.inputs[1]), static_shape(node.outputs[0])
    if kernel is None or len(kernel.shape) != 4 or made is None:
        return None
    rows, columns = (int(size) for size in kernel.shape.numpy()[2:])
    steps = list(node.attributes.get_ints("strides", (1, 1)))
    pads = list(node.attributes.get_ints("pads", (0, 0, 0, 0)))
    fits = (
        rows == columns
        and steps[0] == steps[1] > 1
        and rows % steps[0] == 0
        and min(pads) >= 0
        # More rows than the kernel reaches would have to be added.
        and all(
            more <= end for more, end in zip(node.attributes.get_ints("output_padding", (0, 0)), pads[2:], strict=True)
        )
        and node.attributes.get_string("auto_pad", "NOTSET") == "NOTSET"
        and "output_shape" not in node.attributes
        and set(node.attributes.get_ints("dilations", (1,))) == {1}
        and node.attributes.get_int("group", 1) == 1
        and (len(node.inputs) < 3 or node.inputs[2] is None or constant(node.inputs[2]) is not None)
    )
    return _Transposed(steps[0], rows // steps[0], (pads[0], pads[1]), (made[2], made[3])) if fits else None


def _rewrite(graph: ir.Graph, node: ir.Node, sizes: _Transposed) -> None:
    """ConvTranspose(x, w, b) -> Slice(DepthToSpace(Conv(x, w', b')))"""
    x, weight, output = node.inputs[0], node.inputs[1], node.outputs[0]
    assert x is not None and weight is not None and weight.const_value is not None  # _sizes
    of, whole = static_shape(x), weight.const_value
    assert of is not None  # _sizes
    step, taps, name = sizes.step, sizes.taps, str(output.name)
    channels, outputs = (int(size) for size in whole.shape.numpy()[:2])
    shape = (step * step * outputs, channels, taps, taps)

    def by_place() -> np.ndarray:
        # (in, out, tap, place, tap, place): a place's last tap is the first in the map.
        split = whole.numpy().reshape(channels, outputs, taps, step, taps, step)[:, :, ::-1, :, ::-1]
        return split.transpose(3, 5, 1, 0, 2, 4).reshape(shape)

    inputs = [x, add_tensor(graph, f"{name}.kernels", computed(shape, whole, by_place))]
    if len(node.inputs) > 2 and (bias := constant(node.inputs[2])) is not None:
        inputs.append(add_constant(graph, f"{name}.bias", np.tile(bias, step * step)))
    pads = {"kernel_shape": [taps, taps], "pads": [taps - 1] * 4}
    rows, columns = (size + taps - 1 for size in of[2:])
    new = [ir.node("Conv", inputs, pads, name=node.name)]
    describe(new[0].outputs[0], f"{name}.places", output, (of[0], shape[0], rows, columns))
    new.append(ir.node("DepthToSpace", new[0].outputs, {"blocksize": step}, name=f"{node.name}.map"))
    if any(sizes.cut) or sizes.made != (rows * step, columns * step):
        describe(new[1].outputs[0], f"{name}.whole", output, (of[0], outputs, rows * step, columns * step))
        ends = tuple(first + size for first, size in zip(sizes.cut, sizes.made, strict=True))
        bounds = [add_sizes(graph, f"{name}.{what}", at) for what, at in (("from", sizes.cut), ("to", ends))]
        axes = add_sizes(graph, f"{name}.axes", (2, 3))
        new.append(ir.node("Slice", [new[1].outputs[0], *bounds, axes], name=f"{node.name}.cut"))
    put(graph, node, new)
    if weight.name is not None and not weight.uses():
        del graph.initializers[weight.name]
