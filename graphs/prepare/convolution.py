"""What a convolution's node says, read once for the passes that rewrite some of them."""

from collections.abc import Callable
from dataclasses import dataclass

import onnx_ir as ir

from graphs.prepare.rewriting import static_shape


@dataclass(frozen=True)
class Convolution:
    """A Conv or ConvTranspose of one group, not dilated, with constant weights, between maps of known sizes.

    of, made: the maps, (N, C, H, W). kernel, steps: rows, columns. pads: before the rows and columns, then after them.
    """

    x: ir.Value
    weight: ir.Value
    values: ir.TensorProtocol
    of: tuple[int, ...]
    made: tuple[int, ...]
    kernel: tuple[int, int]
    steps: tuple[int, int]
    pads: tuple[int, int, int, int]

    @property
    def makes_patches(self) -> bool:
        """Whether its steps are as large as its square kernel, and nothing is padded: no pixel is seen twice."""
        return self.steps == self.kernel and self.kernel[0] == self.kernel[1] > 1 and not any(self.pads)


def read_convolution(node: ir.Node, op_type: str = "Conv") -> Convolution | None:
    """What the node says, or None where it is another one. Padding that is only named is none of ours."""
    if node.op_type != op_type or node.inputs[0] is None or node.inputs[1] is None:
        return None
    x, weight = node.inputs[0], node.inputs[1]
    values, of, made = ir.convenience.get_const_tensor(weight), static_shape(x), static_shape(node.outputs[0])
    if values is None or of is None or made is None or not len(values.shape) == len(of) == len(made) == 4:
        return None
    attributes = node.attributes
    if (
        attributes.get_int("group", 1) != 1
        or set(attributes.get_ints("dilations", (1, 1))) != {1}
        or attributes.get_string("auto_pad", "NOTSET") != "NOTSET"
    ):
        return None
    rows, columns = (int(size) for size in values.shape.numpy()[2:])
    row_step, column_step = attributes.get_ints("strides", (1, 1))
    top, left, bottom, right = attributes.get_ints("pads", (0, 0, 0, 0))
    pads = (top, left, bottom, right)
    return Convolution(x, weight, values, of, made, (rows, columns), (row_step, column_step), pads)


def rewrite_convolutions(
    model: ir.Model,
    fits: Callable[[ir.Node, Convolution], bool],
    rewrite: Callable[[ir.Graph, ir.Node, Convolution], None],
    op_type: str = "Conv",
) -> tuple[ir.Model, bool]:
    """Rewrite every convolution of this type that fits. Returns the model, and whether there was one."""
    read = [(node, read_convolution(node, op_type)) for node in model.graph]
    found = [(node, conv) for node, conv in read if conv is not None and fits(node, conv)]
    for node, conv in found:
        rewrite(model.graph, node, conv)
    return model, bool(found)
