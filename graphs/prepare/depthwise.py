"""Depthwise convolutions with large kernels -> a sum of dilated ones with fewer taps.

XNNPACK, which runs float32 convolutions in TFLite, has depthwise kernels for up to 25 taps. Beyond that it multiplies
matrices whose tiles are sixteen channels wide for one channel at a time: 49 taps took a third of a ConvNeXt's time.
ONNX Runtime has kernels of any size, so this is for graphs that are about to be lowered.
"""

import onnx_ir as ir

from graphs.prepare.nodes import add_constant, describe, put

MOST_TAPS = 25


def split_depthwise(model: ir.Model) -> tuple[ir.Model, bool]:
    """Split every depthwise Conv over MOST_TAPS that keeps the size of its map (stride 1, padded by half the kernel).

    Each part takes rows of the kernel that are equally far apart and lie around its middle, so its own dilation and
    padding keep the size too, and no part needs a padded or shifted copy of the map.
    """
    found = [(node, kernel) for node in model.graph if (kernel := _large_depthwise(node)) is not None]
    for node, kernel in found:
        _split(model.graph, node, kernel)
    return model, bool(found)


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


def _large_depthwise(node: ir.Node) -> ir.TensorProtocol | None:
    """The kernel of a convolution that is to be split, (C, 1, rows, columns), or None."""
    if node.op_type != "Conv" or node.inputs[1] is None or node.inputs[0] is None:
        return None
    kernel = ir.convenience.get_const_tensor(node.inputs[1])
    if kernel is None or len(kernel.shape) != 4 or node.attributes.get_int("group", 1) != kernel.shape[0]:
        return None
    _, per_group, rows, columns = kernel.shape.numpy()
    half = [rows // 2, columns // 2]
    keeps_size = (
        rows % 2 == columns % 2 == 1
        and list(node.attributes.get_ints("pads", (0, 0, 0, 0))) == half * 2
        and set(node.attributes.get_ints("strides", (1, 1))) == {1}
        and set(node.attributes.get_ints("dilations", (1, 1))) == {1}
    )
    return kernel if per_group == 1 and keeps_size and rows * columns > MOST_TAPS >= 2 * columns else None


def _split(graph: ir.Graph, node: ir.Node, kernel: ir.TensorProtocol) -> None:
    values = kernel.numpy()
    channels, _, rows, columns = values.shape
    output, weight = node.outputs[0], node.inputs[1]
    assert weight is not None
    made: list[ir.Node] = []
    for i, group in enumerate(row_groups(rows, MOST_TAPS // columns)):
        part = add_constant(graph, f"{weight.name}.rows{i}", values[:, :, [rows // 2 + row for row in group]])
        bias = node.inputs[2:] if i == 0 else ()
        attributes = {
            "group": channels,
            "kernel_shape": [len(group), columns],
            "dilations": [group.step if len(group) > 1 else 1, 1],
            "pads": [group[-1], columns // 2] * 2,
            "strides": [1, 1],
        }
        before = made[-1:]
        made.append(ir.node("Conv", [node.inputs[0], part, *bias], attributes, name=f"{node.name}.rows{i}"))
        if before:
            made.append(ir.node("Add", [before[0].outputs[0], made[-1].outputs[0]], name=f"{node.name}.sum{i}"))
    for new in made:
        describe(new.outputs[0], f"{new.name}.out", output)
    put(graph, node, made)
    if not weight.uses() and weight.name is not None:
        graph.initializers.pop(weight.name, None)
